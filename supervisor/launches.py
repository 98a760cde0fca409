"""The launches of children: a queue, and the one that the fork server has been asked for. Impure and thin.

    queued     --its turn comes-->  begun      the order is sent to the fork server; one at a time
    begun      --answered-->        started    the process exists and is watched for its death
    begun      --refused, overdue-> failed     never created
    queued     --signalled-->       failed     it needs no process
    begun      --signalled-->       begun      the signal is sent once there is a process

Nothing here waits, so the supervisor answers operators while a thousand children start. Called by process.py.
"""

import selectors
import signal
from collections.abc import Callable

from ..transport.addresses import Address
from ..transport.machine import Event
from .child import ChildParameters
from .deaths import DeathWatch
from .events import ChildDied, ChildStarted, Launch
from .forking import ForkedProcess
from .launcher import Launcher, LaunchFailed


class Launches:
    def __init__(
        self,
        launcher: Launcher,
        selector: selectors.BaseSelector,
        deaths: DeathWatch,
        order_for: Callable[[Launch], ChildParameters],
    ) -> None:
        self._launcher = launcher
        self._selector = selector
        self._deaths = deaths
        self._order_for = order_for
        self._queued: dict[tuple[Address, int], Launch] = {}
        """By address and incarnation."""
        self._begun: tuple[Address, int] | None = None
        self._process: ForkedProcess
        self._deadline = 0
        self._signals: list[signal.Signals] = []

    @property
    def is_due(self) -> bool:
        """True if a launch can begin now."""
        return bool(self._queued) and self._begun is None

    def __bool__(self) -> bool:
        """True while launches wait or are in progress."""
        return bool(self._queued) or self._begun is not None

    def next_at(self) -> int | None:
        """Return the time at which the fork server has to have answered."""
        return None if self._begun is None else self._deadline

    def add(self, launch: Launch) -> None:
        self._queued[launch.spec.address, launch.incarnation] = launch

    def begin(self, on_answer: Callable[[], None], now: int) -> list[Event]:
        """Begin the next launch, if it is time. `on_answer` is called by the selector."""
        if not self.is_due:
            return []
        which = next(iter(self._queued))
        launch = self._queued.pop(which)
        try:
            self._process = self._launcher.begin(self._order_for(launch))
        except LaunchFailed as error:
            return [_failed(which, error)]
        self._begun, self._signals = which, []
        self._deadline = now + int(self._launcher.time_limit_s * 1000)
        self._selector.register(self._process.sentinel, selectors.EVENT_READ, on_answer)
        return []

    def answered(self, now: int) -> list[Event]:
        """Take the fork server's answer, which has arrived."""
        which = self._end()
        try:
            self._launcher.complete(self._process)
        except LaunchFailed as error:
            return [_failed(which, error)]
        assert self._process.pid is not None
        self._deaths.add(*which, self._process, now)
        for number in self._signals:
            self._deaths.signal(*which, number)
        return [ChildStarted(*which, self._process.pid)]

    def overdue(self, now: int) -> list[Event]:
        """End a launch that the fork server has not answered in time."""
        if self._begun is None or now < self._deadline:
            return []
        return [_failed(self._end(), self._launcher.give_up())]

    def signal(self, address: Address, incarnation: int, number: signal.Signals) -> list[Event]:
        """Send a signal to a child, wherever its launch is; a no-op when it is gone."""
        which = (address, incarnation)
        if self._queued.pop(which, None) is not None:
            return [ChildDied(address, incarnation, f"{number.name} before it had a process", False)]
        if which == self._begun:
            self._signals.append(number)
        else:
            self._deaths.signal(address, incarnation, number)
        return []

    def _end(self) -> tuple[Address, int]:
        assert self._begun is not None
        self._selector.unregister(self._process.sentinel)
        which, self._begun = self._begun, None
        return which


def _failed(which: tuple[Address, int], error: LaunchFailed) -> ChildDied:
    return ChildDied(*which, f"no process could be started: {error}", False)

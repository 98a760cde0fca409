"""Confirmed deaths: watches a pidfd for each child and reports how it ended.

The sentinels of multiprocessing err in both directions: a forked grandchild keeps a dead child's sentinel silent, and a
dying fork server makes those of living children readable. So a death is confirmed by the kernel through the pidfd; the
sentinel is only read afterwards, for the exit status. Without pidfds (macOS) only the sentinel is used.

Called by process.py; owns the process handles from launch to death.
"""

import os
import selectors
import signal
from dataclasses import dataclass
from multiprocessing.process import BaseProcess

from ..transport.addresses import Address
from ..transport.protocol.control import ASLEEP_EXIT
from .events import ChildDied

STATUS_MS = 100
"""Time that a death waits for the exit status, which arrives through the fork server."""
EXPLAINED_STATUS_MS = 5_000
"""The same for a process that has explained its end. The status tells whether it sleeps or has crashed, and on a busy
machine, where the fork server gets no processor, it is late."""
EXCEPTION_EXIT = 1
REPORT_TIMEOUTS_MS = {EXCEPTION_EXIT: 100, ASLEEP_EXIT: 1000}
"""Time that a death waits for its report, by exit status: the report uses another channel and may arrive later. An
exception may end a process without a report; an actor that falls asleep always sends one."""
NORMAL_EXITS = (0, ASLEEP_EXIT)
# Status that multiprocessing reports if its fork server died and the real status is lost.
_STATUS_LOST = 255


@dataclass(slots=True, eq=False)
class _Watched:
    address: Address
    incarnation: int
    process: BaseProcess
    pidfd: int | None
    status_by: int | None = None
    """Set when it is dead: deadline for its exit status."""
    report_by: int | None = None
    has_reported: bool = False


class DeathWatch:
    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._watched: dict[tuple[Address, int], _Watched] = {}
        self._dead: list[_Watched] = []

    def __len__(self) -> int:
        return len(self._watched)

    def add(self, address: Address, incarnation: int, process: BaseProcess, now: int) -> None:
        """Watch a process that was just started."""
        assert process.pid is not None
        watched = _Watched(address, incarnation, process, None)
        self._watched[address, incarnation] = watched
        if not hasattr(os, "pidfd_open"):
            self._selector.register(process.sentinel, selectors.EVENT_READ, watched)
            return
        try:
            watched.pidfd = os.pidfd_open(process.pid)
        except ProcessLookupError:
            # It died and was reaped before we could open it.
            self._on_dead(watched, now)
        else:
            self._selector.register(watched.pidfd, selectors.EVENT_READ, watched)

    def signal(self, address: Address, incarnation: int, number: signal.Signals) -> None:
        """Send a signal to this incarnation; a no-op when it is gone."""
        watched = self._watched.get((address, incarnation))
        if watched is None or watched.status_by is not None:
            return
        try:
            if watched.pidfd is not None:
                signal.pidfd_send_signal(watched.pidfd, number)
            elif watched.process.pid is not None:
                os.kill(watched.process.pid, number)
        except ProcessLookupError:
            # Its death will be reported.
            return

    def note_report(self, address: Address, incarnation: int) -> None:
        """Note that the message has arrived by which this incarnation explains its end."""
        watched = self._watched.get((address, incarnation))
        if watched is not None:
            watched.has_reported = True

    def on_readable(self, token: object, now: int) -> None:
        """Handle a readable descriptor that the selector holds under `token`."""
        assert isinstance(token, _Watched)
        if token.status_by is None:
            self._on_dead(token, now)

    def _on_dead(self, watched: _Watched, now: int) -> None:
        watched.status_by = now + (EXPLAINED_STATUS_MS if watched.has_reported else STATUS_MS)
        self._dead.append(watched)
        if watched.pidfd is not None:
            self._selector.unregister(watched.pidfd)
            os.close(watched.pidfd)
            watched.pidfd = None
        if watched.process.sentinel not in self._selector.get_map():
            # Readable once the exit status has arrived.
            self._selector.register(watched.process.sentinel, selectors.EVENT_READ, watched)

    def next_at(self) -> int | None:
        """Return the time at which `deaths` may have a result although no descriptor is readable."""
        waits = [watched.report_by or watched.status_by for watched in self._dead]
        return min((at for at in waits if at is not None), default=None)

    def deaths(self, now: int) -> list[ChildDied]:
        """Return the deaths whose details are complete or overdue."""
        found: list[ChildDied] = []
        for watched in list(self._dead):
            code = watched.process.exitcode
            if code is None and watched.status_by is not None and now < watched.status_by:
                continue
            if code in REPORT_TIMEOUTS_MS and not watched.has_reported:
                if watched.report_by is None:
                    watched.report_by = now + REPORT_TIMEOUTS_MS[code]
                    self._silence(watched)
                if now < watched.report_by:
                    continue
            found.append(self._confirm(watched, code))
        return found

    def _confirm(self, watched: _Watched, code: int | None) -> ChildDied:
        self._silence(watched)
        self._dead.remove(watched)
        del self._watched[watched.address, watched.incarnation]
        if code is not None:
            watched.process.close()
        return ChildDied(watched.address, watched.incarnation, describe_exit(code), code in NORMAL_EXITS)

    def _silence(self, watched: _Watched) -> None:
        sentinel = watched.process.sentinel
        if sentinel in self._selector.get_map():
            self._selector.unregister(sentinel)


def describe_exit(code: int | None) -> str:
    if code is None or code == _STATUS_LOST:
        return "died, exit status unknown"
    if code < 0:
        try:
            return f"killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"killed by signal {-code}"
    return f"exit code {code}"

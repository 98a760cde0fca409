"""The threads that run a client's turns: the network thread, and for a moment a thread that waits for an answer.

handover.py has the states and the invariants. A thread leads under the shield (shield.py), because an exception of a
signal handler inside a turn would leave the client's machines half changed. Callbacks of the program always run in the
network thread: the thread that leads may hold locks, and be in the middle of a change that they would see.

Knows no socket: `turn` sleeps and works. Owns the gates that are opened at the end of a turn. Called by the network
thread and by every wait of the program.
"""

import sys
import threading
from collections.abc import Callable

from .dispatch import Dispatch
from .errors import Closed
from .gate import Alarm, Awaited, Opened, allow_waiting, forbid_waiting, may_wait
from .handover import LEAD_MS, TICK_MS, Handover
from .shield import is_main, is_safe_here, shield


class TurnTaking:
    def __init__(
        self,
        dispatch: Dispatch,
        turn: Callable[[int | None, bool], int],
        wake_owner: Callable[[], None],
        now_ms: Callable[[], int],
    ) -> None:
        """`turn(until, is_short)` sleeps until there is work, or that time, does the work, or that of one message, and
        returns the time. `wake_owner` ends its sleep."""
        self.failure: BaseException | None = None
        """The exception that ended the turns."""
        self.thread: threading.Thread | None = None
        self._dispatch = dispatch
        self._turn = turn
        self._now_ms = now_ms
        self._alarm = Alarm()
        self.handover = Handover(threading.Lock(), dispatch.inbox, wake_owner, self._alarm.ring)
        self.handover.begin()
        self._passed: list[Opened] = []
        self._has_answered = False
        """True if a thread waited for an outcome of this turn."""

    def on_fork(self, error: BaseException) -> None:
        self.failure = error
        self.handover.is_stopping = True
        self.handover.is_asleep = self.handover.is_free = False

    def is_network_thread(self) -> bool:
        return threading.current_thread() is self.thread

    # The owner of the socket.

    def let_pass(self, gate: Opened) -> None:
        """Open a gate at the end of the turn.

        The waiting thread needs the interpreter lock, which this thread gives up only when it has no work
        left. Woken earlier it would sleep again waiting for the lock, and have to be woken a second time.
        """
        self._passed.append(gate)

    def open_gates(self) -> None:
        waits = self.handover.waits
        while self._passed:  # a gate may announce another one
            passed, self._passed = self._passed, []
            for gate in passed:
                if gate in waits:
                    waits.discard(gate)
                    self._has_answered = True
                gate.open()

    def call_back(self, callback: Callable[[], None]) -> None:
        """Call a callback of the program in the network thread, at once if this is it."""
        self.handover.callbacks.append(callback)
        if self.is_network_thread():
            self._call_back()
        else:
            self._alarm.ring()

    # A waiting thread.

    def wait(self, gate: Awaited, timeout_s: float | None = None) -> bool:
        """Wait until the gate is opened, as `gate.wait` does. Runs the turns meanwhile if the socket is free.

        Raises Closed when the interpreter ends: no thread is left to open a gate.
        """
        if sys.is_finalizing():
            raise Closed("the interpreter ends")
        handover = self.handover
        if handover.is_free and not gate.is_open and may_wait():
            led_ms = self._lead(gate, LEAD_MS if timeout_s is None else int(min(LEAD_MS, timeout_s * 1000)))
            if timeout_s is not None:
                timeout_s = max(0.0, timeout_s - led_ms / 1000)
        if gate.is_open:
            return True
        handover.sleeps(gate)
        try:
            return gate.wait(timeout_s)
        finally:
            handover.waits.discard(gate)

    def _lead(self, gate: Awaited, limit_ms: int) -> int:
        """Run turns until the gate is open. Return the time that it took."""
        if limit_ms <= 0 or not is_safe_here():
            return 0
        if not is_main():
            return self._lead_shielded(gate, limit_ms)
        if not shield.put_up():
            return 0
        try:
            return self._lead_shielded(gate, limit_ms)
        finally:
            shield.take_down()

    def _lead_shielded(self, gate: Awaited, limit_ms: int) -> int:
        handover = self.handover
        if not handover.lead():
            return 0
        forbid_waiting()
        began = now = self._now_ms()
        is_open = False
        try:
            self._dispatch.short_turn(now, False)  # sends the call; messages come with the next turn
            self.open_gates()
            while not (is_open := gate.is_open) and now - began < limit_ms and not handover.is_stopping:
                now = self._turn(began + limit_ms, True)
                self.open_gates()
        except BaseException as error:  # a fault, as in the network thread: all waits end
            self.failure = error
            handover.is_stopping = True
            if not isinstance(error, Exception):
                raise
        finally:
            allow_waiting()
            handover.end_lead(is_open and self._dispatch.is_quiet)
        return now - began

    # The network thread.

    def run(self) -> None:
        """Run the turns until the end. Return as the owner of the socket."""
        forbid_waiting()
        while not self.handover.is_stopping:
            self.open_gates()
            if self._has_answered and self._may_rest and self.handover.rest():
                self._stand_by()
            self._has_answered = False
            self._call_back()
            if not self.handover.is_stopping:
                self._turn(None, False)

    @property
    def _may_rest(self) -> bool:
        return self._dispatch.is_quiet and not self.handover.waits

    def _stand_by(self) -> None:
        """Take a turn every TICK_MS while the socket is free. Return as its owner."""
        while True:
            self._alarm.sleep(TICK_MS / 1000)
            is_owner = self.handover.tick()
            self._call_back()
            if self.handover.is_stopping:
                if not is_owner:
                    self.handover.take()
                return
            if is_owner:
                self._turn(0, False)
                self.open_gates()
                if not self.handover.end_tick(self._may_rest):
                    return

    def _call_back(self) -> None:
        callbacks = self.handover.callbacks
        while callbacks:
            callbacks.pop(0)()

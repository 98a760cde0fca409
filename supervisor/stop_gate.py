"""The stop that a signal asks for. A node of a cluster prepares for it, and may refuse it. Pure; part of the machine.

    policy       the first signal                                            a further one
    at_once      stops the tree: a broker on one machine                     -
    permitted    the controller prepares the stop, and may refuse it         forces it
    prepared     the controller prepares the stop                            stops the tree

    state     means                                      left by
    none      no stop is asked for                       signal -> asked, or forced
    asked     the controller prepares the stop           done -> stop; refused, or too late -> none; signal -> forced
    forced    the same, and it may not refuse            done, too late, signal -> stop

The controller waits for the state by `await_stop` and reports the end of its preparation by `conclude_stop`. A
controller that starts again meanwhile learns the state by its first wait. Before the tree was first up there is
nothing to prepare.
"""

from typing import Literal, TypeAlias

from ..transport.machine import CancelTimer, Reply, Sender, SetTimer
from ..transport.protocol.control import AwaitStop, AwaitStopReply, ConcludeStop, StopState
from ..transport.protocol.message import Done
from .events import StopTimer
from .lifecycle import Lifecycle

StopPolicy: TypeAlias = Literal["at_once", "permitted", "prepared"]

PREPARATION_MS = 20_000
"""Maximum time of the preparation."""
FORCE_MS = 10_000
"""Time after a refusal for which another signal forces the stop."""


class StopGate:
    def __init__(self, life: Lifecycle, policy: StopPolicy) -> None:
        self._life = life
        self._policy = policy
        self._state: StopState = "none"
        self._refused_at: int | None = None
        self._waiting: Sender | None = None

    def ask(self, now: int) -> None:
        """Handle a signal."""
        if self._life.is_stopping:
            return
        if self._policy == "at_once" or not self._life.is_up or self._state == "forced":
            self._life.stop(now)
            return
        was_refused = self._refused_at is not None and now - self._refused_at <= FORCE_MS
        is_forced = self._policy == "prepared" or self._state == "asked" or was_refused
        self._state = "forced" if is_forced else "asked"
        self._refused_at = None
        self._life.log("info", "preparing the stop", forced=is_forced)
        self._life.order(SetTimer(StopTimer(), now + PREPARATION_MS))
        self._answer()

    def on_wait(self, request: AwaitStop, sender: Sender, now: int) -> AwaitStopReply | None:
        if request.known != self._state:
            return AwaitStopReply(state=self._state)
        self._waiting = sender
        return None

    def on_concluded(self, request: ConcludeStop, sender: Sender, now: int) -> Done:
        if self._state == "asked" and request.refusal:
            self._refuse(request.refusal, now)
        elif self._state != "none":
            self._life.order(CancelTimer(StopTimer()))
            self._life.stop(now)
        return Done()

    def on_timer(self, now: int) -> None:
        if self._state == "asked":
            self._refuse(f"the controller has not prepared it within {PREPARATION_MS // 1_000} s", now)
        elif self._state == "forced":
            self._life.stop(now)

    def _refuse(self, reason: str, now: int) -> None:
        self._state, self._refused_at = "none", now
        self._life.order(CancelTimer(StopTimer()))
        self._life.log(
            "error",
            "stop refused",
            reason=reason,
            way_out=f"send the signal again within {FORCE_MS // 1_000} s to stop anyway",
        )
        self._answer()

    def _answer(self) -> None:
        if self._waiting is not None:
            self._life.order(Reply(self._waiting, AwaitStopReply(state=self._state)))
            self._waiting = None

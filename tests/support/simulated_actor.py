"""An actor without a process: its machine, and a clock, calls and timers that move when they are told to.

Nothing happens by itself: calls wait in `calls` until `answer`, `lose_answer`, `fail` or `drain`, timers until `advance`
or `fire`. So a test chooses what is in flight when the actor dies. Who makes one says what surrounds it: the machine
in `start`, and in `_outcome` what others answer.
"""

from collections.abc import Callable
from typing import Any, Self

from planaria.actors.journal.effects import BecomeReady, SaveSnapshot, Started
from planaria.transport.machine import (
    Answered,
    Call,
    CancelTimer,
    Failed,
    Received,
    Reply,
    Sender,
    SetTimer,
    Stop,
    TimerFired,
)
from planaria.transport.protocol.errors import ErrorBody, ErrorCode
from planaria.transport.protocol.topics import WatchCatalog

LOST = ErrorBody(ErrorCode.TIMED_OUT, "no answer in time", True)


class SimulatedActor:
    """Replies go to `replies` by the request's number."""

    machine: Any

    def __init__(self) -> None:
        self.now = 1_700_000_000_000
        self.version = 1
        """Of the controller's topics."""
        self.calls: list[Call] = []
        self.timers: dict[Any, int] = {}
        self.fired: list[Any] = []
        self.replies: dict[int, Any] = {}
        self.snapshot: bytes | None = None
        self.snapshots_saved = 0
        self.starts = 0
        self.is_ready = self.is_stopped = False
        self._requests = 0

    # The actor's life

    def start(self) -> None:
        """A next incarnation; whatever the last one had in flight is lost."""
        raise NotImplementedError

    def launch(self, make_machine: Callable[[str], Any]) -> None:
        """What `start` does with the machine, made for the starter it is given."""
        self.starts += 1
        self.calls, self.timers = [], {}
        self.is_ready = self.is_stopped = False
        self.machine = make_machine(f"run.{self.starts}")
        self.handle(Started())

    def run(self) -> Self:
        self.start()
        self.drain()
        assert self.is_ready
        return self

    # Events and effects

    def ask(self, request: Any, client: str = "x") -> int:
        """A request; its reply will be under the returned number."""
        self._requests += 1
        self.handle(Received(Sender((client.encode(),), self._requests), request))
        return self._requests

    def handle(self, event: Any) -> None:
        for effect in self.machine.handle(event, self.now):
            self._perform(effect)

    def _perform(self, effect: Any) -> None:
        match effect:
            case Reply(to=sender, body=body):
                assert isinstance(sender.id, int)
                assert sender.id not in self.replies, "a request is answered once"
                self.replies[sender.id] = body
            case Call():
                self.calls.append(effect)
            case SetTimer(key=key, at=at):
                self.timers[key] = at
            case CancelTimer(key=key):
                self.timers.pop(key, None)
            case BecomeReady():
                self.is_ready = True
            case SaveSnapshot(data=data):
                self.snapshot = data
                self.snapshots_saved += 1
            case Stop():
                self.is_stopped = True
            case _:
                raise AssertionError(effect)

    # Calls

    def answerable(self) -> list[Call]:
        """Calls that have an answer now: a poll for topics has none until they change."""
        return [call for call in self.calls if not self._is_parked(call)]

    def _is_parked(self, call: Call) -> bool:
        return isinstance(call.request, WatchCatalog) and call.request.after_version == self.version

    def answer(self, call: Call) -> None:
        self.calls.remove(call)
        outcome = self._outcome(call)
        if isinstance(outcome, ErrorBody):
            self.handle(Failed(call.key, outcome))
        else:
            self.handle(Answered(call.key, *outcome))

    def _outcome(self, call: Call) -> Any:
        """What becomes of a call: its reply, and perhaps a payload, or an error."""
        raise NotImplementedError

    def lose_answer(self, call: Call) -> None:
        """It is done, and nobody hears of it."""
        self.calls.remove(call)
        self._outcome(call)
        self.handle(Failed(call.key, LOST))

    def fail(self, call: Call, error: ErrorBody = LOST) -> None:
        """Nothing is done."""
        self.calls.remove(call)
        self.handle(Failed(call.key, error))

    def drain(self) -> None:
        """Answer every call until none is left that has an answer."""
        while calls := self.answerable():
            self.answer(calls[0])

    # Time

    def advance(self, milliseconds: int, each: Callable[[], None] = lambda: None) -> None:
        """Move the clock, firing every timer on its way at its own moment."""
        end = self.now + milliseconds
        while self.timers and min(self.timers.values()) <= end:
            self._fire(min(self.timers, key=lambda key: self.timers[key]))
            each()
        self.now = end

    def fire(self) -> None:
        """Fire what is due now, the oldest first."""
        for key, at in sorted(self.timers.items(), key=lambda item: item[1]):
            if at <= self.now and self.timers.get(key, self.now + 1) <= self.now:
                self._fire(key)

    def _fire(self, key: Any) -> None:
        self.now = max(self.now, self.timers.pop(key))
        self.fired.append(key)
        self.handle(TimerFired(key))

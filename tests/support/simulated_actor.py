"""An actor without a process: the real one, with a clock, calls and timers under the test's control.

Nothing happens spontaneously: calls wait in `calls` until `answer`, `lose_answer`, `fail` or `drain`, timers until
`advance` or `fire`. So a test chooses the calls in flight when the actor dies. An endless call that fails returns to
`calls` as the exchange attempts it again: when time has passed, or its receiver is up. A subclass defines the
surroundings: the actor in `start`, and the answers of others in `_outcome`.
"""

from collections.abc import Callable
from typing import Any, Self

from manual_loop import ManualLoop, OneFile, context_of
from planaria.actors.log.files import Files
from planaria.transport.actor import Actor, ActorContext
from planaria.transport.machine import (
    Answered,
    Call,
    CancelCall,
    Failed,
    PeerUp,
    Received,
    Sender,
    WallClockStepped,
)
from planaria.transport.protocol.data import Fetch
from planaria.transport.protocol.errors import ErrorBody, ErrorCode
from planaria.transport.protocol.topics import WatchCatalog

LOST = ErrorBody(ErrorCode.TIMED_OUT, "no answer in time", True)
RETRY_MS = 100
"""Time between two attempts of an endless call."""


class SimulatedActor:
    """Replies go to `replies` by the request's number."""

    machine: Any
    actor: Actor
    loop: ManualLoop

    def __init__(self) -> None:
        self.now = 1_700_000_000_000
        self.version = 1
        """Version of the controller's topics."""
        self.calls: list[Call] = []
        self._failed: list[Call] = []
        """Endless calls until their next attempt."""
        self._attempt_at: int | None = None
        self.fired: list[Any] = []
        self.replies: dict[int, Any] = {}
        self.files: Files = OneFile()
        """Files that the incarnations share; a test may put real ones here, with a directory."""
        self.data_directory = "/nowhere"
        self.starts = 0
        self.ahead = WallClockStepped(0)
        """Advance of the machine's other clocks over `now`."""
        self._requests = 0

    # Life of the actor

    def start(self) -> None:
        """Start the next incarnation; everything in flight in the last one is lost."""
        raise NotImplementedError

    def launch(
        self,
        make_actor: Callable[[ActorContext, Files], Actor],
        address: str,
        arguments: dict[str, Any],
    ) -> None:
        """Start an actor's process, as `start` does."""
        self.starts += 1
        self.calls, self._failed, self._attempt_at = [], [], None
        context = context_of(address, self.starts, arguments, self.data_directory)
        self.actor = make_actor(context, self.files)
        self.loop = ManualLoop(self.actor, context, lambda: self.now)
        self.loop.fired = self.fired
        self.loop.ahead = self.ahead
        self.loop.start()
        self.machine = self.actor.machine
        self._gather()

    def run(self) -> Self:
        self.start()
        self.drain()
        assert self.is_ready
        return self

    @property
    def is_ready(self) -> bool:
        return self.loop.is_ready

    @property
    def is_stopped(self) -> bool:
        return self.loop.is_stopped

    @property
    def snapshot(self) -> bytes | None:
        assert isinstance(self.files, OneFile)
        return self.files.content

    @snapshot.setter
    def snapshot(self, content: bytes | None) -> None:
        assert isinstance(self.files, OneFile)
        self.files.content = content

    # Events and effects

    def ask(self, request: Any, client: str = "x") -> int:
        """Send a request; its reply will be under the returned number."""
        self._requests += 1
        self.handle(Received(Sender((client.encode(),), self._requests), request))
        return self._requests

    def handle(self, event: Any) -> None:
        """Run a turn with one event in it."""
        if isinstance(event, PeerUp):
            self._attempt_again(event.address)
        self.loop.turn(event)
        self._gather()

    def _gather(self) -> None:
        """Collect the output of the turn."""
        for reply in self.loop.replies:
            assert isinstance(reply.to.id, int)
            assert reply.to.id not in self.replies, "a request is answered once"
            self.replies[reply.to.id] = reply.body
        self.loop.replies.clear()
        for call in self.loop.calls:
            if isinstance(call, CancelCall):
                self.calls = [each for each in self.calls if each.token != call.token]
                self._failed = [each for each in self._failed if each.token != call.token]
            else:
                assert isinstance(call, Call)
                self.calls.append(call)
        self.loop.calls.clear()

    # Calls

    def answerable(self) -> list[Call]:
        """Return the calls that have an answer now: a poll for topics has none until they change."""
        return [call for call in self.calls if not self._is_parked(call)]

    def _is_parked(self, call: Call) -> bool:
        return isinstance(call.request, WatchCatalog) and call.request.after_version == self.version

    def answer(self, call: Call) -> None:
        self.calls.remove(call)
        outcome = self._outcome(call)
        if isinstance(outcome, ErrorBody):
            self._on_failed(call, outcome)
        else:
            if isinstance(call.request, Fetch) and not any(outcome[1:]):
                self.now += call.request.max_wait_ms  # a long poll without a record
            self.handle(Answered(call.key, *outcome))

    def _on_failed(self, call: Call, error: ErrorBody) -> None:
        if call.is_endless and error.retriable:
            self._failed.append(call)
            self._attempt_at = self._attempt_at or self.now + RETRY_MS
        else:
            self.handle(Failed(call.key, error))

    def _attempt_again(self, address: str | None = None) -> None:
        """Attempt the failed calls again: those to one address, or all."""
        again = [call for call in self._failed if address in (None, call.address)]
        self._failed = [call for call in self._failed if call not in again]
        self._attempt_at = self._attempt_at if self._failed else None
        self.calls += again

    def _outcome(self, call: Call) -> Any:
        """Return the outcome of a call: its reply, perhaps with a payload, or an error."""
        raise NotImplementedError

    def lose_answer(self, call: Call) -> None:
        """Perform the call, and lose its answer."""
        self.calls.remove(call)
        self._outcome(call)
        self._on_failed(call, LOST)

    def fail(self, call: Call, error: ErrorBody = LOST) -> None:
        """Fail the call without performing it."""
        self.calls.remove(call)
        self._on_failed(call, error)

    def drain(self) -> None:
        """Answer calls until none remains that has an answer."""
        while calls := self.answerable():
            self.answer(calls[0])

    # Time

    def step(self, wall_ms: int, slept_ms: int = 0) -> None:
        """Step the wall clock, and let the machine sleep."""
        before = self.ahead
        self.ahead = WallClockStepped(before.offset_ms + wall_ms + slept_ms, before.slept_ms + slept_ms)
        self.loop.step(self.ahead)
        self._gather()

    def boot(self, wall_ms: int) -> None:
        """Boot the machine with a stepped wall clock; the steady clock restarts there."""
        self.now += self.ahead.offset_ms + wall_ms
        self.ahead = WallClockStepped(0)
        self.start()

    def advance(self, milliseconds: int, each: Callable[[], None] = lambda: None) -> None:
        """Move the clock, firing every timer at its due time."""
        end = self.now + milliseconds
        while True:
            due = [at for at in (self.loop.next_timer_at, self._attempt_at) if at is not None]
            if not due or min(due) > end:
                break
            self.now = max(self.now, min(due))
            self.fire()
            each()
        self.now = end

    def fire(self) -> None:
        """Run a turn for the timers that are due, and attempt the failed calls again."""
        self._attempt_again()
        self.loop.turn()
        self._gather()

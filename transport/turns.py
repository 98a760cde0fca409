"""The turns of an actor without its sockets: events go to the machine, effects are performed, or kept until the end.

Owns the timers, the turn's messages to send, and the order of a turn's end:

    expire        unanswered calls whose time is over, and due timers
    make durable  `Actor.end_turn`: one write and one sync for all appends of the turn; the machine is notified
    release       replies, calls and casts leave only now; the first ones of an actor that is prompt have left already
    follow up     `Actor.follow_up`: work that none of them waits for; its messages leave in turn

Must never release anything before `Actor.end_turn` has returned, unless that asks for it or the actor is prompt. Knows
no socket and no clock: a subclass supplies both. `Loop` does so in every process. The simulation tests have their own,
so they test the code that runs in production.
"""

from collections.abc import Callable
from typing import Any, Generic, TypeAlias

from .actor import Actor, ActorContext, OwnEventT
from .machine import (
    Call,
    CancelCall,
    CancelTimer,
    Cast,
    LoopEvent,
    Reply,
    SetTimer,
    Sleep,
    Stop,
    TimerFired,
)
from .meters import Meters
from .protocol.control import PeerDown, PeerUp
from .timers import Timers

Outgoing: TypeAlias = Call | CancelCall | Cast | PeerUp | PeerDown
"""Effects on the calls, performed at the end of a turn in the order in which they were returned."""


class Turns(Generic[OwnEventT]):
    """Runs the turns of one actor until it stops."""

    def __init__(self, actor: Actor[OwnEventT, Any], context: ActorContext) -> None:
        self.context = context
        self._actor = actor
        actor.loop = self
        self.meters = Meters(self.clock_ns)
        self._now_ms: Callable[[], int] = lambda: self.now
        self._timers = Timers()
        self._outbox: list[Any] = []
        self._outgoing: list[Outgoing] = []
        self._is_prompt = actor.is_prompt
        """True if the next messages leave at once. Later ones of a busy turn leave together, which costs less."""
        self._stopping = False
        self.peer_endpoint = ""
        """The endpoint for other nodes, where there is one, as it is bound."""
        self._sleep: Sleep | None = None
        """Set when the actor is stopping to sleep."""

    # Supplied by a subclass.

    @property
    def now(self) -> int:
        """Return milliseconds since the epoch, by a clock that never steps: for durations, timers and deadlines."""
        raise NotImplementedError

    def clock_ns(self) -> int:
        """Return nanoseconds of a clock for durations."""
        return self.now * 1_000_000

    @property
    def wall_offset_ms(self) -> int:
        """Return the offset of the time of day from `now`. It follows steps of the machine's clock within a
        second."""
        return 0

    @property
    def wall(self) -> int:
        """Return milliseconds since the epoch, by the time of day."""
        return self.now + self.wall_offset_ms

    @property
    def slept_ms(self) -> int:
        """Return the time for which the machine has slept, while `now` stood still."""
        return 0

    def progress(self) -> None:
        """Report to the supervisor that a long start makes progress."""
        raise NotImplementedError

    def ready(self) -> None:
        """Report to the supervisor, and through it to all peers, that this actor serves."""
        raise NotImplementedError

    def watch(self, source: Any, callback: Callable[[], None]) -> None:
        """Call `callback` in the loop's thread whenever `source`, a file descriptor or socket, is readable."""
        raise NotImplementedError

    def _expire_calls(self, now: int) -> None:
        """Dispatch the failures of calls that were not answered in time, and retry others that are due."""
        raise NotImplementedError

    def _answer(self, reply: Reply) -> None:
        """Put a reply into the outbox, in the form that `_send_reply` takes."""
        raise NotImplementedError

    def _send_reply(self, answer: Any) -> None:
        raise NotImplementedError

    def _send_out(self, effect: Outgoing) -> None:
        raise NotImplementedError

    # The turn.

    def dispatch(self, event: LoopEvent | OwnEventT) -> None:
        """Pass an event of this turn to the machine and perform its effects."""
        for effect in self._actor.machine.handle(event, self._now_ms()):
            self._take_up(effect)
        if self._is_prompt and (self._outbox or self._outgoing):
            self._is_prompt = False
            self._release()

    def _take_up(self, effect: Any) -> None:
        kind = type(effect)
        if kind is Reply:
            self._answer(effect)
        elif kind is Call or kind is Cast or kind is CancelCall:
            self._outgoing.append(effect)
        elif kind is SetTimer:
            self._timers.set(effect.key, effect.at)
        elif kind is CancelTimer:
            self._timers.cancel(effect.key)
        elif kind is Stop:
            self._stopping = True
        elif kind is Sleep:
            self._stopping = True
            self._sleep = effect
        elif kind is PeerUp or kind is PeerDown:
            self._outgoing.append(effect)
        else:
            self._actor.perform(effect)

    def _end_turn(self) -> None:
        now = self._now_ms()
        self._expire_calls(now)
        if self._timers.has_due(now):
            for key in self._timers.pop_due(now):
                self.dispatch(TimerFired(key))
        self._actor.end_turn()
        if self._outbox or self._outgoing:
            self._release()
        self._actor.follow_up()
        if self._outbox or self._outgoing:
            self._release()
        self._is_prompt = self._actor.is_prompt

    def release(self) -> None:
        """Send the turn's output so far, before `Actor.end_turn` or `Actor.follow_up` has returned.

        Only for an actor whose machine has returned nothing yet that depends on the rest of it.
        """
        self._release()

    def _release(self) -> None:
        while self._outbox or self._outgoing:
            outbox, self._outbox = self._outbox, []
            for answer in outbox:
                self._send_reply(answer)
            outgoing, self._outgoing = self._outgoing, []
            for effect in outgoing:
                self._send_out(effect)

"""The phases of an actor that keeps a journal: it replays, serves, and stops. Pure.

Owns the phase, and the answers that depend on it alone. Must never let the state be served before it is taken over, nor
accept a request after a stop. Knows nothing of the state. Called by the actor's machine with every event, before any
other part; returns the remaining work.

    replaying --replay done--> serving     requests are refused                          BEGIN: make the parts, serve
    serving                                all events go to the machine                  EVENT
    serving --StopRequested--> stopping    requests are refused, other events are not    CLOSE, then EVENT
    stopping --the machine reports no append in flight | STOP_WAIT_MS--> Stop
    replaying --StopRequested--> Stop      no state was changed

An append in flight at a stop may become durable; later than STOP_WAIT_MS its outcome is unknown, as after a crash.
"""

from enum import Enum, auto

from ...transport.machine import (
    Disconnected,
    Effect,
    Event,
    Received,
    Reply,
    SetTimer,
    Stop,
    StopRequested,
    TimerFired,
)
from ...transport.protocol.errors import ErrorBody, ErrorCode
from .effects import JournalOpened
from .replay import Replay

STOP_WAIT_MS = 1_000
"""Longest wait of a stop for the append in flight."""
STOP = "stop"


class Disposition(Enum):
    """The machine's task for an event."""

    NOTHING = auto()
    BEGIN = auto()
    """The state is complete and no other incarnation can change it: serve it. Once."""
    EVENT = auto()
    """Handle the event, and then its follow-ups."""
    CLOSE = auto()
    """Start no new work. Once."""


class Phases:
    def __init__(self, replay: Replay, *, while_replaying: str, while_stopping: str) -> None:
        """The two texts are the messages of refused requests."""
        self._replay = replay
        self._while_replaying = ErrorBody(ErrorCode.ACTOR_UNAVAILABLE, while_replaying, True)
        self._while_stopping = ErrorBody(ErrorCode.SHUTTING_DOWN, while_stopping, True)
        self._is_serving = False
        self.is_stopping = False

    def handle(self, event: Event, now: int) -> tuple[list[Effect], Disposition]:
        if not self._is_serving:
            effects = self._replaying(event, now)
            self._is_serving = self._replay.is_done
            return effects, Disposition.BEGIN if self._is_serving else Disposition.NOTHING
        if isinstance(event, StopRequested):
            self.is_stopping = True
            return [SetTimer(STOP, now + STOP_WAIT_MS)], Disposition.CLOSE
        if self.is_stopping and isinstance(event, Received):
            return [Reply(event.sender, self._while_stopping)], Disposition.NOTHING
        if self.is_stopping and isinstance(event, TimerFired) and event.key == STOP:
            return [Stop("the outstanding append was not answered in time")], Disposition.NOTHING
        return [], Disposition.EVENT

    def _replaying(self, event: Event, now: int) -> list[Effect]:
        if isinstance(event, JournalOpened):
            return self._replay.start(now)
        if isinstance(event, Disconnected):
            return []
        if isinstance(event, Received):
            return [Reply(event.sender, self._while_replaying)]
        if isinstance(event, StopRequested):
            return [Stop("stopped while replaying")]
        return self._replay.handle(event, now)

"""The interface between the journal's machine and the actor that it runs: the service of a state that is kept as records.

A service is made when the state is complete and no other incarnation can change it, and serves it until the actor
ends. It decides ahead of the disk: its changes are appended when `take` returns them, and its replies wait in the
recorder until they are durable. Every method is called by machine.py alone, in the order given there.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar

from ...transport.machine import LoopEffect, LoopEvent
from .recorder import AnswerT, ChangeT, Durable
from .snapshot import LogMark

OwnEffectT = TypeVar("OwnEffectT")


class Service(ABC, Generic[ChangeT, AnswerT, OwnEffectT]):
    """`OwnEffectT`: the effects of the actor beyond those of the loop and of the journal; Never if there are none."""

    def begin(self, now: int) -> Sequence[LoopEffect | OwnEffectT]:
        """Start timers and calls. The actor is ready, and no request has been read."""
        return []

    @abstractmethod
    def handle(self, event: LoopEvent, now: int) -> Sequence[LoopEffect | OwnEffectT]:
        """Handle an event that is not the journal's own. Requests end with the stop; other events do not."""

    @abstractmethod
    def on_durable(self, durable: Durable[ChangeT, AnswerT], now: int) -> Sequence[LoopEffect | OwnEffectT]:
        """Apply changes that have become durable, and answer the requests that waited for them."""

    def advance(self, now: int) -> Sequence[LoopEffect | OwnEffectT]:
        """Begin all work that can begin; called when the events of a turn are handled, before a flush."""
        return []

    @abstractmethod
    def take(self) -> list[ChangeT]:
        """Return the changes to append now. Called when no append is in flight; later changes wait for the next."""

    def tidy(self, now: int) -> Sequence[LoopEffect | OwnEffectT]:
        """Do the work that no answer waits for: set timers, report, raise alarms. Called at the end of a turn."""
        return []

    def close(self, now: int) -> Sequence[LoopEffect | OwnEffectT]:
        """Start no new work, and refuse the requests that wait for something else than the disk. Once."""
        return []

    @property
    def snapshot_records(self) -> int:
        """The number of records, read or appended, after which the snapshot is renewed."""
        return 1_000

    def snapshot(self, mark: LogMark, now: int) -> bytes | None:
        """Return the snapshot of the durable state, which ends with `mark`; None for no snapshot."""
        return None

    def is_working(self, now: int) -> bool:
        """Return True if the actor must not fall asleep. All requests except those that wait elsewhere are answered."""
        return True

    def wake_after_ms(self, now: int) -> int | None:
        """Return the time after which a sleeping actor must be woken without a call; None: never."""
        return None

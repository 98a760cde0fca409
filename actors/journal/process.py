"""The process of every actor that keeps a journal: reads and saves its files, runs its machine. Impure and thin.

Ready only once the machine has replayed the state, which needs the partition of the journal to be up. The fence of a
newer incarnation, a refused append or an unreadable record crashes it: the supervisor starts the next one, which
replays again. Subclassed by the processes of coordinators, coordinators of transactions and schedulers.
"""

import logging
from abc import abstractmethod
from typing import Any, ClassVar, Generic

from ...transport.actor import Actor, ActorContext
from .effects import (
    BecomeReady,
    JournalEffect,
    JournalEvent,
    JournalOpened,
    MarkAsleep,
    SaveSnapshot,
    TurnFlushed,
    TurnHandled,
    WarnOfSnapshot,
)
from .machine import JournalMachine
from .service import OwnEffectT
from .sleep_mark import SleepMark
from .snapshot_file import SnapshotFile

_log = logging.getLogger(__name__)
_TURN_HANDLED, _TURN_FLUSHED = TurnHandled(), TurnFlushed()


class JournalActor(Actor[JournalEvent, JournalEffect | OwnEffectT], Generic[OwnEffectT]):
    machine: JournalMachine[Any, Any, OwnEffectT]
    follows_wall_clock: ClassVar[bool] = True
    ready_by_itself: ClassVar[bool] = True
    is_prompt: ClassVar[bool] = True

    def __init__(
        self,
        context: ActorContext,
        snapshot: SnapshotFile | None = None,
        sleep_mark: SleepMark | None = None,
    ) -> None:
        super().__init__(context)
        self.snapshot = snapshot
        self.sleep_mark = sleep_mark

    @abstractmethod
    def make_machine(self, snapshot: bytes | None, starter: str) -> JournalMachine[Any, Any, OwnEffectT]:
        """Return the machine; `snapshot` is the content of the file, and `starter` identifies this incarnation."""

    def perform_own(self, effect: OwnEffectT) -> None:
        """Perform an effect of the actor that is not of the journal."""
        super().perform(effect)

    def start(self) -> None:
        content = None if self.snapshot is None else self.snapshot.read()
        if self.sleep_mark is not None:
            self.sleep_mark.clear()
        self.machine = self.make_machine(content, f"{self.context.instance_id}.{self.context.incarnation}")
        if content is not None and not self.machine.has_snapshot:
            self.perform(WarnOfSnapshot("the file is damaged, or was written by another version"))
        self.loop.dispatch(JournalOpened())

    def follow_up(self) -> None:
        """Append the turn's decisions once its answers have left, then do the work that no answer waits for."""
        if self.machine.is_turn_open:
            self.loop.dispatch(_TURN_HANDLED)
            self.loop.release()
            self.loop.dispatch(_TURN_FLUSHED)

    def perform(self, effect: JournalEffect | OwnEffectT) -> None:
        match effect:
            case BecomeReady():
                self.loop.ready()
            case SaveSnapshot(data=data):
                assert self.snapshot is not None
                self.snapshot.save(data)
            case WarnOfSnapshot(reason=reason):
                _log.warning("snapshot dropped", extra={"fields": {"reason": reason}})
            case MarkAsleep(wake_at_ms=wake_at_ms):
                assert self.sleep_mark is not None
                self.sleep_mark.set(wake_at_ms)
            case _:
                self.perform_own(effect)

"""The scheduler's process: reads the snapshot, runs the machine, keeps the snapshot. Impure and thin.

Started by the supervisor through `main`; ready only once the machine has replayed its messages, which needs its partition
of `__delayed` to be up. A newer incarnation's fence, a refused append or an unreadable record crashes it: the supervisor
starts the next one, and that one replays.
"""

from pathlib import Path
from typing import Any, ClassVar

import msgspec

from ...transport.actor import Actor, ActorContext, built_early
from ...transport.loop import run_actor
from ...transport.machine import Effect
from ...transport.protocol.message import Request
from ..journal.effects import BecomeReady, JournalOpened, SaveSnapshot
from ..journal.snapshot_file import SnapshotFile
from ..log.files import Files
from .machine import REQUESTS, SchedulerMachine
from .snapshot import decode_snapshot


@built_early
class SchedulerArguments(msgspec.Struct):
    topic: str
    number: int
    """The number of the scheduler, and of its partition of the topic."""
    schedulers: int


class SchedulerActor(Actor[Any, Any]):
    follows_wall_clock: ClassVar[bool] = True
    requests: ClassVar[tuple[type[Request], ...]] = REQUESTS
    ready_by_itself: ClassVar[bool] = True

    def __init__(self, context: ActorContext, files: Files | None = None) -> None:
        super().__init__(context)
        self._arguments = msgspec.convert(context.arguments, SchedulerArguments)
        name = f"{self._arguments.number}.snapshot"
        self._snapshot = SnapshotFile(Path(context.data_directory) / "delayed" / name, files or Files())

    def start(self) -> None:
        data = self._snapshot.read()
        self.machine = SchedulerMachine(
            self._arguments.topic,
            self._arguments.number,
            self._arguments.schedulers,
            starter=f"{self.context.instance_id}.{self.context.incarnation}",
            snapshot=decode_snapshot(data) if data is not None else None,
            slept_ms=self.loop.slept_ms,
        )
        self.loop.dispatch(JournalOpened())

    def perform(self, effect: Effect) -> None:
        match effect:
            case BecomeReady():
                self.loop.ready()
            case SaveSnapshot(data=data):
                self._snapshot.save(data)
            case _:
                super().perform(effect)


def main(context: ActorContext) -> None:
    run_actor(SchedulerActor(context), context)

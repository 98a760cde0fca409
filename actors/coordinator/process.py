"""The coordinator's process: reads the snapshot, runs the machine, saves the snapshot. Impure and thin.

Started by the supervisor through `main`; ready only once the machine has replayed the group, which needs the partition
of `__offsets` to be up. The fence of a newer incarnation, a refused append or an unreadable record crashes it: the
supervisor starts the next one, which replays again.
"""

from pathlib import Path
from typing import Any, ClassVar

import msgspec

from ...transport.actor import Actor, ActorContext, built_early
from ...transport.addresses import OFFSETS_TOPIC
from ...transport.loop import run_actor
from ...transport.machine import Effect
from ...transport.protocol.message import Request
from ...transport.protocol.operations import RetryReport
from ..journal.effects import BecomeReady, JournalOpened, SaveSnapshot
from ..journal.sleep_mark import SUFFIX, SleepMark, group_file
from ..journal.snapshot_file import SnapshotFile
from ..log.files import Files
from .effects import Alarm, MarkAsleep, RemoveSnapshot
from .machine import REQUESTS, CoordinatorMachine
from .snapshot import decode_snapshot


@built_early
class CoordinatorArguments(msgspec.Struct):
    group: str
    offsets_topic: str = OFFSETS_TOPIC
    offsets_partition: int = 0
    idle_ms: int = 0
    """Time without members and work after which the coordinator sleeps; 0: never."""
    offsets_retention_ms: int = -1
    """Time after which unused offsets are deleted; -1: never."""


class CoordinatorActor(Actor[Any, Any]):
    machine: CoordinatorMachine
    follows_wall_clock: ClassVar[bool] = True
    requests: ClassVar[tuple[type[Request], ...]] = REQUESTS
    ready_by_itself: ClassVar[bool] = True
    follows_connections: ClassVar[bool] = True

    def __init__(self, context: ActorContext, files: Files | None = None) -> None:
        super().__init__(context)
        self._arguments = msgspec.convert(context.arguments, CoordinatorArguments)
        files = files or Files()
        data_directory, group = Path(context.data_directory), self._arguments.group
        self._snapshot = SnapshotFile(snapshot_path(data_directory, group), files)
        self._sleep_mark = SleepMark(group_file(data_directory, group, SUFFIX), files)

    def start(self) -> None:
        data = self._snapshot.read()
        self._sleep_mark.clear()
        group = self._arguments.group
        self.machine = CoordinatorMachine(
            group,
            self._arguments.offsets_topic,
            self._arguments.offsets_partition,
            starter=f"{self.context.instance_id}.{self.context.incarnation}",
            snapshot=decode_snapshot(data, group) if data is not None else None,
            idle_ms=self._arguments.idle_ms,
            offsets_retention_ms=self._arguments.offsets_retention_ms,
        )
        self.loop.dispatch(JournalOpened())

    def retrying(self) -> RetryReport:
        return self.machine.retrying().by_clock(self.loop.wall_offset_ms)

    def perform(self, effect: Effect) -> None:
        match effect:
            case BecomeReady():
                self.loop.ready()
            case SaveSnapshot(data=data):
                self._snapshot.save(data)
            case MarkAsleep(wake_at_ms=wake_at_ms):
                self._sleep_mark.set(wake_at_ms)
            case RemoveSnapshot():
                self._snapshot.remove()
            case Alarm(alarms=alarms):
                self.alarms = alarms
            case _:
                super().perform(effect)


def snapshot_path(data_directory: Path, group: str) -> Path:
    return group_file(data_directory, group, ".snapshot")


def main(context: ActorContext) -> None:
    run_actor(CoordinatorActor(context), context)

"""The coordinator's process: the process of a journal in `__offsets` with the group's files. Impure and thin.

Started by the supervisor through `main`. Reports alarms and waiting retries, and removes the files of a deleted group.
"""

from pathlib import Path
from typing import ClassVar, assert_never

import msgspec

from ...transport.actor import ActorContext, built_early
from ...transport.addresses import OFFSETS_TOPIC
from ...transport.loop import run_actor
from ...transport.protocol.groups import GroupPause
from ...transport.protocol.message import Request
from ...transport.protocol.operations import NO_RETRIES, GroupReport, RetryReport
from ..journal.process import JournalActor
from ..journal.sleep_mark import SUFFIX, SleepMark, group_file
from ..journal.snapshot_file import SnapshotFile
from ..log.files import Files
from .effects import Alarm, NotePause, OwnEffect, RemoveSnapshot
from .machine import REQUESTS, CoordinatorMachine, GroupService, coordinator_machine
from .pauses import described
from .records import Pause
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
    disconnect_grace_ms: int = 0
    """Time after which a member whose connection is lost has left; 0: its session decides."""
    is_replaceable: bool = False
    """True if another node may start the group's coordinator while this one still runs."""


class CoordinatorActor(JournalActor[OwnEffect]):
    requests: ClassVar[tuple[type[Request], ...]] = REQUESTS
    follows_connections: ClassVar[bool] = True

    def __init__(self, context: ActorContext, files: Files | None = None) -> None:
        self._arguments = msgspec.convert(context.arguments, CoordinatorArguments)
        files = files or Files()
        data_directory, group = Path(context.data_directory), self._arguments.group
        self._snapshot = SnapshotFile(snapshot_path(data_directory, group), files)
        super().__init__(context, self._snapshot, SleepMark(group_file(data_directory, group, SUFFIX), files))

        self._pause: Pause | None = None

    def make_machine(self, snapshot: bytes | None, starter: str) -> CoordinatorMachine:
        return coordinator_machine(
            self._arguments.group,
            self._arguments.offsets_topic,
            self._arguments.offsets_partition,
            starter=starter,
            snapshot=None if snapshot is None else decode_snapshot(snapshot, self._arguments.group),
            idle_ms=self._arguments.idle_ms,
            offsets_retention_ms=self._arguments.offsets_retention_ms,
            disconnect_grace_ms=self._arguments.disconnect_grace_ms,
            is_replaceable=self._arguments.is_replaceable,
        )

    def retrying(self) -> RetryReport:
        service = self.machine.service
        if not isinstance(service, GroupService):
            return NO_RETRIES
        return service.retrying().by_clock(self.loop.wall_offset_ms)

    def paused(self) -> GroupPause | None:
        return None if self._pause is None else described(self._pause, self.loop.wall_offset_ms)

    def group_report(self) -> GroupReport | None:
        service = self.machine.service
        return service.report() if isinstance(service, GroupService) else None

    def counters(self) -> dict[str, int]:
        service = self.machine.service
        return service.counters() if isinstance(service, GroupService) else {}

    def perform_own(self, effect: OwnEffect) -> None:
        match effect:
            case RemoveSnapshot():
                self._snapshot.remove()
            case NotePause(pause=pause):
                self._pause = pause
            case Alarm(alarms=alarms):
                self.alarms = alarms
            case _:
                assert_never(effect)


def snapshot_path(data_directory: Path, group: str) -> Path:
    return group_file(data_directory, group, ".snapshot")


def main(context: ActorContext) -> None:
    run_actor(CoordinatorActor(context), context)

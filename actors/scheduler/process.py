"""The scheduler's process: the process of a journal in `__delayed` with a snapshot file. Impure and thin.

Started by the supervisor through `main`.
"""

from pathlib import Path
from typing import ClassVar, Never

import msgspec

from ...transport.actor import ActorContext, built_early
from ...transport.loop import run_actor
from ...transport.protocol.message import Request
from ...transport.protocol.operations import Durations
from ..journal.process import JournalActor
from ..journal.snapshot_file import SnapshotFile
from ..log.files import Files
from .machine import REQUESTS, SchedulerMachine, SchedulerService, scheduler_machine
from .snapshot import decode_snapshot


@built_early
class SchedulerArguments(msgspec.Struct):
    topic: str
    number: int
    """The number of the scheduler, and of its partition of the topic."""
    schedulers: int


class SchedulerActor(JournalActor[Never]):
    requests: ClassVar[tuple[type[Request], ...]] = REQUESTS

    def __init__(self, context: ActorContext, files: Files | None = None) -> None:
        self._arguments = msgspec.convert(context.arguments, SchedulerArguments)
        path = Path(context.data_directory) / "delayed" / f"{self._arguments.number}.snapshot"
        super().__init__(context, SnapshotFile(path, files or Files()))

    def make_machine(self, snapshot: bytes | None, starter: str) -> SchedulerMachine:
        return scheduler_machine(
            self._arguments.topic,
            self._arguments.number,
            self._arguments.schedulers,
            starter=starter,
            elapsed_ms=self.loop.now + self.loop.slept_ms,
            snapshot=None if snapshot is None else decode_snapshot(snapshot),
        )

    def gauges(self) -> dict[str, int]:
        service = self.machine.service
        return {"messages_pending": service.pending_count} if isinstance(service, SchedulerService) else {}

    def lateness(self) -> Durations:
        service = self.machine.service
        return service.lateness if isinstance(service, SchedulerService) else Durations()


def main(context: ActorContext) -> None:
    run_actor(SchedulerActor(context), context)

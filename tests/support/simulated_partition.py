"""A partition without a process: the real one on a log in a list, with turns, a full disk and crashes on demand.

`PartitionProcess` and `Turns` run as in production; only the log, the directory's one other file and the clock
are the test's. So a test may stop it between any two system calls of a turn.
"""

from pathlib import Path
from typing import Any, Literal

import msgspec

from manual_loop import ManualLoop, OneFile, context_of
from memory_log import MemoryDisk, MemoryLog, Step, opener
from planaria.actors.log.labels import PARTITION_LABEL, PartitionLabel, encode_label
from planaria.actors.log.lock import DirectoryLock
from planaria.actors.partition.effects import ApplyRetention, CompactSlice, Reconfigure, WriteCheckpoint
from planaria.actors.partition.process import PartitionProcess
from planaria.transport.batch import (
    BatchHeader,
    build,
    parse_header,
)
from planaria.transport.machine import Effect, Received, Reply, Sender, Sleep
from planaria.transport.protocol.data import Fetch, Produce
from planaria.transport.protocol.errors import ErrorBody
from planaria.transport.protocol.message import Request
from planaria.transport.protocol.mirrored import TopicMirror
from planaria.transport.protocol.topics import (
    TopicConfig,
)
from planaria.transport.request_context import direct_context

CrashPoint = Literal["before the write", "after the write", "after the sync"]
_CRASH_STEPS: dict[CrashPoint, Step] = {
    "before the write": "append",
    "after the write": "appended",
    "after the sync": "synced",
}


class Crashed(Exception):
    """The process died here; its pending output is lost."""


def a_batch(*values: bytes, attributes: int = 0, **sequencing: int) -> bytes:
    records = [(None, value, 0, None) for value in values]
    return build(
        records, first_timestamp_ms=1_000, max_timestamp_ms=1_000, attributes=attributes, **sequencing
    )


class _Log(MemoryLog):
    """Dies at the partition's crash point, and has the configured number of slices to compact."""

    def __init__(self, partition: "SimulatedPartition", config: Any, now_ms: int) -> None:
        super().__init__(partition.disk, config, now_ms)
        self._partition = partition

    def _step(self, step: Step, header: BatchHeader | None = None) -> None:
        self._partition.trace.append(step)
        if self._partition.crash_step == step:
            raise Crashed

    def _is_full(self) -> bool:
        return self._partition.is_disk_full

    def compact(self, now_ms: int, budget_bytes: int, wall_ms: int, up_to_offset: int | None) -> bool:
        self._partition.slices_due = max(0, self._partition.slices_due - 1)
        return self._partition.slices_due > 0


class _Files(OneFile):
    """Contains the label that the controller has written."""

    def read_whole(self, path: Path) -> bytes | None:
        if path.name == PARTITION_LABEL:
            return encode_label(PartitionLabel(topic="ORDERS", topic_id="t1", partition=0))
        return super().read_whole(path)


class _Lock(DirectoryLock):
    def __init__(self, *_: Any) -> None:
        """Do nothing: there are no other actors."""

    def release(self) -> None:
        pass


class _Process(PartitionProcess):
    """Remembers its requests other than appends and reads, for the test."""

    performed: list[Effect]

    def perform(self, effect: Effect) -> None:
        if isinstance(effect, ApplyRetention | WriteCheckpoint | CompactSlice | Reconfigure):
            self.performed.append(effect)
        super().perform(effect)


class _Loop(ManualLoop):
    """Records the process's output among the system calls."""

    trace: list[str]

    def _send_reply(self, answer: Reply) -> None:
        self.trace.append("reply")
        super()._send_reply(answer)


class SimulatedPartition:
    """Partition ORDERS/0. `log` holds (header, frame); the first `durable_count` survive a crash."""

    def __init__(
        self,
        config: TopicConfig | None = None,
        parked_limit: int = 100,
        now: int = 0,
        disk_reserve_bytes: int = 0,
        idle_ms: int = 0,
        mirror: TopicMirror | None = None,
    ) -> None:
        self.mirror = mirror
        self.config = config or TopicConfig()
        self.now = now
        self.disk = MemoryDisk()
        self.files = _Files()
        """Contains the read positions of the groups."""
        self.performed: list[Any] = []
        self.trace: list[str] = []
        """System calls and replies of the current turn, in order, across a crash."""
        self.slices_due = 0
        """Slices of compaction due."""
        self.crash_step: Step | None = None
        self._disk_reserve_bytes = disk_reserve_bytes
        self._idle_ms = idle_ms
        self._parked_limit = parked_limit
        self._incarnation = 0
        self._last_id = 0
        self._start()

    def _start(self) -> None:
        self._incarnation += 1
        self.crash_step = None
        context = context_of(
            "partition/ORDERS/0",
            self._incarnation,
            {
                "topic": "ORDERS",
                "partition": 0,
                "topic_id": "t1",
                "config": msgspec.to_builtins(self.config),
                "directory": "topics/ORDERS/0",
                "disk_reserve_bytes": self._disk_reserve_bytes,
                "idle_ms": self._idle_ms,
                "mirror": msgspec.to_builtins(self.mirror),
            },
        )
        open_log = opener(lambda config, now_ms: _Log(self, config, now_ms))
        self.process = _Process(context, self.files, open_log, _Lock)
        self.process.performed = self.performed
        self._loop = _Loop(self.process, context, lambda: self.now)
        self._loop.trace = self.trace
        self._loop.start()
        for view in self.machine._role.fetches.views.all:
            view.parked.limit = self._parked_limit

    # The disk and its faults.

    @property
    def log(self) -> list[tuple[BatchHeader, bytes]]:
        return self.disk.batches

    @property
    def durable_count(self) -> int:
        return self.disk.durable

    @durable_count.setter
    def durable_count(self, count: int) -> None:
        self.disk.durable = count

    @property
    def log_start_offset(self) -> int:
        return self.disk.log_start_offset

    @property
    def log_end_offset(self) -> int:
        return self.disk.end_offset

    @property
    def durable_end_offset(self) -> int:
        return self.disk.durable_end_offset

    @property
    def size_bytes(self) -> int:
        return self.disk.size_bytes

    @property
    def is_disk_full(self) -> bool:
        return self.files.is_full

    @is_disk_full.setter
    def is_disk_full(self, is_full: bool) -> None:
        self.files.is_full = is_full

    @property
    def groups_file(self) -> bytes | None:
        return self.files.content

    @groups_file.setter
    def groups_file(self, content: bytes | None) -> None:
        self.files.content = content

    @property
    def free_bytes(self) -> int:
        return self.files.free

    @free_bytes.setter
    def free_bytes(self, free: int) -> None:
        self.files.free = free

    @property
    def disk_measured(self) -> int:
        return self.files.measured

    # The process.

    @property
    def machine(self) -> Any:
        return self.process.machine

    @property
    def alarms(self) -> tuple[str, ...]:
        return self.process.alarms

    @property
    def sleep(self) -> Sleep | None:
        """Return the announcement that it sent when it fell asleep."""
        return self._loop._sleep

    @property
    def stopped(self) -> bool:
        return self._loop.is_stopped

    # Life cycle.

    def received(self, request: Request, payload: Any = (), as_json: bool = False) -> Received:
        self._last_id += 1
        sender = Sender((b"peer",), self._last_id, as_json)
        return Received(sender, request, payload, context=direct_context(b"peer", request))

    def ask(self, request: Request, payload: Any = (), as_json: bool = False) -> Reply | None:
        """Return the reply to a request that is alone in its turn; None while it waits."""
        received = self.received(request, payload, as_json)
        return next((reply for reply in self.turn(received) if reply.to == received.sender), None)

    def advance(self, duration_ms: int) -> list[Reply]:
        """Let time pass, timer by timer."""
        end, replies = self.now + duration_ms, []
        while (next_at := self._loop.next_timer_at) is not None and next_at <= end:
            self.now = max(self.now, next_at)
            replies += self.turn()
        self.now = end
        return replies

    def turn(self, *events: Any, crash_at: CrashPoint | None = None) -> list[Reply]:
        """Run one turn of the loop. Raises Crashed at the crash point, after a restart from the durable data.

        A turn that makes no such call dies when it has ended, with all output unsent.
        """
        self.crash_step = _CRASH_STEPS[crash_at] if crash_at is not None else None
        self.trace.clear()
        try:
            self._loop.turn(*events)
        except Crashed:
            self.crash()
            raise
        if crash_at is not None:
            self.crash()
            raise Crashed
        replies, self._loop.replies = self._loop.replies, []
        self.performed += self._loop.calls
        self._loop.calls = []
        return replies

    def dispatch(self, event: Any) -> None:
        """Dispatch an event in the middle of a turn."""
        self._loop.dispatch(event)

    def crash(self, is_power_lost: bool = True) -> None:
        """Restart with the durable part of the log, or with everything written."""
        if is_power_lost:
            del self.log[self.durable_count :]
        self._start()


def offsets_in(run: Any) -> list[int]:
    """Return the base offsets of the batches in a run."""
    offsets, position = [], 0
    while position < len(run):
        header = parse_header(run, position)
        offsets.append(header.base_offset)
        position += header.size_bytes
    return offsets


def produce(acks: Any = "all", topic: str = "ORDERS", partition: int = 0) -> Produce:
    return Produce(topic=topic, partition=partition, acks=acks)


def fetch(offset: int, **options: Any) -> Fetch:
    return Fetch(topic="ORDERS", partition=0, offset=offset, **options)


def idempotent(sequence: int, *values: bytes, producer_id: int = 7, epoch: int = 0) -> bytes:
    return a_batch(*values, producer_id=producer_id, producer_epoch=epoch, base_sequence=sequence)


def answered(reply: Reply | None) -> Any:
    assert reply is not None, "no reply"
    assert not isinstance(reply.body, ErrorBody), reply.body
    return reply.body


def refused(reply: Reply | None) -> ErrorBody:
    assert reply is not None, "no reply"
    assert isinstance(reply.body, ErrorBody), reply.body
    return reply.body

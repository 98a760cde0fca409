"""A missing or unreadable file beside the log is an alarm in `status` and a line in the log."""

import logging
from pathlib import Path

import msgspec
import pytest

from labelled_folders import label_partition
from manual_loop import ManualLoop, context_of
from planaria.actors.log.companions import COMPACTION_NAME, GROUPS_NAME
from planaria.actors.partition.process import PartitionProcess
from planaria.transport.batch import build
from planaria.transport.machine import Received, Sender
from planaria.transport.protocol.data import Produce
from planaria.transport.protocol.progress import ReportProgress
from planaria.transport.protocol.topics import TopicConfig

CONFIG = TopicConfig(
    segment_bytes=1024, cleanup="compact", retain_until_consumed=True, min_cleanable_ratio=0.0
)
HOUR_MS = 3_600_000


def start(root: Path, now_ms: int = HOUR_MS) -> tuple[PartitionProcess, ManualLoop]:
    arguments = {
        "topic": "ORDERS",
        "partition": 0,
        "topic_id": "t1",
        "config": msgspec.to_builtins(CONFIG),
        "directory": "topics/ORDERS/0",
    }
    context = context_of("partition/ORDERS/0", 1, arguments, str(root))
    process = PartitionProcess(context)
    clock = iter(range(now_ms, now_ms * 1_000_000, 60_000))
    loop = ManualLoop(process, context, lambda: next(clock))
    loop.start()
    return process, loop


def ask(loop: ManualLoop, request: Produce | ReportProgress, frame: bytes | None = None) -> None:
    loop.turn(Received(Sender((b"peer",), 1), request, () if frame is None else (frame,)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Folder of a partition that a group reads and that has been compacted."""
    folder = tmp_path / "topics" / "ORDERS" / "0"
    label_partition(folder)
    process, loop = start(tmp_path)
    for number in range(40):
        frame = build([(b"key", b"%d" % number * 100, 0, None)], first_timestamp_ms=1, max_timestamp_ms=1)
        ask(loop, Produce(topic="ORDERS", partition=0), frame)
    report = ReportProgress(
        topic="ORDERS",
        partition=0,
        topic_id="t1",
        group="G",
        epoch=1,
        offset=3,
        leader_epoch=None,
        has_members=True,
    )
    ask(loop, report)
    for _ in range(1_000):
        loop.turn()
    process.close()
    assert {COMPACTION_NAME, GROUPS_NAME} <= {path.name for path in folder.iterdir()}
    return folder


@pytest.mark.parametrize("kind", ["missing", "damaged"])
@pytest.mark.parametrize("name", [COMPACTION_NAME, GROUPS_NAME])
def test_a_lost_file_is_told(
    folder: Path, tmp_path: Path, name: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    if kind == "missing":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(b"rot" + (folder / name).read_bytes()[3:])
    with caplog.at_level(logging.ERROR):
        process, _ = start(tmp_path)
    told = f"the file {name!r} is missing or damaged"
    assert [alarm for alarm in process.alarms if told in alarm]
    assert told in caplog.text
    process.close()


def test_what_was_never_there_is_not_missed(tmp_path: Path) -> None:
    label_partition(tmp_path / "topics" / "ORDERS" / "0")
    for _ in range(2):
        process, _ = start(tmp_path)
        assert process.alarms == ()
        process.close()

"""The replicas of all partitions, read from the disks of stopped nodes and compared.

Batches must be equal byte for byte, and reach the end that the leader has answered. Each replica compacts its own log, so
of a compacted topic the newest value of each key is compared instead.
"""

from collections.abc import Mapping
from pathlib import Path

from ....transport.addresses import TopicPartition
from ....transport.batch import HEADER_BYTES, BatchHeader, decode_records, parse_header

Batch = tuple[BatchHeader, bytes]
INTERNAL_PREFIX = "__"


def batches_of(folder: Path) -> list[Batch]:
    """Return the batches of one partition's folder."""
    found: list[Batch] = []
    for segment in sorted(folder.glob("*.log")):
        found += _batches_in(segment.read_bytes())
    return found


def _batches_in(content: bytes) -> list[Batch]:
    """Return the batches of a segment. A killed node leaves its last one with room that it had reserved: zeros."""
    found: list[Batch] = []
    position = 0
    while (head := content[position : position + HEADER_BYTES]).strip(b"\0"):
        header = parse_header(head)
        found.append((header, content[position : position + header.size_bytes]))
        position += header.size_bytes
    return found


def partitions_in(data: Path) -> list[TopicPartition]:
    """Return the partitions with a replica in a data directory."""
    folders = (data / "topics").glob("*/*")
    return sorted(
        TopicPartition(each.parent.name, int(each.name))
        for each in folders
        if each.name.isdigit() and not each.parent.name.startswith(".")
    )


def differences(data: list[Path], ends: Mapping[TopicPartition, int]) -> list[str]:
    """Return where the replicas of all partitions differ, one line each. `ends`: end offsets that all must reach."""
    found = []
    replicas: dict[TopicPartition, list[Path]] = {}
    for directory in data:
        for tp in partitions_in(directory):
            replicas.setdefault(tp, []).append(directory)
    for tp, directories in sorted(replicas.items()):
        logs = [batches_of(directory / "topics" / tp.topic / str(tp.partition)) for directory in directories]
        for directory, log in zip(directories, logs, strict=True):
            end = log[-1][0].next_offset if log else 0
            if end < ends.get(tp, 0):
                found.append(f"{tp}: {directory.name} ends at {end}, the leader at {ends[tp]}")
            if (where := _difference(tp, logs[0], log)) is not None:
                found.append(f"{tp}: {directories[0].name} and {directory.name} differ at {where}")
    return found


def _difference(tp: TopicPartition, one: list[Batch], other: list[Batch]) -> str | None:
    if tp.topic.startswith(INTERNAL_PREFIX):
        return _difference_by_key(one, other)
    for (header, frame), (_, other_frame) in zip(one, other, strict=False):
        if frame != other_frame:
            return f"offset {header.base_offset}"
    return None


def _difference_by_key(one: list[Batch], other: list[Batch]) -> str | None:
    end = min((log[-1][0].next_offset if log else 0) for log in (one, other))
    newest, other_newest = _newest(one, end), _newest(other, end)
    for key in sorted(newest.keys() | other_newest.keys()):
        if newest.get(key) != other_newest.get(key):
            return f"key {key!r}"
    return None


def _newest(log: list[Batch], end: int) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for header, frame in log:
        if header.next_offset > end:
            break
        for key, value, _, _ in decode_records(frame, header):
            if key is not None and value is not None:
                found[key] = value
            elif key is not None:
                found.pop(key, None)
    return found

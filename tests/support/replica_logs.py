"""The logs of a partition's replicas, read from their disks after a stop, and compared batch by batch."""

from pathlib import Path

from planaria.transport.batch import split

Batch = tuple[int, bytes]
"""Base offset and bytes."""


def batches_of(folder: Path) -> list[Batch]:
    """Return the batches of one partition's folder."""
    found = []
    for segment in sorted(folder.glob("*.log")):
        found += [(header.base_offset, bytes(frame)) for header, frame in split(segment.read_bytes())]
    return found


def differences(data: list[Path], topic: str, partitions: int) -> list[str]:
    """Return where the replicas of a topic differ, one line each. A replica that is shorter is not different."""
    found = []
    for partition in range(partitions):
        logs = [batches_of(directory / "topics" / topic / str(partition)) for directory in data]
        for directory, log in zip(data[1:], logs[1:], strict=True):
            for own, other in zip(logs[0], log, strict=False):
                if own != other:
                    found.append(
                        f"{topic}/{partition}: {data[0].name} and {directory.name} differ at {own[0]}"
                    )
                    break
    return found

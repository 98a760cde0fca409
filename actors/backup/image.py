"""The image of a data directory at one instant, made of hard links while all its processes are stopped. Impure.

Owns the choice of files and the way each is caught. A file is caught by a link, since every file is replaced or deleted
and not changed, but for the last segment of a partition, which grows: it is linked too, and the bytes behind its
checkpoint, which are few, are copied. The links are in the data directory itself, so that a disk for backups of another
file system makes the stop no longer.

    <name>          a link                         <base>.log.live   a link to a last segment
    <name>.tail     bytes of it from a position    tails.json        the positions and sizes of last segments

Left out: locks, sockets, the logs of processes, flight recorders (a record in flight is handled again), the origin of
the steady clock (it belongs to the machine), half-deleted topics, and all that is being written aside. Called by
store.py; the command stops the processes around `take_image`.
"""

import os
from pathlib import Path

import msgspec
from msgspec import Struct

from ..log.checkpoint import CHECKPOINT_NAME, decode_checkpoint
from ..log.cleaned import CLEANED_SUFFIX, load_cleaned
from ..log.files import TEMPORARY_SUFFIX, Files
from ..log.segment import INDEX_SUFFIXES, LOG_SUFFIX, segment_bases, segment_path

STAGING_PREFIX = ".backup~"
LIVE_SUFFIX = ".live"
TAIL_SUFFIX = ".tail"
TAILS_NAME = "tails.json"
TOPICS_NAME = "topics"
FOLDERS = ("groups", "delayed")
"""Folders with snapshots."""
COPY_BYTES = 1 << 20
_LEFT_OUT = {TOPICS_NAME, "logs", "subscribers", "clock.json", ".restoring~"}
_LEFT_OUT_SUFFIXES = (".lock", TEMPORARY_SUFFIX)
_DELETED_PREFIX = ".deleted~"


class Tail(Struct, frozen=True):
    """A last segment as it was at the instant."""

    path: str
    position: int
    """The bytes before it are those of the link; the others those of the tail."""
    size_bytes: int
    modified_ns: int


def take_image(data: Path, staging: Path, files: Files) -> None:
    """Catch the files of a data directory whose processes are all stopped."""
    files.make_directory(staging)
    tails: list[Tail] = []
    for name in files.names(data):
        if name in _LEFT_OUT or name.endswith(_LEFT_OUT_SUFFIXES) or name.startswith(STAGING_PREFIX):
            continue
        if (data / name).is_dir():
            _link_all(data / name, staging / name, files)
        else:
            _link(data / name, staging / name)
    topics = data / TOPICS_NAME
    for topic in files.names(topics) if files.exists(topics) else ():
        if topic.startswith(_DELETED_PREFIX):
            continue
        files.make_directory(staging / TOPICS_NAME / topic)
        for name in files.names(topics / topic):
            source, target = topics / topic / name, staging / TOPICS_NAME / topic / name
            if source.is_dir():
                _catch_partition(source, target, files, data, tails)
            else:
                _link(source, target)
    (staging / TAILS_NAME).write_bytes(msgspec.json.encode(tails))


def _link_all(source: Path, target: Path, files: Files) -> None:
    files.make_directory(target)
    for name in files.names(source):
        if (source / name).is_dir():
            _link_all(source / name, target / name, files)
        else:
            _link(source / name, target / name)


def _link(source: Path, target: Path) -> None:
    if not source.name.endswith(_LEFT_OUT_SUFFIXES):
        os.link(source, target)


def _catch_partition(source: Path, target: Path, files: Files, data: Path, tails: list[Tail]) -> None:
    files.make_directory(target)
    names = files.names(source)
    last = max(segment_bases(names), default=None)
    swap = load_cleaned(source, files).swap
    for name in names:
        path = Path(name)
        if path.suffix == CLEANED_SUFFIX and (swap is None or int(path.stem) != swap.base_offset):
            continue  # being written
        is_last = path.stem.isdigit() and last is not None and int(path.stem) == last
        if is_last and path.suffix in INDEX_SUFFIXES:
            continue  # grows, and is built again from the segment
        if not (is_last and path.suffix == LOG_SUFFIX):
            _link(source / name, target / name)
    if last is not None:
        tails.append(_catch_tail(source, target, files, data, last))


def _catch_tail(source: Path, target: Path, files: Files, data: Path, base_offset: int) -> Tail:
    path = segment_path(source, base_offset)
    checkpoint = decode_checkpoint(files.read_whole(source / CHECKPOINT_NAME))
    is_covered = checkpoint is not None and checkpoint.recovery_segment == base_offset
    found = os.stat(path)
    position = 0
    if is_covered and checkpoint is not None:
        position = min(checkpoint.recovery_position, found.st_size)
    os.link(path, target / f"{path.name}{LIVE_SUFFIX}")
    reading = files.open_read(path)
    try:
        writing = files.open_append(target / f"{path.name}{TAIL_SUFFIX}")
        try:
            copy_range(files, reading, writing, position, found.st_size)
        finally:
            files.close(writing)
    finally:
        files.close(reading)
    return Tail(str(path.relative_to(data)), position, found.st_size, found.st_mtime_ns)


def copy_range(files: Files, reading: int, writing: int, position: int, end: int) -> None:
    """Append the bytes from `position` to `end` of one file to another; fewer if it ends before."""
    while position < end:
        data = files.read(reading, min(COPY_BYTES, end - position), position)
        if not data:
            return
        files.append(writing, [data], len(data))
        position += len(data)


def read_tails(staging: Path) -> list[Tail]:
    return msgspec.json.decode((staging / TAILS_NAME).read_bytes(), type=list[Tail])

"""Reading all of a data directory, or of a backup, and comparing every checksum. Impure; changes nothing.

A finding is either damage, or a torn tail: bytes behind the last checkpoint that the next start will cut, because they
were never acknowledged. Called by `planaria verify`, with the broker stopped.
"""

import os
from itertools import zip_longest
from pathlib import Path

import msgspec
from msgspec import Struct

from ..journal.snapshot import SnapshotFormat
from ..log.checked import decode_checked
from ..log.checkpoint import CHECKPOINT_NAME, decode_checkpoint
from ..log.cleaned import is_damaged, load_cleaned
from ..log.companions import COMPACTION_NAME, GROUPS_NAME
from ..log.errors import StorageFailed, Unreadable
from ..log.files import Files
from ..log.labels import PARTITION_LABEL, TOPIC_LABEL, partition_label_of, topic_label_of
from ..log.scan import Damaged, SegmentReader
from ..log.segment import segment_bases, segment_path
from ..log.snapshots import SNAPSHOT_SUFFIX
from ..metadata.file_format import CatalogCorrupt, decode_file
from .image import COPY_BYTES, FOLDERS, TOPICS_NAME
from .manifest import MANIFEST_NAME, backup_ids, decode_manifest

_CATALOG = "catalog.json"
_TOPICS_KEY = "topics/"


class _TopicEntry(Struct):
    partitions: int


class Finding(Struct, frozen=True):
    path: str
    text: str
    is_damage: bool = True


class Verified(Struct):
    findings: list[Finding] = []
    batches: int = 0
    bytes: int = 0


def verify(directory: Path) -> Verified:
    """Verify a data directory; of a folder of backups, each of them."""
    files = Files()
    verified = Verified()
    ids = backup_ids(directory, files)
    for root in [directory / name for name in ids] or [directory]:
        _Verification(root, directory, files, verified).run()
    return verified


class _Verification:
    def __init__(self, root: Path, shown_from: Path, files: Files, verified: Verified) -> None:
        self._root = root
        self._shown_from = shown_from
        self._files = files
        self._verified = verified

    def _found(self, path: Path, text: str, *, is_damage: bool = True) -> None:
        shown = str(path.relative_to(self._shown_from))
        self._verified.findings.append(Finding(shown, text, is_damage))

    def run(self) -> None:
        self._check_manifest()
        known = self._known_topics()
        for folder in FOLDERS:
            for name in self._names(self._root / folder):
                path = self._root / folder / name
                if path.suffix == SNAPSHOT_SUFFIX and not self._is_snapshot(path):
                    self._found(path, "the snapshot does not match its checksum")
        topics = self._root / TOPICS_NAME
        for topic in self._names(topics):
            if topic.startswith(".") or not (topics / topic).is_dir():
                continue
            if topic in known and topic_label_of(topics / topic, self._files) is None:
                self._found(topics / topic / TOPIC_LABEL, "the label is missing or damaged")
            for name in self._names(topics / topic):
                if name.isdigit():
                    self._check_partition(topics / topic / name, int(name) < known.get(topic, 0))

    def _names(self, folder: Path) -> list[str]:
        return self._files.names(folder) if folder.is_dir() else []

    def _is_snapshot(self, path: Path) -> bool:
        data = self._files.read_whole(path) or b""
        version = int.from_bytes(data[4:6], "big")
        return SnapshotFormat(data[:4], version).open(data) is not None

    def _check_manifest(self) -> None:
        path = self._root / MANIFEST_NAME
        if not path.exists():
            return
        manifest = decode_manifest(self._files.read_whole(path))
        if manifest is None:
            self._found(path, "the list of files is damaged")
            return
        for entry in manifest.files:
            file = self._root / entry.path
            if not file.exists():
                self._found(file, "the file is missing")
            elif (size := os.stat(file).st_size) != entry.size_bytes:
                self._found(file, f"the file has {size} bytes instead of {entry.size_bytes}")

    def _known_topics(self) -> dict[str, int]:
        """Check the catalog; return the number of partitions of its topics. Other folders are not finished."""
        path = self._root / _CATALOG
        data = self._files.read_whole(path)
        if data is None:
            self._found(path, "the catalog is missing")
            return {}
        try:
            _, values = decode_file(data, _CATALOG)
        except CatalogCorrupt as error:
            self._found(path, str(error))
            return {}
        return {
            key.removeprefix(_TOPICS_KEY): msgspec.json.decode(value, type=_TopicEntry).partitions
            for key, value in values.items()
            if key.startswith(_TOPICS_KEY)
        }

    def _check_partition(self, folder: Path, is_known: bool) -> None:
        if is_known and partition_label_of(folder, self._files) is None:
            self._found(folder / PARTITION_LABEL, "the label is missing or damaged")
        if is_damaged(folder, self._files):
            self._found(folder / COMPACTION_NAME, "the record of compaction does not match its checksum")
        data = self._files.read_whole(folder / CHECKPOINT_NAME)
        if data is not None and decode_checkpoint(data) is None:
            self._found(folder / CHECKPOINT_NAME, "the checkpoint does not match its checksum")
        for name in (*(name for name in self._names(folder) if name.endswith(SNAPSHOT_SUFFIX)), GROUPS_NAME):
            data = self._files.read_whole(folder / name)
            if data is not None and decode_checked(data[:4], data, object) is None:
                self._found(folder / name, "the file does not match its checksum")
        self._check_segments(folder)

    def _check_segments(self, folder: Path) -> None:
        checkpoint = decode_checkpoint(self._files.read_whole(folder / CHECKPOINT_NAME))
        compacted = load_cleaned(folder, self._files).segments
        bases = segment_bases(self._names(folder))
        for base_offset, following in zip_longest(bases, bases[1:]):
            path = segment_path(folder, base_offset)
            trusted = os.stat(path).st_size
            if following is None:
                is_covered = checkpoint is not None and checkpoint.recovery_segment == base_offset
                trusted = checkpoint.recovery_position if checkpoint is not None and is_covered else 0
            try:
                end = self._walk(path, base_offset, following, trusted)
            except (Unreadable, StorageFailed) as error:
                self._found(path, str(error))
                continue
            if following is not None and base_offset not in compacted and end != following:
                self._found(path, f"offsets {end} to {following - 1} are missing at its end")

    def _walk(self, path: Path, base_offset: int, following: int | None, trusted: int) -> int:
        """Check all batches of a segment; return the offset after the last one."""
        descriptor = self._files.open_read(path)
        try:
            size = os.stat(path).st_size
            reader = SegmentReader(self._files, descriptor, size, following or 2**63 - 1)
            end, damaged = base_offset, list[Damaged]()
            for header, position in reader.walk_intact(0, damaged.append):
                self._note_damage(path, damaged, position, trusted)
                end = header.next_offset
                self._verified.batches += 1
            if damaged and not self._is_room(descriptor, damaged[0].position, size):
                self._note_damage(path, damaged, size, trusted)
            self._verified.bytes += size
            return end
        finally:
            self._files.close(descriptor)

    def _note_damage(self, path: Path, damaged: list[Damaged], until: int, trusted: int) -> None:
        for damage in damaged:
            is_torn = damage.position >= trusted
            note = "; the next start cuts it: it was never acknowledged" if is_torn else ""
            text = f"bytes {damage.position} to {until}: {damage.reason}{note}"
            self._found(path, text, is_damage=not is_torn)
        damaged.clear()

    def _is_room(self, descriptor: int, position: int, end: int) -> bool:
        """Return True if only zeros follow: room for the next batches."""
        return not any(
            any(self._files.read(descriptor, min(COPY_BYTES, end - at), at))
            for at in range(position, end, COPY_BYTES)
        )

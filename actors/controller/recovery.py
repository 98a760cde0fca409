"""An operator's recovery of a lost catalog or a lost partition, with the broker stopped. Impure.

    recover_catalog     rebuild the catalog from the folders' labels; everything else in a readable one is kept
    recover_partition   an empty folder in the place of a lost one, from an offset that was never given out

Called by `planaria recover`, which holds the lock of the data directory. Both return lines of text. Neither reads or
changes a partition's records, except for the keys of `__offsets`, which name the groups.
"""

import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ...transport.addresses import AUDIT_TOPIC, DIVERGED_PREFIX, OFFSETS_TOPIC, is_internal
from ...transport.batch import InvalidBatch, decode_records, verify
from ...transport.protocol.errors import PlanariaError
from ...transport.protocol.mirrored import TopicMirror
from ..journal.owners import owner_of
from ..log.checkpoint import CHECKPOINT_NAME, Checkpoint, encode_checkpoint
from ..log.files import Files
from ..log.labels import (
    PARTITION_LABEL,
    PartitionLabel,
    TopicLabel,
    copied_by,
    encode_label,
    partition_label_of,
    topic_label_of,
)
from ..log.segment import LOG_SUFFIX, Segment
from ..metadata.file_format import CatalogCorrupt
from .catalog import Catalog, TopicEntry, decode_catalog, encode_catalog
from .folders import (
    TOPICS_NAME,
    UNCLAIMED_PREFIX,
    TopicFolders,
    found_copied_by,
    has_records,
    label_found_in,
)
from .groups import OFFSETS_CONFIG
from .internal_actors import AUDIT_CONFIG, CONFIG
from .storage import CATALOG_NAME

UNKNOWN_MIRROR = "recovered"
"""The mirror of a topic that may have been a copy, by which it is promoted."""


class RecoveryFailed(PlanariaError):
    """No file was changed; the message gives the reason."""


def recover_catalog(data_directory: str) -> list[str]:
    return _CatalogRecovery(Path(data_directory), Files()).run()


class _CatalogRecovery:
    def __init__(self, data_directory: Path, files: Files) -> None:
        self._data = data_directory
        self._files = files
        self._path = data_directory / CATALOG_NAME
        self._lines: list[str] = []

    def run(self) -> list[str]:
        catalog = self._readable_catalog()
        topics = dict(catalog.topics)
        for folder in TopicFolders(self._data, self._files).folders():
            self._add_topic(folder, topics, catalog)
        for topic in sorted(topics.keys() - {folder.name for folder in self._topic_folders()}):
            self._lines.append(f"{topic}: its folder is missing; delete the topic, or restore the folder")
        groups = {**self._groups_found(), **catalog.groups}
        self._lines += [
            f"group {group}: found in {OFFSETS_TOPIC}" for group in groups.keys() - catalog.groups.keys()
        ]
        recovered = msgspec.structs.replace(
            catalog,
            revision=catalog.revision + 1,
            topics=topics,
            groups=groups,
        )
        self._files.replace(self._path, encode_catalog(recovered))
        return self._lines

    def _readable_catalog(self) -> Catalog:
        data = self._files.read_whole(self._path)
        if data is not None:
            try:
                return decode_catalog(data, str(self._path))
            except CatalogCorrupt as error:
                self._files.replace(self._path.with_suffix(".damaged"), data)
                self._lines.append(f"{error}; kept as {self._path.with_suffix('.damaged').name}")
        self._lines.append(
            "quotas, principals, rules, deployments and mirrors cannot be recovered: set them again"
        )
        return Catalog(catalog_id=uuid.uuid4().hex)

    def _topic_folders(self) -> Iterator[Path]:
        return TopicFolders(self._data, self._files).folders()

    def _add_topic(self, folder: Path, topics: dict[str, TopicEntry], catalog: Catalog) -> None:
        tp = f"{TOPICS_NAME}/{folder.name}"
        label = label_found_in(folder, self._files)
        if label is None:
            if has_records(folder):
                self._lines.append(f"{tp}: no label in it can be read; it is left unchanged")
            return
        removing = catalog.removing.get(label.topic)
        if removing is not None and removing.topic_id == label.topic_id:
            return
        known = topics.get(label.topic)
        if folder.name.startswith(UNCLAIMED_PREFIX):
            if known is not None or (folder.parent / label.topic).exists():
                self._lines.append(f"{tp}: there is another topic {label.topic}; it is left unchanged")
                return
            self._files.rename(folder, folder.parent / label.topic)
            self._files.sync_directory(folder.parent)
        entry = self._entry(folder, label, known)
        if entry == known:
            return
        topics[label.topic] = entry
        self._lines.append(f"{label.topic}: {entry.partitions} partitions, id {entry.topic_id}")
        if entry.mirror is not None and not entry.mirror.is_writable:
            self._lines.append(
                f"{label.topic}: {entry.mirror.reason or 'a copy of another broker'}; it accepts no producers: create"
                f" mirror {entry.mirror.mirror!r} again and resume it, or run planaria mirror promote"
                f" {entry.mirror.mirror} {label.topic}"
            )

    def _entry(self, folder: Path, label: TopicLabel, known: TopicEntry | None) -> TopicEntry:
        config = label.config
        if label.topic == OFFSETS_TOPIC:
            config = OFFSETS_CONFIG
        elif label.topic == AUDIT_TOPIC:
            config = AUDIT_CONFIG
        elif is_internal(label.topic) and not label.topic.startswith(DIVERGED_PREFIX):
            config = CONFIG
        elif topic_label_of(folder, self._files) is None:
            self._lines.append(f"{label.topic}: its label is missing; it has the default configuration now")
        partitions, mirror = label.partitions, label.mirror
        if known is not None and known.topic_id != label.topic_id:
            known = None
        if known is not None:
            partitions = max(partitions, known.partitions)
        if topic_label_of(folder, self._files) is None and _may_be_copy(label.topic):
            # A label is written before the catalog, so it is never older.
            mirror = self._mirror_without_label(folder, known)
        return TopicEntry(
            topic=label.topic, topic_id=label.topic_id, partitions=partitions, config=config, mirror=mirror
        )

    def _mirror_without_label(self, folder: Path, known: TopicEntry | None) -> TopicMirror | None:
        """Return the mirror of a topic whose label is lost. One that may be a copy does not accept producers."""
        found = found_copied_by(folder, self._files)
        mirror = None if known is None else known.mirror
        if found == "" or (known is not None and found is None) or copied_by(mirror):
            return mirror
        if found is None:
            reason = "its labels do not tell whether it was a copy of another broker"
            return TopicMirror(mirror=UNKNOWN_MIRROR, state="faulted", reason=reason)
        return TopicMirror(
            mirror=found, state="faulted", reason="a copy of another broker whose label was lost"
        )

    def _groups_found(self) -> dict[str, int]:
        found: dict[str, int] = {}
        directory = self._data / TOPICS_NAME / OFFSETS_TOPIC
        for partition in sorted(directory.glob("*/")) if directory.is_dir() else []:
            if partition.name.isdigit():
                found |= dict.fromkeys(self._groups_in(partition), int(partition.name))
        return found

    def _groups_in(self, partition: Path) -> list[str]:
        """Return the groups with remaining state: the newest record of a key counts, and one without a value deletes."""
        alive: dict[bytes, bool] = {}
        for path in sorted(partition.glob(f"*{LOG_SUFFIX}")):
            segment = Segment(partition, int(path.stem), path.stat().st_size, self._files)
            reader = segment.reader()
            for header, position in reader.walk_intact(0):
                if header.is_control:
                    continue
                try:
                    frame = reader.frame(position, header)
                    verify(frame)
                    records = decode_records(frame, header)
                except InvalidBatch:
                    continue
                alive |= {record[0]: record[1] is not None for record in records if record[0] is not None}
            segment.close()
        groups = {owner_of(key) for key, is_alive in alive.items() if is_alive}
        return sorted(group for group in groups if group is not None)


def recover_partition(data_directory: str, topic: str, partition: int, from_offset: int) -> list[str]:
    """Replace a lost partition by an empty one. Raises RecoveryFailed when the partition is not lost, or unknown."""
    files = Files()
    path = Path(data_directory) / CATALOG_NAME
    data = files.read_whole(path)
    if data is None:
        raise RecoveryFailed(f"{path} is missing: recover the catalog first")
    entry = decode_catalog(data, str(path)).topics.get(topic)
    if entry is None or not 0 <= partition < entry.partitions:
        raise RecoveryFailed(f"the catalog has no partition {topic}/{partition}")
    directory = Path(data_directory) / TOPICS_NAME / topic / str(partition)
    if partition_label_of(directory, files) is not None or any(directory.glob(f"*{LOG_SUFFIX}")):
        raise RecoveryFailed(f"{directory} has records or a label: it is not lost")
    files.make_directory(directory)
    files.close(files.open_write(directory / f"{from_offset:020d}{LOG_SUFFIX}"))
    checkpoint = Checkpoint(
        log_start_offset=from_offset,
        recovery_offset=from_offset,
        recovery_segment=from_offset,
        recovery_position=0,
        epochs=(),
        leader_epoch=-1,
        high_watermark=from_offset,
        active_since_ms=0,
    )
    files.replace(directory / CHECKPOINT_NAME, encode_checkpoint(checkpoint))
    label = PartitionLabel(
        topic=topic, topic_id=entry.topic_id, partition=partition, copied_by=copied_by(entry.mirror)
    )
    files.replace(directory / PARTITION_LABEL, encode_label(label))
    for parent in (directory.parent, directory.parent.parent):
        files.sync_directory(parent)
    return [f"{topic}/{partition} is empty and begins at offset {from_offset}"]


def _may_be_copy(topic: str) -> bool:
    return not is_internal(topic) or topic.startswith(DIVERGED_PREFIX)

"""The topics' folders: made and labelled before the catalog names them, compared with it, removed after it. Impure.

    data directory/topics/<topic>/                 label and partitions: `log/labels.py`
    data directory/topics/.deleted~<topic id>/     a deleted topic being removed: `~` is in no topic's name
    data directory/topics/.unclaimed~<topic id>/   records of a topic that the catalog does not know, put aside when
                                                   another topic of its name was created

A partition in the durable catalog has a folder that was made durably, so a missing one was lost and is never silently
recreated. Called by `storage.py`, `process.py` and `recovery.py`.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ...transport.protocol.mirrored import TopicMirror
from ...transport.protocol.topics import TopicConfig
from ..log.files import Files
from ..log.labels import (
    PARTITION_LABEL,
    TOPIC_LABEL,
    PartitionLabel,
    TopicLabel,
    copied_by,
    encode_label,
    partition_label_of,
    topic_label_of,
)
from ..log.segment import LOG_SUFFIX
from .catalog import Catalog, TopicEntry

TOPICS_NAME = "topics"
DELETED_PREFIX = ".deleted~"
UNCLAIMED_PREFIX = ".unclaimed~"
WAY_OUT = 'stop the broker and run "planaria recover --catalog"'


class TopicFolders:
    def __init__(self, data_directory: Path, files: Files) -> None:
        self._path = data_directory / TOPICS_NAME
        self._files = files
        self._labelled: dict[str, TopicLabel] = {}
        """Topics whose folders are known to match their labels."""

    def make(self, entries: Iterable[TopicEntry], progress: Callable[[], None]) -> None:
        """Make and label the missing folders of these topics. Durable when it returns. Raises StorageFull.

        Each partition takes two syncs, so `progress` is called after each: on a slow disk a large topic takes longer
        than the supervisor waits for a heartbeat.
        """
        for entry in entries:
            label = label_of(entry)
            if self._labelled.get(entry.topic) != label:
                self._make_topic(label, progress)
                self._labelled[entry.topic] = label

    def make_replica(self, entry: TopicEntry, partition: int) -> None:
        """Make and label the folder of one partition, unless it exists. Durable when it returns. Raises StorageFull."""
        directory = self._path / entry.topic
        label = topic_label_of(directory, self._files) if directory.is_dir() else None
        if label is not None and label.topic_id != entry.topic_id:
            self._put_aside(directory)
        self._make_directory(self._path)
        self._make_directory(directory)
        self._make_directory(directory / str(partition))
        own = PartitionLabel(
            topic=entry.topic,
            topic_id=entry.topic_id,
            partition=partition,
            copied_by=copied_by(entry.mirror),
        )
        known = partition_label_of(directory / str(partition), self._files)
        if known is None or known.topic_id != entry.topic_id:
            self._files.replace(directory / str(partition) / PARTITION_LABEL, encode_label(own))
        self._files.replace(directory / TOPIC_LABEL, encode_label(label_of(entry)))

    def has_replica(self, topic: str, partition: int, topic_id: str) -> bool:
        """Return True if the folder of a partition is there, and labelled as this topic's."""
        label = partition_label_of(self._path / topic / str(partition), self._files)
        return label is not None and label.topic_id == topic_id

    def remove_replica(self, topic: str, partition: int, progress: Callable[[], None]) -> None:
        """Delete the folder of one partition, and the topic's when it holds no other."""
        directory = self._path / topic
        if (directory / str(partition)).is_dir():
            aside = self._path / f"{DELETED_PREFIX}{topic}.{partition}"
            self._files.rename(directory / str(partition), aside)
            self._files.sync_directory(directory)
            self._files.sync_directory(self._path)
            self._delete(aside, progress)
        if directory.is_dir() and not any(entry.is_dir() for entry in directory.iterdir()):
            self._delete(directory, progress)

    def adopt(self, catalog: Catalog) -> None:
        """Take all folders of this durable catalog as made; missing ones were lost."""
        self._labelled = {entry.topic: label_of(entry) for entry in catalog.topics.values()}

    def _make_topic(self, label: TopicLabel, progress: Callable[[], None]) -> None:
        directory = self._path / label.topic
        known = self._labelled.get(label.topic)
        if known is None or known.topic_id != label.topic_id:
            known = None
            self._put_aside(directory)
        self._make_directory(self._path)
        self._make_directory(directory)
        is_as_before = known is not None and copied_by(known.mirror) == copied_by(label.mirror)
        for number in range(known.partitions if known is not None and is_as_before else 0, label.partitions):
            partition = directory / str(number)
            is_new = known is None or number >= known.partitions
            if is_new and not partition.is_dir():
                self._files.make_directory(partition)
            if is_new or partition.is_dir():  # a folder that was lost is not made again
                self._label_partition(label, number, partition)
            progress()
        # This makes the partitions' names durable as well.
        self._files.replace(directory / TOPIC_LABEL, encode_label(label))

    def _label_partition(self, label: TopicLabel, number: int, directory: Path) -> None:
        before = partition_label_of(directory, self._files)
        is_same = before is not None and before.topic_id == label.topic_id
        own = PartitionLabel(
            topic=label.topic,
            topic_id=label.topic_id,
            partition=number,
            unclean_epochs=before.unclean_epochs if before is not None and is_same else (),
            copied_by=copied_by(label.mirror),
        )
        self._files.replace(directory / PARTITION_LABEL, encode_label(own))

    def _make_directory(self, path: Path) -> None:
        if not path.is_dir():
            self._files.make_directory(path)
            self._files.sync_directory(path.parent)

    def _put_aside(self, directory: Path) -> None:
        """Put aside a folder that is not the new topic's: it must not expose records of an earlier one."""
        if not directory.exists():
            return
        if not has_records(directory):
            self._delete(directory, lambda: None)
            return
        label = topic_label_of(directory, self._files)
        name = label.topic_id if label is not None else directory.name
        aside = self._path / f"{UNCLAIMED_PREFIX}{name}"
        number = 0
        while aside.exists():
            number += 1
            aside = self._path / f"{UNCLAIMED_PREFIX}{name}.{number}"
        self._files.rename(directory, aside)
        self._files.sync_directory(self._path)

    def hold_records(self) -> bool:
        """Return True if any topic except deleted ones has records."""
        return any(has_records(folder) for folder in self.folders())

    def ids_of_records(self) -> dict[str, str]:
        """Return the id of each topic that has records, by its name. Unclaimed and deleted ones do not count."""
        found = {}
        for folder in self.folders():
            label = topic_label_of(folder, self._files) if has_records(folder) else None
            if label is not None and folder.name == label.topic:
                found[label.topic] = label.topic_id
        return found

    def folders(self) -> Iterator[Path]:
        """Return the folders of all topics that are not being deleted, including unclaimed ones."""
        if not self._path.is_dir():
            return
        for name in self._files.names(self._path):
            if not name.startswith(DELETED_PREFIX) and (self._path / name).is_dir():
                yield self._path / name

    def differences(self, catalog: Catalog) -> list[str]:
        """Return the contents of the folders beyond the catalog, one line each: the catalog is older than the data."""
        found = []
        for folder in self.folders():
            if not has_records(folder):
                continue
            tp = f"{TOPICS_NAME}/{folder.name}"
            label = topic_label_of(folder, self._files)
            entry = catalog.topics.get(folder.name) or catalog.removing.get(folder.name)
            if entry is None:
                topic = folder.name if label is None else label.topic
                found.append(
                    f"{tp} holds records of a topic {topic!r} that the catalog does not know; {WAY_OUT}"
                )
            elif label is not None and label.topic_id != entry.topic_id:
                found.append(f"{tp} belongs to another topic of this name than the catalog's; {WAY_OUT}")
            elif label is not None and _is_copy(label.mirror) and not _is_copy(entry.mirror):
                found.append(
                    f"{tp} is a copy of another broker's topic, the catalog does not know and lets it take producers;"
                    f" {WAY_OUT}"
                )
            elif label is not None and label.partitions > entry.partitions:
                found.append(
                    f"{tp} has {label.partitions} partitions, the catalog knows {entry.partitions}; {WAY_OUT}"
                )
        return found

    def remove(self, topic: str, topic_id: str, progress: Callable[[], None]) -> None:
        """Move the topic's folder out of the way durably, then delete it. Idempotent.

        A folder whose label names another topic does not belong to this topic, and stays.
        """
        directory = self._path / topic
        aside = self._path / f"{DELETED_PREFIX}{topic_id}"
        self._labelled.pop(topic, None)
        if directory.is_dir():
            label = topic_label_of(directory, self._files)
            if label is None or label.topic_id == topic_id:
                self._files.rename(directory, aside)
                self._files.sync_directory(self._path)
        if aside.is_dir():
            self._delete(aside, progress)

    def remove_leftovers(self, progress: Callable[[], None]) -> None:
        """Delete the remains of deleted topics after a crash."""
        if not self._path.is_dir():
            return
        for name in self._files.names(self._path):
            if name.startswith(DELETED_PREFIX):
                self._delete(self._path / name, progress)

    def _delete(self, directory: Path, progress: Callable[[], None]) -> None:
        # File by file: unlinking a large file takes time, and the supervisor must see progress.
        for name in self._files.names(directory):
            entry = directory / name
            if entry.is_dir() and not entry.is_symlink():
                self._delete(entry, progress)
            else:
                self._files.unlink(entry)
            progress()
        directory.rmdir()


def label_of(entry: TopicEntry) -> TopicLabel:
    return TopicLabel(
        topic=entry.topic,
        topic_id=entry.topic_id,
        partitions=entry.partitions,
        config=entry.config,
        mirror=entry.mirror,
    )


def _is_copy(mirror: TopicMirror | None) -> bool:
    return mirror is not None and not mirror.is_writable


def found_copied_by(folder: Path, files: Files) -> str | None:
    """Return the mirror that copies a topic, by its partitions' labels; "" if none does, None if it is not known."""
    found = [
        label.copied_by
        for each in folder.iterdir()
        if each.name.isdigit() and (label := partition_label_of(each, files)) is not None
    ]
    return next((name for name in found if name), "" if found and None not in found else None)


def has_records(folder: Path) -> bool:
    """Return True if any partition in it was ever started; a folder left by a crash during creation has no segment."""
    return any(folder.glob(f"*/*{LOG_SUFFIX}"))


def label_found_in(folder: Path, files: Files) -> TopicLabel | None:
    """Return the folder's label, or one derived from its partitions' labels, with the default configuration."""
    label = topic_label_of(folder, files)
    if label is not None:
        return label
    numbers = [int(each.name) for each in folder.iterdir() if each.is_dir() and each.name.isdigit()]
    for number in sorted(numbers):
        own = partition_label_of(folder / str(number), files)
        if own is not None:
            return TopicLabel(
                topic=own.topic, topic_id=own.topic_id, partitions=max(numbers) + 1, config=TopicConfig()
            )
    return None

"""Partitions' folders as the controller creates them, for tests that start partitions without one."""

from pathlib import Path

from planaria.actors.log.files import Files
from planaria.actors.log.labels import PARTITION_LABEL, PartitionLabel, encode_label


def label_partition(directory: Path, topic_id: str = "t1", files: Files | None = None) -> None:
    files = files or Files()
    files.make_directory(directory)
    label = PartitionLabel(topic=directory.parent.name, topic_id=topic_id, partition=int(directory.name))
    files.replace(directory / PARTITION_LABEL, encode_label(label))

"""Labels: files that say which topic a folder belongs to, so that the records do not depend on the catalog for it.

    topics/<topic>/topic.json                    id, number of partitions, configuration and mirror of the topic
    topics/<topic>/<partition>/partition.json    id of the topic, and the mirror that copies it, if one does

    {"format":1,"crc32c":<of the bytes of label>,"label":{...}}

The controller writes them before the catalog names the topic or partition, so a folder without its label was lost or
never belonged here. A partition's process reads its own. A label that cannot be read counts as missing.
"""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from ...transport.batch import checksum
from ...transport.protocol.mirrored import TopicMirror
from ...transport.protocol.topics import TopicConfig
from .files import Files

TOPIC_LABEL = "topic.json"
PARTITION_LABEL = "partition.json"
LABEL_FORMAT = 1

_log = logging.getLogger(__name__)


class TopicLabel(Struct, frozen=True, kw_only=True):
    topic: str
    topic_id: str
    partitions: int
    config: TopicConfig
    mirror: TopicMirror | None = None
    """A copy of another broker's topic must not take producers after its catalog was lost."""


class PartitionLabel(Struct, frozen=True, kw_only=True):
    topic: str
    topic_id: str
    partition: int
    unclean_epochs: tuple[int, ...] = ()
    """Leader epochs that began with an unclean election."""
    copied_by: str | None = None
    """The mirror of a topic that accepts no producers, "" of any other one. None: not known, in a label of an earlier
    version. It decides if the topic's label is lost together with the catalog."""


def copied_by(mirror: TopicMirror | None) -> str:
    """Return the mirror of a topic that does not accept producers; "" of any other one."""
    return "" if mirror is None or mirror.is_writable else mirror.mirror


class _File(Struct, kw_only=True):
    format: int
    crc32c: int
    label: msgspec.Raw


Label = TypeVar("Label", TopicLabel, PartitionLabel)


def encode_label(label: TopicLabel | PartitionLabel) -> bytes:
    body = msgspec.json.encode(label)
    file = _File(format=LABEL_FORMAT, crc32c=checksum(body), label=msgspec.Raw(body))
    return msgspec.json.encode(file) + b"\n"


def decode_label(data: bytes | None, kind: type[Label]) -> Label | None:
    try:
        file = msgspec.json.decode(data or b"", type=_File)
        if file.format != LABEL_FORMAT or checksum(bytes(file.label)) != file.crc32c:
            return None
        return msgspec.json.decode(file.label, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def topic_label_of(directory: Path, files: Files) -> TopicLabel | None:
    return decode_label(files.read_whole(directory / TOPIC_LABEL), TopicLabel)


def partition_label_of(directory: Path, files: Files) -> PartitionLabel | None:
    return decode_label(files.read_whole(directory / PARTITION_LABEL), PartitionLabel)


def note_unclean_epochs(directory: Path, files: Files, epochs: Iterable[int]) -> None:
    """Add leader epochs that began with an unclean election to a partition's label. Raises StorageFull."""
    label = partition_label_of(directory, files)
    if label is None or set(epochs) <= set(label.unclean_epochs):
        return
    known = tuple(sorted({*label.unclean_epochs, *epochs}))
    changed = msgspec.structs.replace(label, unclean_epochs=known)
    files.replace(directory / PARTITION_LABEL, encode_label(changed))
    _log.critical("%s: unclean election: committed records may be lost; epochs %s", directory, known)

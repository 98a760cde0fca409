"""The controller's state: topics, groups, quotas, the era of producer ids; and its encoding. Pure.

A catalog is a value: every change makes a new one, so the durable one remains when a save fails. The file is one JSON
object; `crc32c` covers the bytes of `catalog` exactly as written:

    {"format":2,"crc32c":<number>,"catalog":{"catalog_id":...,"revision":...,"topics":{...},"groups":{...},...}}

Only the controller writes it; it is small (some hundred bytes a topic), so it is always written whole.
"""

from hashlib import blake2b

import msgspec
from msgspec import Struct

from ...transport.batch import checksum
from ...transport.protocol.errors import OperatorNeeded
from ...transport.protocol.quotas import Quota
from ...transport.protocol.topics import TopicConfig

CATALOG_FORMAT = 2


class TopicEntry(Struct, frozen=True, kw_only=True):
    topic: str
    topic_id: str
    partitions: int
    config: TopicConfig


class Catalog(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    catalog_id: str
    """Makes the topic ids of this catalog different from those of any other."""
    revision: int = 0
    """Number of changes."""
    topics_revision: int = 0
    """The revision of the last change that watchers are notified of: of a topic or a quota."""
    era: int = 0
    """The last era of which producer ids may have been given out.

    Because eras follow the clock (`transport/producer_ids.py`), a catalog from a backup does not repeat one.
    """
    topics: dict[str, TopicEntry] = msgspec.field(default_factory=dict)
    removing: dict[str, TopicEntry] = msgspec.field(default_factory=dict)
    """Deleted topics whose processes or files may still exist."""
    groups: dict[str, int] = msgspec.field(default_factory=dict)
    """The partition of `__offsets` for each group."""
    quotas: dict[str, Quota] = msgspec.field(default_factory=dict)
    """Quotas by client id."""

    def with_topic(self, topic: str, partitions: int, config: TopicConfig, now_ms: int) -> "Catalog":
        """Add a topic, with an id that no other topic has or had."""
        assert topic not in self.topics
        # The time distinguishes it from a topic that an earlier life of this catalog created at the same revision.
        origin = f"{self.catalog_id}/{self.revision}/{now_ms}"
        topic_id = blake2b(origin.encode(), digest_size=16).hexdigest()
        entry = TopicEntry(topic=topic, topic_id=topic_id, partitions=partitions, config=config)
        return self._next(topics={**self.topics, topic: entry})

    def with_topic_changed(self, topic: str, partitions: int, config: TopicConfig) -> "Catalog":
        entry = msgspec.structs.replace(self.topics[topic], partitions=partitions, config=config)
        return self._next(topics={**self.topics, topic: entry})

    def without_topic(self, topic: str) -> "Catalog":
        """Delete a topic; its files are still to be removed."""
        topics = dict(self.topics)
        entry = topics.pop(topic)
        return self._next(topics=topics, removing={**self.removing, topic: entry})

    def without_remains(self, topic: str) -> "Catalog":
        return self._next(removing={name: entry for name, entry in self.removing.items() if name != topic})

    def with_group(self, group: str, offsets_partition: int) -> "Catalog":
        return self._next(groups={**self.groups, group: offsets_partition})

    def without_group(self, group: str) -> "Catalog":
        return self._next(groups={name: number for name, number in self.groups.items() if name != group})

    def with_quota(self, client_id: str, quota: Quota) -> "Catalog":
        return self._next(quotas={**self.quotas, client_id: quota})

    def without_quota(self, client_id: str) -> "Catalog":
        return self._next(quotas={name: quota for name, quota in self.quotas.items() if name != client_id})

    def with_era(self, era: int) -> "Catalog":
        assert era > self.era
        return self._next(era=era)

    def _next(self, **changes: object) -> "Catalog":
        revision = self.revision + 1
        if "topics" in changes or "quotas" in changes:
            changes["topics_revision"] = revision
        return msgspec.structs.replace(self, revision=revision, **changes)


class CatalogCorrupt(OperatorNeeded):
    """The catalog's bytes are damaged. No guesses are made."""


class CatalogMissing(OperatorNeeded):
    """There is no catalog, but there are records."""


class _CatalogFile(Struct, kw_only=True):
    format: int
    crc32c: int
    catalog: msgspec.Raw


def encode_catalog(catalog: Catalog) -> bytes:
    body = msgspec.json.encode(catalog)
    file = _CatalogFile(format=CATALOG_FORMAT, crc32c=checksum(body), catalog=msgspec.Raw(body))
    return msgspec.json.encode(file) + b"\n"


def decode_catalog(data: bytes, name: str) -> Catalog:
    """Return the catalog in `data`. Raises CatalogCorrupt, which describes the damage of the file called `name`."""
    try:
        file = msgspec.json.decode(data, type=_CatalogFile)
        if file.format != CATALOG_FORMAT:
            raise CatalogCorrupt(f"{name}: format {file.format}, this version reads {CATALOG_FORMAT}")
        if checksum(bytes(file.catalog)) != file.crc32c:
            raise CatalogCorrupt(f"{name}: the checksum does not match the contents")
        return msgspec.json.decode(file.catalog, type=Catalog)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CatalogCorrupt(f"{name}: {error}") from error

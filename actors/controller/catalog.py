"""The controller's state: topics, groups, quotas, principals, the era of producer ids; and its keys in the store. Pure.

    key                value
    id                 {"catalog_id":...}                            written with the first change
    producer_ids       {"era":...,"site":...,"sites":{}}
    topics/<topic>     {"topic":...,"topic_id":...,"partitions":...,"config":{...}}
    removing/<topic>   the same, of a deleted topic whose processes or files may still exist
    groups/<group>     {"offsets_partition":...}
    quotas/<client>    {...}
    principals/<name>  {"keys":[...],"tokens":[...],"password":...,"roles":[...],"rules":[...],"is_disabled":false}
    roles/<name>       {"rules":[...]}
    deployments/<group>    {"spec":{...},"version":...}
    mirrors/<name>     {"spec":{...},"version":...}

A catalog is a value: every decision makes a new one, with its `changes` for the store, and the durable one remains
when they are refused. Other keys of the store are not the catalog's.
"""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

import msgspec
from msgspec import Struct

from ...transport.protocol.deployments import Deployment
from ...transport.protocol.errors import OperatorNeeded
from ...transport.protocol.mirrored import TopicMirror
from ...transport.protocol.mirrors import Mirror
from ...transport.protocol.quotas import Quota
from ...transport.protocol.topics import TopicConfig
from ...transport.security.principals import Principal, Role
from ..metadata.file_format import CatalogCorrupt, decode_file, encode_file
from ..metadata.store import ABSENT, Change, Delete, Guard, Put, State

ID_KEY = "id"
PRODUCER_IDS_KEY = "producer_ids"


class TopicEntry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    topic: str
    topic_id: str
    partitions: int
    config: TopicConfig
    mirror: TopicMirror | None = None
    """None for a topic that follows no other, and never did."""


class CatalogMissing(OperatorNeeded):
    """There is no catalog, but there are records."""


class CatalogId(Struct, frozen=True, forbid_unknown_fields=True):
    catalog_id: str


class ProducerIdsEntry(Struct, frozen=True, forbid_unknown_fields=True):
    era: int
    site: int = 0
    sites: dict[str, int] = {}


class GroupEntry(Struct, frozen=True, forbid_unknown_fields=True):
    offsets_partition: int


_TYPES: dict[str, Any] = {
    "topics": TopicEntry,
    "removing": TopicEntry,
    "groups": GroupEntry,
    "quotas": Quota,
    "principals": Principal,
    "roles": Role,
    "deployments": Deployment,
    "mirrors": Mirror,
}
"""The types of values, by the first part of their keys."""
_WATCHED = frozenset({"topics", "quotas", "principals", "roles"})
"""Kinds of keys whose changes watchers are notified of."""


class Catalog(Struct, frozen=True, kw_only=True):
    catalog_id: str
    """Makes the topic ids of this catalog different from those of any other."""
    revision: int = 0
    """The store's revision that it shows, without `changes`."""
    topics_revision: int = 0
    """Rises with each change that watchers are notified of: of topics, quotas, principals and roles."""
    era: int = 0
    """The last era of which producer ids may have been given out.

    Because eras follow the clock (`transport/producer_ids.py`), a catalog from a backup does not repeat one.
    """
    site: int = 0
    """The site in this broker's producer ids, if another broker has the one that follows from its id; else 0."""
    sites: dict[str, int] = msgspec.field(default_factory=dict)
    """The sites of other brokers whose topics were copied, by the ids of their catalogs."""
    topics: dict[str, TopicEntry] = msgspec.field(default_factory=dict)
    removing: dict[str, TopicEntry] = msgspec.field(default_factory=dict)
    """Deleted topics whose processes or files may still exist."""
    groups: dict[str, int] = msgspec.field(default_factory=dict)
    """The partition of `__offsets` for each group."""
    quotas: dict[str, Quota] = msgspec.field(default_factory=dict)
    """Quotas by client id."""
    principals: dict[str, Principal] = msgspec.field(default_factory=dict)
    roles: dict[str, Role] = msgspec.field(default_factory=dict)
    deployments: dict[str, Deployment] = msgspec.field(default_factory=dict)
    """Deployments by group."""
    mirrors: dict[str, Mirror] = msgspec.field(default_factory=dict)
    modified: dict[str, int] = msgspec.field(default_factory=dict)
    """The revision of the last change of each key in the store."""
    changes: tuple[Change, ...] = ()
    """The decisions since `revision`, which the store does not have yet."""

    def with_topic(
        self,
        topic: str,
        partitions: int,
        config: TopicConfig,
        now_ms: int,
        *,
        topic_id: str = "",
        mirror: TopicMirror | None = None,
    ) -> "Catalog":
        """Add a topic, with an id that no other topic has or had; a copy has the id of its source."""
        assert topic not in self.topics
        # The time distinguishes it from a topic that an earlier life of this catalog created at the same revision.
        origin = f"{self.catalog_id}/{self.revision}/{len(self.changes)}/{now_ms}"
        topic_id = topic_id or blake2b(origin.encode(), digest_size=16).hexdigest()
        entry = TopicEntry(
            topic=topic, topic_id=topic_id, partitions=partitions, config=config, mirror=mirror
        )
        return self._decided(put(f"topics/{topic}", entry))

    def with_topic_changed(self, topic: str, partitions: int, config: TopicConfig) -> "Catalog":
        entry = msgspec.structs.replace(self.topics[topic], partitions=partitions, config=config)
        return self._decided(put(f"topics/{topic}", entry))

    def without_topic(self, topic: str) -> "Catalog":
        """Delete a topic; its files are still to be removed."""
        entry = self.topics[topic]
        return self._decided(Delete(f"topics/{topic}"), put(f"removing/{topic}", entry))

    def without_remains(self, topic: str) -> "Catalog":
        return self._decided(Delete(f"removing/{topic}"))

    def with_group(self, group: str, offsets_partition: int) -> "Catalog":
        return self._decided(put(f"groups/{group}", GroupEntry(offsets_partition)))

    def without_group(self, group: str) -> "Catalog":
        return self._decided(Delete(f"groups/{group}"))

    def with_quota(self, client_id: str, quota: Quota) -> "Catalog":
        return self._decided(put(f"quotas/{client_id}", quota))

    def without_quota(self, client_id: str) -> "Catalog":
        return self._decided(Delete(f"quotas/{client_id}"))

    def with_principal(self, name: str, principal: Principal) -> "Catalog":
        return self._decided(put(f"principals/{name}", principal))

    def without_principal(self, name: str) -> "Catalog":
        return self._decided(Delete(f"principals/{name}"))

    def with_role(self, name: str, role: Role) -> "Catalog":
        return self._decided(put(f"roles/{name}", role))

    def without_role(self, name: str) -> "Catalog":
        return self._decided(Delete(f"roles/{name}"))

    def with_deployment(self, group: str, deployment: Deployment) -> "Catalog":
        return self._decided(put(f"deployments/{group}", deployment))

    def without_deployment(self, group: str) -> "Catalog":
        return self._decided(Delete(f"deployments/{group}"))

    def with_era(self, era: int) -> "Catalog":
        assert era > self.era
        return self._decided(put(PRODUCER_IDS_KEY, ProducerIdsEntry(era, self.site, self.sites)))

    def with_sites(self, site: int, sites: dict[str, int]) -> "Catalog":
        return self._decided(put(PRODUCER_IDS_KEY, ProducerIdsEntry(self.era, site, sites)))

    def _decided(self, *changes: Change) -> "Catalog":
        return self.decided(changes)

    def decided(self, changes: tuple[Change, ...]) -> "Catalog":
        """Return the catalog with decisions on top of it."""
        return msgspec.structs.replace(self._with(changes), changes=self.changes + changes)

    def applied(self, revision: int, changes: Iterable[Change]) -> "Catalog":
        """Return the durable catalog with the changes that the store has applied at `revision`."""
        changes = tuple(change for change in changes if is_of_catalog(change.key))
        if not changes:
            # Most changes of a cluster's store are of its partitions. A copy for each would cost as much as all keys.
            return msgspec.structs.replace(self, revision=revision)
        modified = dict(self.modified)
        for change in changes:
            if isinstance(change, Put):
                modified[change.key] = revision
            else:
                modified.pop(change.key, None)
        # Until the store has an id, the first decision brings it.
        pending = () if ID_KEY in modified else self.changes
        kinds = {change.key.partition("/")[0] for change in changes}
        topics_revision = self.topics_revision
        if not _WATCHED.isdisjoint(kinds):
            topics_revision = max(topics_revision + 1, revision)
        return msgspec.structs.replace(
            self._with(changes),
            revision=revision,
            topics_revision=topics_revision,
            modified=modified,
            changes=pending,
        )

    def undecided(self) -> "Catalog":
        return msgspec.structs.replace(self, changes=())

    def not_older_than(self, earlier: "Catalog") -> "Catalog":
        """Return this catalog with a version of its topics that `earlier` did not have: the store may be restored."""
        version = max(earlier.topics_revision + 1, self.topics_revision)
        return msgspec.structs.replace(self, topics_revision=version)

    def differences(self, later: "Catalog") -> tuple[Change, ...]:
        """Return the changes that lead to a later catalog."""
        before, after = self.values(), later.values()
        puts = [Put(key, value) for key, value in after.items() if before.get(key) != value]
        return (*puts, *(Delete(key) for key in before if key not in after))

    def guards(self, keys: Iterable[str]) -> tuple[Guard, ...]:
        """Return guards that hold while the keys are as in this catalog."""
        return tuple(Guard(key, self.modified.get(key, ABSENT)) for key in keys)

    def _with(self, changes: Iterable[Change]) -> "Catalog":
        fields: dict[str, Any] = {}
        for change in changes:
            kind, _, name = change.key.partition("/")
            if kind in _TYPES:
                field = fields.setdefault(kind, dict(getattr(self, kind)))
                if isinstance(change, Delete):
                    field.pop(name, None)
                else:
                    value = decode_value(change.key, change.value, _TYPES[kind])
                    field[name] = value.offsets_partition if kind == "groups" else value
            elif isinstance(change, Put) and kind == PRODUCER_IDS_KEY:
                ids = decode_value(change.key, change.value, ProducerIdsEntry)
                fields |= {"era": ids.era, "site": ids.site, "sites": ids.sites}
            elif isinstance(change, Put) and kind == ID_KEY:
                fields["catalog_id"] = decode_value(change.key, change.value, CatalogId).catalog_id
        return msgspec.structs.replace(self, **fields)

    def values(self) -> dict[str, bytes]:
        """Return the values of all keys."""
        values = {ID_KEY: encode(CatalogId(self.catalog_id))}
        if self.era or self.site or self.sites:
            values[PRODUCER_IDS_KEY] = encode(ProducerIdsEntry(self.era, self.site, self.sites))
        for kind in ("topics", "removing", "quotas", "principals", "roles", "deployments", "mirrors"):
            entries: dict[str, Struct] = getattr(self, kind)
            values |= {f"{kind}/{name}": encode(entry) for name, entry in entries.items()}
        return values | {f"groups/{name}": encode(GroupEntry(number)) for name, number in self.groups.items()}


encode = msgspec.json.encode


def is_of_catalog(key: str) -> bool:
    return key in {ID_KEY, PRODUCER_IDS_KEY} or key.partition("/")[0] in _TYPES


def put(key: str, value: Struct) -> Put:
    return Put(key, encode(value))


def decode_value(key: str, value: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(value, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CatalogCorrupt(f"key {key!r}: {error}") from error


def entry_of(change: Put) -> TopicEntry:
    """Return the topic that a change puts."""
    entry: TopicEntry = decode_value(change.key, change.value, TopicEntry)
    return entry


def catalog_of(state: State, new_catalog_id: str) -> Catalog:
    """Return the catalog in a store. Raises CatalogCorrupt, which names the damaged key.

    An empty store's catalog has the new id, which the first decision saves.
    """
    empty = Catalog(catalog_id=new_catalog_id, changes=(put(ID_KEY, CatalogId(new_catalog_id)),))
    puts = [Put(key, entry.value) for key, entry in state.entries.items()]
    catalog = empty.applied(state.revision, puts)
    modified = {key: entry.modified for key, entry in state.entries.items() if is_of_catalog(key)}
    return msgspec.structs.replace(catalog, topics_revision=state.revision, modified=modified)


def encode_catalog(catalog: Catalog) -> bytes:
    """Return the file of a store with this catalog, its decisions included."""
    return encode_file(catalog.revision + bool(catalog.changes), catalog.values())


def decode_catalog(data: bytes, name: str) -> Catalog:
    """Return the catalog in the file `data`. Raises CatalogCorrupt, which describes the damage of the file called
    `name`."""
    revision, values = decode_file(data, name)
    empty = Catalog(catalog_id="")
    try:
        catalog = empty.applied(revision, [Put(key, value) for key, value in values.items()])
    except CatalogCorrupt as error:
        raise CatalogCorrupt(f"{name}: {error}") from error
    return msgspec.structs.replace(catalog, topics_revision=revision)

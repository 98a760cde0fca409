"""The version of each key: the offset of its last record, by which a publisher's expectation is checked.

Pure: no file, no clock. Kept for topics that ask for it (`key_versions`). A function of the log: noting the batches of
the log in order gives the same versions, whichever process does so. A record without a value deletes its key, which then
has no version, whether compaction has removed that record or not. A record below the log's start is none (`trim`).

    a record of                  its key's version
    no transaction               at once
    an open transaction          unsettled until the marker, then as if the transaction had been written there;
                                 an aborted one changes nothing

The partition's machine calls `note` when it places a batch; the log calls `confirm` when it is written and `revert` when
the disk was full, both through the producers' states. Bounded by KEYS_LIMIT: a batch with one key more is refused.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from msgspec import Struct

from ...transport.batch import BatchHeader, decode_records, is_commit
from ...transport.compression import Buffer
from .key_map import name_of

NO_VERSION = -1
KEYS_LIMIT = 1_000_000
"""Keys of a partition: some 150 MB."""


class KeyWrite(NamedTuple):
    """A record's key."""

    name: bytes
    """Its name in the index."""
    position: int
    """The record's place in its batch."""
    is_deleted: bool


class _Unsettled(NamedTuple):
    offset: int
    is_deleted: bool


class KeyVersionsSnapshot(Struct, frozen=True, array_like=True):
    versions: dict[bytes, int] = {}
    unsettled: list[tuple[int, int, dict[bytes, tuple[int, bool]]]] = []
    """Producer id and epoch of each open transaction, and the keys that it has written."""


def writes_of(frame: Buffer, header: BatchHeader) -> list[KeyWrite]:
    """Return the keys in a batch. Raises InvalidBatch."""
    if header.is_control:
        return []
    return [
        KeyWrite(name_of(record[0]), position, record[1] is None)
        for position, record in enumerate(decode_records(frame, header))
        if record[0] is not None
    ]


class KeyVersions:
    def __init__(self, limit: int = KEYS_LIMIT) -> None:
        self.is_kept = False
        """True if the topic asks for it; otherwise nothing is noted."""
        self._limit = limit
        self._versions: dict[bytes, int] = {}
        self._unsettled: dict[tuple[int, int], dict[bytes, _Unsettled]] = {}
        self._undo: list[tuple[dict[Any, Any], Any, Any]] = []
        """The earlier value in a dict, None for nothing, of each change; the newest change last."""

    def __len__(self) -> int:
        return len(self._versions) + sum(map(len, self._unsettled.values()))

    # -- deciding

    def version_of(self, name: bytes) -> int:
        """Return the offset of the last record of a key, given by its name; NO_VERSION if it has none, or is deleted."""
        return max(NO_VERSION, self._versions.get(name, NO_VERSION))

    def is_unsettled(self, name: bytes) -> bool:
        """Return True if an open transaction has written the key."""
        return any(name in written for written in self._unsettled.values())

    def has_room_for(self, writes: Iterable[KeyWrite]) -> bool:
        """Return True if the index may take these keys."""
        if len(self) < self._limit:
            return True
        return all(each.is_deleted or each.name in self._versions for each in writes)

    # -- recording

    def note(self, header: BatchHeader, writes: Iterable[KeyWrite]) -> None:
        """Note a batch that has its base offset; each once, in order."""
        transaction = (header.producer_id, header.producer_epoch)
        if header.is_control:
            written_by_it = self._unsettled.get(transaction, {})
            self._put(self._unsettled, transaction, None)
            if is_commit(header):
                for name, each in written_by_it.items():
                    self._settle(name, each)
            return
        for write in writes:
            written = _Unsettled(header.base_offset + write.position, write.is_deleted)
            if header.is_transactional:
                if transaction not in self._unsettled:
                    self._put(self._unsettled, transaction, {})
                self._put(self._unsettled[transaction], write.name, written)
            else:
                self._settle(write.name, written)

    def _settle(self, name: bytes, written: _Unsettled) -> None:
        before = self._versions.get(name)
        if before is not None and written.offset < max(before, ~before):
            return  # a later record was settled first
        if not written.is_deleted:
            self._put(self._versions, name, written.offset)
        else:
            # An earlier record of an open transaction must not bring the key back.
            self._put(self._versions, name, ~written.offset if self._unsettled else None)

    def _put(self, where: dict[Any, Any], name: Any, value: Any) -> None:
        self._undo.append((where, name, where.get(name)))
        _set(where, name, value)

    def confirm(self) -> None:
        """Confirm that everything noted so far is written."""
        self._undo.clear()

    def revert(self) -> None:
        """Take back everything noted since the last `confirm`."""
        self._take_back()

    def _take_back(self) -> list[tuple[dict[Any, Any], Any, Any]]:
        """Undo, and return the changes that would do it again, in reverse order."""
        undone = []
        while self._undo:
            where, name, before = self._undo.pop()
            undone.append((where, name, where.get(name)))
            _set(where, name, before)
        return undone

    def trim(self, log_start_offset: int) -> None:
        """Forget the versions below the log's start, and deleted keys once no transaction is open."""
        least = ~(2**63) if self._unsettled else 0
        outdated = [
            name
            for name, offset in self._versions.items()
            if offset < least or 0 <= offset < log_start_offset
        ]
        for name in outdated:
            del self._versions[name]

    def clear(self) -> None:
        self.load(KeyVersionsSnapshot())

    # -- snapshots

    def snapshot(self) -> KeyVersionsSnapshot:
        """Return a snapshot of the confirmed state."""
        undone = self._take_back()
        found = KeyVersionsSnapshot(
            dict(self._versions),
            [
                (*transaction, {name: (each.offset, each.is_deleted) for name, each in written.items()})
                for transaction, written in self._unsettled.items()
            ],
        )
        for where, name, value in reversed(undone):
            self._put(where, name, value)
        return found

    def load(self, snapshot: KeyVersionsSnapshot) -> None:
        self._versions = dict(snapshot.versions)
        self._unsettled = {
            (producer_id, epoch): {name: _Unsettled(*each) for name, each in written.items()}
            for producer_id, epoch, written in snapshot.unsettled
        }
        self._undo.clear()


def _set(where: dict[Any, Any], name: Any, value: Any) -> None:
    if value is None:
        where.pop(name, None)
    else:
        where[name] = value

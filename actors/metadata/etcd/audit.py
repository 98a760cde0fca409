"""Audits of the mirror: comparisons with the contents and the history of the store. Pure.

Every proposal writes its proposer's key with a signature that is never repeated and names the one before it
(`proposals.py`). So the changes that a mirror has seen form a chain for each proposer, and two stores that were
restored from one backup cannot be mixed up, even if their revisions are the same:

    a change that does not continue its proposer's chain    the store was restored, or a change was never reported
    the proposers' keys, read now and then                  the same, for proposers that have not written since
    the number of all keys, and the newest change           changes that the watch has not reported, or not yet
"""

import enum

import msgspec
from msgspec import Struct

from ..entries import Entries
from ..store import Change, Entry, Put
from .requests import Pair

WRITERS = "writers/"
"""The keys of the proposers; users of the store do not see them."""


class Signature(Struct, frozen=True, omit_defaults=True):
    """The value of a proposer's key."""

    writer: str
    """The life of the process: a random text."""
    number: int
    """Counts its proposals; negative for a fence."""
    after_writer: str = ""
    after_number: int = 0
    """The signature before this one."""

    def after(self, before: "Signature | None") -> "Signature":
        if before is None:
            return Signature(self.writer, self.number)
        return Signature(self.writer, self.number, before.writer, before.number)

    def follows(self, before: "Signature | None") -> bool:
        expected = ("", 0) if before is None else (before.writer, before.number)
        return (self.after_writer, self.after_number) == expected

    def is_same(self, other: "Signature | None") -> bool:
        return other is not None and (self.writer, self.number) == (other.writer, other.number)


def signature_of(value: bytes | None) -> Signature | None:
    if value is None:
        return None
    try:
        return msgspec.json.decode(value, type=Signature)
    except msgspec.MsgspecError:
        return None


def continues(mirror: Entries, change: Change) -> bool:
    """Return False if the change shows that the mirror is not the state before it."""
    if not isinstance(change, Put) or not change.key.startswith(WRITERS):
        return True
    before = mirror.by_key.get(change.key)
    signature = signature_of(change.value)
    return signature is not None and signature.follows(signature_of(before.value if before else None))


class Verdict(enum.Enum):
    AGREES = enum.auto()
    DIFFERS = enum.auto()
    """The store has changes that the mirror lacked; the watch may be about to report them."""
    ANOTHER_HISTORY = enum.auto()


class Audit:
    def __init__(self, mirror: Entries) -> None:
        """Note the mirror's state, before a read is sent."""
        self.revision = mirror.revision
        self._count = len(mirror.by_key)
        self._writers = {key: entry for key, entry in mirror.by_key.items() if key.startswith(WRITERS)}

    def of_writers(self, revision: int, found: dict[str, Entry]) -> Verdict:
        """Compare with the keys of all proposers, read at `revision`."""
        if revision < self.revision:
            return Verdict.ANOTHER_HISTORY
        older = {key for key, entry in found.items() if entry.modified <= self.revision}
        if any(found[key] != self._writers.get(key) for key in older):
            return Verdict.ANOTHER_HISTORY
        if any(key not in found for key in self._writers):
            return Verdict.ANOTHER_HISTORY
        return Verdict.AGREES if len(older) == len(found) else Verdict.DIFFERS

    def of_count(self, count: int, newer: int) -> Verdict:
        """Compare with the number of all keys, and of those that were changed after the mirror's revision."""
        return Verdict.AGREES if (count, newer) == (self._count, 0) else Verdict.DIFFERS


def entry_of(pair: Pair) -> Entry:
    return Entry(pair.value, pair.created, pair.modified, pair.lease != 0)

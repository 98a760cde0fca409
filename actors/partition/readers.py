"""The groups that read this partition, and their positions, as reported by their coordinators.

Owns the table and its file `groups`, beside the log: `checked.py` with kind `PLGR`, its body a MessagePack map
`{"readers": {group: [offset, first_seen_offset, epoch, has_members, heard_ms]}}`. The file may be older than the
table by the commits of a second, never by a group or by an offset that went back: after a restart groups seem slower
than they are, which loses no records. After a restart no group has members until its coordinator reports some. Called
by `backlog.py`.

A group is *live* while it has members, and for some time after its last report: after its last member left, or after
a commit by a client that needs no membership.
"""

from collections.abc import Iterator

from msgspec import Struct, structs

from ...transport.protocol.progress import NOT_COMMITTED, ReportProgress
from ..log.checked import decode_checked, encode_checked

_KIND = b"PLGR"


class Reader(Struct, frozen=True, array_like=True):
    """One group."""

    offset: int
    """The committed offset, or NOT_COMMITTED."""
    first_seen_offset: int
    """The log end when the group was first reported: its assumed position until it commits."""
    epoch: int
    has_members: bool
    heard_ms: int

    @property
    def position(self) -> int:
        return self.offset if self.offset != NOT_COMMITTED else self.first_seen_offset


class _File(Struct):
    readers: dict[str, Reader]


class Readers:
    def __init__(self, readers: dict[str, Reader] | None = None) -> None:
        self._readers = dict(readers or {})
        self.is_saved = True
        """True if the file contains the whole table."""

    def __len__(self) -> int:
        return len(self._readers)

    def report(self, report: ReportProgress, end_offset: int, now: int) -> bool:
        """Record a coordinator's report; return True if it has to be saved before it is answered."""
        before = self._readers.get(report.group)
        if before is not None and report.epoch < before.epoch:
            return False
        if report.offset == NOT_COMMITTED and not report.has_members:
            self._readers.pop(report.group, None)
            self.is_saved = self.is_saved and before is None
            return False
        reader = Reader(
            offset=report.offset,
            first_seen_offset=before.first_seen_offset if before is not None else end_offset,
            epoch=report.epoch,
            has_members=report.has_members,
            heard_ms=_heard_ms(before, report, now),
        )
        if reader == before:
            return False
        self._readers[report.group] = reader
        self.is_saved = False
        return before is None or reader.offset < before.offset

    def bound(self, log_end_offset: int) -> None:
        """Limit positions to the log's recovered end: no group has read the records that will be written there."""
        for name, reader in self._readers.items():
            if max(reader.offset, reader.first_seen_offset) > log_end_offset:
                self._readers[name] = structs.replace(
                    reader,
                    offset=min(reader.offset, log_end_offset),
                    first_seen_offset=min(reader.first_seen_offset, log_end_offset),
                )
                self.is_saved = False

    def clear(self) -> None:
        """Forget all groups: they need not report any more, so their positions would grow stale."""
        self.is_saved = self.is_saved and not self._readers
        self._readers = {}

    def slowest(self, now: int, timeout_ms: int) -> tuple[str, int] | None:
        """Return the live group that is farthest behind, and its position."""
        live = ((reader.position, name) for name, reader in self._live(now, timeout_ms))
        found = min(live, default=None)
        return None if found is None else (found[1], found[0])

    @property
    def consumed_offset(self) -> int | None:
        """Return the offset that every group has committed past; one that has never committed counts as 0."""
        return min((max(reader.offset, 0) for reader in self._readers.values()), default=None)

    def next_lapse(self, now: int, timeout_ms: int) -> int | None:
        """Return the time at which the next group without members stops being live."""
        lapses = [
            reader.heard_ms + timeout_ms
            for _, reader in self._live(now, timeout_ms)
            if not reader.has_members
        ]
        return min(lapses, default=None)

    def _live(self, now: int, timeout_ms: int) -> Iterator[tuple[str, Reader]]:
        for name, reader in self._readers.items():
            if reader.has_members or now < reader.heard_ms + timeout_ms:
                yield name, reader

    def encode(self) -> bytes:
        return encode_checked(_KIND, _File(self._readers))


def _heard_ms(before: Reader | None, report: ReportProgress, now: int) -> int:
    is_still = before is not None and not before.has_members and before.offset == report.offset
    return before.heard_ms if before is not None and is_still and not report.has_members else now


def decode_readers(data: bytes | None, now: int) -> Readers | None:
    """Return the file's table in its state after a restart. None without a file, or with a damaged one."""
    found = decode_checked(_KIND, data, _File)
    if found is None:
        return None
    return Readers(
        {
            name: Reader(reader.offset, reader.first_seen_offset, reader.epoch, False, now)
            for name, reader in found.readers.items()
        }
    )

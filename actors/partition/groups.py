"""The groups that read this partition, and their positions, as reported by their coordinators.

Owns the table and its file `groups`, beside the log: `checked.py` with kind `PLGR`, its body a MessagePack map
`{"groups": {group: [offset, first_seen_offset, epoch, has_members, reported_ms]}}`. The file may be older than the
table by the commits of a second, never by a group or by an offset that went back: such a report is answered once the
file has it. So after a restart groups seem slower than they are, which loses no records. After a restart no group has
members until its coordinator reports some. Called by `backlog.py`.

A group is *live* while it has members, and for some time after its last report: after its last member left, or after
a commit by a client that needs no membership.
"""

from collections.abc import Iterator

from msgspec import Struct, structs

from ...transport.protocol.progress import NOT_COMMITTED, ReportProgress
from ..log.checked import decode_checked, encode_checked

_KIND = b"PLGR"


class ReportedGroup(Struct, frozen=True, array_like=True):
    """One group."""

    offset: int
    """The committed offset, or NOT_COMMITTED."""
    first_seen_offset: int
    """The log end when the group was first reported: its assumed position until it commits."""
    epoch: int
    has_members: bool
    reported_ms: int

    @property
    def position(self) -> int:
        return self.offset if self.offset != NOT_COMMITTED else self.first_seen_offset


class _File(Struct):
    groups: dict[str, ReportedGroup]


class ReportedGroups:
    def __init__(self, groups: dict[str, ReportedGroup] | None = None) -> None:
        self._groups = dict(groups or {})
        self.is_saved = True
        """True if the file contains the whole table."""
        self._urgent: set[str] = set()
        """ReportedGroups that are new, or went back, since the file was saved."""

    def __len__(self) -> int:
        return len(self._groups)

    def report(self, report: ReportProgress, end_offset: int, now: int) -> bool:
        """Record a coordinator's report; return True if the table has to be saved before it is answered."""
        before = self._groups.get(report.group)
        if before is not None and report.epoch < before.epoch:
            return False
        if report.offset == NOT_COMMITTED and not report.has_members:
            self._groups.pop(report.group, None)
            self._urgent.discard(report.group)
            self.is_saved = self.is_saved and before is None
            return False
        progress = ReportedGroup(
            offset=report.offset,
            first_seen_offset=before.first_seen_offset if before is not None else end_offset,
            epoch=report.epoch,
            has_members=report.has_members,
            reported_ms=_reported_ms(before, report, now),
        )
        if progress != before:
            self._groups[report.group] = progress
            self.is_saved = False
        if before is None or progress.offset < before.offset:
            self._urgent.add(report.group)
        return report.group in self._urgent

    def on_saved(self) -> None:
        self.is_saved = True
        self._urgent.clear()

    def bound(self, log_end_offset: int) -> None:
        """Limit positions to the log's recovered end: no group has read the records that will be written there."""
        for name, progress in self._groups.items():
            if max(progress.offset, progress.first_seen_offset) > log_end_offset:
                self._groups[name] = structs.replace(
                    progress,
                    offset=min(progress.offset, log_end_offset),
                    first_seen_offset=min(progress.first_seen_offset, log_end_offset),
                )
                self.is_saved = False

    def clear(self) -> None:
        """Forget all groups: they need not report any more, so their positions would grow stale."""
        self.is_saved = self.is_saved and not self._groups
        self._groups = {}
        self._urgent.clear()

    def slowest(self, now: int, timeout_ms: int) -> tuple[str, int] | None:
        """Return the live group that is farthest behind, and its position."""
        live = ((progress.position, name) for name, progress in self._live(now, timeout_ms))
        found = min(live, default=None)
        return None if found is None else (found[1], found[0])

    @property
    def consumed_offset(self) -> int | None:
        """Return the offset that every group has committed past; one that has never committed counts as 0."""
        return min((max(progress.offset, 0) for progress in self._groups.values()), default=None)

    def next_lapse(self, now: int, timeout_ms: int) -> int | None:
        """Return the time at which the next group without members stops being live."""
        lapses = [
            progress.reported_ms + timeout_ms
            for _, progress in self._live(now, timeout_ms)
            if not progress.has_members
        ]
        return min(lapses, default=None)

    def _live(self, now: int, timeout_ms: int) -> Iterator[tuple[str, ReportedGroup]]:
        for name, progress in self._groups.items():
            if progress.has_members or now < progress.reported_ms + timeout_ms:
                yield name, progress

    def encode(self) -> bytes:
        return encode_checked(_KIND, _File(self._groups))


def _reported_ms(before: ReportedGroup | None, report: ReportProgress, now: int) -> int:
    is_still = before is not None and not before.has_members and before.offset == report.offset
    return before.reported_ms if before is not None and is_still and not report.has_members else now


def decode_groups(data: bytes | None, now: int) -> ReportedGroups | None:
    """Return the file's table in its state after a restart. None without a file, or with a damaged one."""
    found = decode_checked(_KIND, data, _File)
    if found is None:
        return None
    return ReportedGroups(
        {
            name: ReportedGroup(progress.offset, progress.first_seen_offset, progress.epoch, False, now)
            for name, progress in found.groups.items()
        }
    )

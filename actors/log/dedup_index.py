"""The index of recent dedup ids and their offsets, by which a repeated record is recognised.

Pure: no file, no clock. Except for the times it is a function of the log: replaying the marked batches of the log in
order gives the same ids at the same offsets. Replayed ids count as seen at the replay, so a restart may remember an
id for longer than the window, never for less.

The partition's machine calls `find` and `note` when it decides; the log calls `confirm` when the batches are written
and `revert` when the disk was full, both through the producers' states. Bounded by `window_ms` and by `limit`: older
ids, or beyond the limit the oldest, are forgotten.
"""

from collections import OrderedDict

from msgspec import Struct

DEDUP_WINDOW_MS = 120_000
DEDUP_WINDOW_COUNT = 100_000


class Sighting(Struct, frozen=True, array_like=True):
    """A dedup id, the offset of its record, and the time of writing."""

    dedup_id: str
    offset: int
    seen_ms: int


class DedupIndex:
    def __init__(self, window_ms: int = DEDUP_WINDOW_MS, limit: int = DEDUP_WINDOW_COUNT) -> None:
        self._window_ms = window_ms
        self._limit = limit
        self._sightings: OrderedDict[str, Sighting] = OrderedDict()  # oldest first
        self._undo: list[tuple[str, Sighting | None]] = []

    def __len__(self) -> int:
        return len(self._sightings)

    def reconfigure(self, window_ms: int, limit: int) -> None:
        """Change the bounds at once; ids already forgotten stay forgotten."""
        self._window_ms = window_ms
        self._limit = limit

    # -- deciding

    def find(self, dedup_id: str, now_ms: int) -> int | None:
        """Return the offset of the record with this dedup id, if it was written within the window."""
        found = self._sightings.get(dedup_id)
        return found.offset if found is not None and self._is_remembered(found, now_ms) else None

    def _is_remembered(self, sighting: Sighting, now_ms: int) -> bool:
        return now_ms - sighting.seen_ms < self._window_ms

    def note(self, dedup_id: str, offset: int, now_ms: int) -> None:
        """Note the offset that the record with this dedup id gets."""
        self._undo.append((dedup_id, self._sightings.pop(dedup_id, None)))
        self._sightings[dedup_id] = Sighting(dedup_id, offset, now_ms)

    # -- recording

    def confirm(self, now_ms: int) -> None:
        """Confirm that everything noted so far is written, and forget ids beyond the bounds."""
        self._undo.clear()
        while self._sightings:
            oldest = next(iter(self._sightings.values()))
            if len(self._sightings) <= self._limit and self._is_remembered(oldest, now_ms):
                return
            self._sightings.popitem(last=False)

    def revert(self) -> None:
        """Take back everything noted since the last `confirm`: those records were not written."""
        for dedup_id, before in reversed(self._undo):
            del self._sightings[dedup_id]
            if before is not None:
                # The old sighting had expired when this id was noted again: it belongs in front.
                self._sightings[dedup_id] = before
                self._sightings.move_to_end(dedup_id, last=False)
        self._undo.clear()

    # -- snapshots

    def sightings(self) -> list[Sighting]:
        """Return the confirmed sightings, oldest first."""
        fresh = {dedup_id for dedup_id, _ in self._undo}
        return [each for each in self._sightings.values() if each.dedup_id not in fresh]

    def load(self, sightings: list[Sighting]) -> None:
        """Load the sightings of a snapshot."""
        self._sightings = OrderedDict((each.dedup_id, each) for each in sightings)
        self._undo.clear()

    def bound_times(self, now_ms: int) -> None:
        """Limit all times to `now_ms`."""
        for dedup_id, sighting in self._sightings.items():
            if sighting.seen_ms > now_ms:
                self._sightings[dedup_id] = Sighting(dedup_id, sighting.offset, now_ms)

    def replay(self, dedup_id: str, offset: int, now_ms: int) -> None:
        """Note a dedup id that was read back from the log."""
        self.note(dedup_id, offset, now_ms)
        self.confirm(now_ms)

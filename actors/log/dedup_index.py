"""Which identities were written lately, and where: the memory by which a repeated record is recognised.

Pure: no file, no clock. A function of the log but for the times: replaying the marked batches of the log in order gives
the same identities at the same offsets; what is replayed counts as seen at the replay. So a restart may remember an
identity for longer than the window says, never for less.

The partition's machine calls `find` and `note` when it decides; the log calls `confirm` when the batches are written
and `revert` when the disk was full, both by way of the producers' states. Bounded by
`window_ms` and by `limit`: what is older, or beyond the limit the oldest, is forgotten.
"""

from collections import OrderedDict

from msgspec import Struct

DEDUP_WINDOW_MS = 120_000
DEDUP_WINDOW_COUNT = 100_000


class Sighting(Struct, frozen=True, array_like=True):
    """An identity, the offset of its record, and when it was written."""

    dedup_id: str
    offset: int
    seen_ms: int


class DedupIndex:
    def __init__(self, window_ms: int = DEDUP_WINDOW_MS, limit: int = DEDUP_WINDOW_COUNT) -> None:
        self._window_ms = window_ms
        self._limit = limit
        self._sightings: OrderedDict[str, Sighting] = OrderedDict()  # the oldest first
        self._undo: list[tuple[str, Sighting | None]] = []

    def __len__(self) -> int:
        return len(self._sightings)

    def reconfigure(self, window_ms: int, limit: int) -> None:
        """Takes effect at once; what the old bounds have forgotten stays forgotten."""
        self._window_ms = window_ms
        self._limit = limit

    # -- deciding

    def find(self, dedup_id: str, now_ms: int) -> int | None:
        """The offset of the record of this identity, if it was written within the window."""
        found = self._sightings.get(dedup_id)
        return found.offset if found is not None and self._is_remembered(found, now_ms) else None

    def _is_remembered(self, sighting: Sighting, now_ms: int) -> bool:
        return now_ms - sighting.seen_ms < self._window_ms

    def note(self, dedup_id: str, offset: int, now_ms: int) -> None:
        """Its record gets this offset."""
        self._undo.append((dedup_id, self._sightings.pop(dedup_id, None)))
        self._sightings[dedup_id] = Sighting(dedup_id, offset, now_ms)

    # -- recording

    def confirm(self, now_ms: int) -> None:
        """Whatever was noted until now is written; the time to forget what is too old or too much."""
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
                # It was too old to be found, or it would not have been noted anew: its place is in front.
                self._sightings[dedup_id] = before
                self._sightings.move_to_end(dedup_id, last=False)
        self._undo.clear()

    # -- snapshots

    def sightings(self) -> list[Sighting]:
        """What is confirmed, the oldest first."""
        fresh = {dedup_id for dedup_id, _ in self._undo}
        return [each for each in self._sightings.values() if each.dedup_id not in fresh]

    def load(self, sightings: list[Sighting]) -> None:
        """Take over what a snapshot holds."""
        self._sightings = OrderedDict((each.dedup_id, each) for each in sightings)

    def bound_times(self, now_ms: int) -> None:
        """Nothing was seen after now."""
        for dedup_id, sighting in self._sightings.items():
            if sighting.seen_ms > now_ms:
                self._sightings[dedup_id] = Sighting(dedup_id, sighting.offset, now_ms)

    def replay(self, dedup_id: str, offset: int, now_ms: int) -> None:
        """Note what was read back from the log."""
        self.note(dedup_id, offset, now_ms)
        self.confirm(now_ms)

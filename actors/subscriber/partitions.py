"""A subscriber's partitions: which records are held, in which lanes, and each partition's progress. Pure.

    concurrency   lanes of a partition
    1             one for all its records. When a record fails, those with its key move to a lane of their own (a
                  retry lane), until that is empty; so a stuck key blocks only itself
    more          one for each key, or as many as records of a key may be in flight; a record without a key has one of
                  its own

With concurrency 1, records without a key keep the partition's order: None is a key like any other there. At most
RETRY_LANES keys leave the main lane; with more failing at once the main lane waits, and so it does when the partition
is full.

A record is done if it was polled and is no longer held or dropped. The contiguous prefix of done records ends at
`done_offset`; `ahead` lists the done records beyond it, unless the delivery does not record them. A record whose
outputs are not committed yet counts as held.
"""

import itertools
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from ...transport.addresses import TopicPartition
from ...transport.publication import Publication
from .effects import Metadata, Offsets, Record
from .lanes import MAIN, Lane, LaneName
from .outputs import Outputs
from .progress import Ahead, Ranges, beyond, gaps, is_in, to_metadata

HELD_BYTES = 8 * 1024 * 1024
"""Held bytes from which a partition is full, however few its records."""
RETRY_LANES = 100
NOTHING: Mapping[int, Sequence[Publication]] = {}


class Partition:
    def __init__(self, key: TopicPartition, *, records_ahead: bool) -> None:
        self.key = key
        self._records_ahead = records_ahead
        self.lanes: dict[LaneName, Lane] = {}
        self.held_count = 0
        self.held_bytes = 0
        self.committed_offset = 0
        """The committed offset, as far as known here."""
        self.is_paused = False
        self.is_leaving = False
        """True if the partition is being revoked; it goes when its records in progress are finished."""
        self.is_spoiled = False
        """True if the outputs of its records cannot be committed: the records must be handled again."""
        self.outputs = Outputs()
        self._inherited: Ranges = ()
        """The previous owner's progress beyond the committed offset; included in commits until it has been polled."""
        self._inherited_epoch = 0
        self._recorded: Ranges = ()
        """The progress beyond its offset that the last commit recorded."""
        self._leader_epoch = 0
        """The leader epoch of the last polled record."""
        self._polled_end: int | None = None
        self._dropped: list[int] = []
        """Offsets that were held and will not be handled here."""
        self._finished = 0
        self._ordered: tuple[int, int, Ranges] = (0, 0, ())
        """The commit in flight: the number of finished records, the offset and the progress recorded beyond it."""
        self._committed_finished = 0

    def inherit(self, ahead: Ahead) -> None:
        self._inherited = self._recorded = ahead.ranges
        self._inherited_epoch = ahead.leader_epoch

    def took(self, records: Sequence[Record]) -> None:
        if self._polled_end is None:
            self.committed_offset = records[0].offset
        self._polled_end = records[-1].offset + 1
        self._leader_epoch = records[-1].leader_epoch
        self.held_count += len(records)
        self.held_bytes += sum(map(_size_bytes, records))

    def finished(
        self, records: Sequence[Record], published: Mapping[int, Sequence[Publication]] = NOTHING
    ) -> None:
        self._gave_up(records)
        self._finished += len(records)
        if published:
            for record in records:
                if made := published.get(record.offset):
                    self.outputs.keep(record.offset, made)

    def dropped(self, records: Sequence[Record]) -> None:
        self._gave_up(records)
        self._dropped += [record.offset for record in records]

    def _gave_up(self, records: Sequence[Record]) -> None:
        self.held_count -= len(records)
        self.held_bytes -= sum(map(_size_bytes, records))

    def is_full(self, max_records: int) -> bool:
        held_bytes = self.held_bytes + self.outputs.size_bytes
        return self.held_count + len(self.outputs) >= max_records or held_bytes > HELD_BYTES

    def has_room(self, max_records: int) -> bool:
        held_bytes = self.held_bytes + self.outputs.size_bytes
        return self.held_count + len(self.outputs) <= max_records // 2 and held_bytes <= HELD_BYTES // 2

    @property
    def is_busy(self) -> bool:
        return any(lane.is_busy for lane in self.lanes.values())

    @property
    def done_offset(self) -> int | None:
        """Return the offset before which all records are done; None if all of that is committed."""
        if self._finished == self._committed_finished or self._polled_end is None or self.is_spoiled:
            return None
        firsts = [lane.held[0].offset for lane in self.lanes.values() if lane.held]
        offset = min(min(firsts, default=self._polled_end), min(self._dropped, default=self._polled_end))
        return offset if self._records_ahead or offset > self.committed_offset else None

    def ahead(self) -> Ranges:
        """Return the ranges of done records beyond `done_offset`."""
        if self._polled_end is None:
            return ()
        outstanding = [record.offset for lane in self.lanes.values() for record in lane.held]
        first = min(outstanding, default=self._polled_end)
        found: Ranges = ()
        if self._dropped or self._polled_end - first != len(outstanding):
            found = gaps(sorted([*outstanding, *self._dropped]), self._polled_end)
        return found + beyond(self._inherited, self._polled_end)

    def order_commit(self, offset: int) -> tuple[str, list[Publication]]:
        """Return the metadata and the outputs for a commit of this offset."""
        # Recorded progress stays recorded, whichever member made it.
        ahead = self.ahead() if self._records_ahead else beyond(self._recorded, offset)
        # For the previous owner's progress that has not been polled since, its own epoch holds: the earlier one, for
        # all.
        is_seen = self._records_ahead and not beyond(self._inherited, self._polled_end or 0)
        leader_epoch = self._leader_epoch if is_seen else self._inherited_epoch
        text, recorded = to_metadata(offset, ahead, self._recorded, leader_epoch)
        self._ordered = (self._finished, offset, recorded)
        return text, self.outputs.take(offset)

    def was_committed(self) -> list[Lane]:
        """Complete that commit; return the lanes that waited for it."""
        self._committed_finished, self.committed_offset, ahead = self._ordered
        self._recorded = ahead
        self.outputs.drop(self.committed_offset)
        return [lane for lane in self.lanes.values() if self._is_settled(lane, ahead)]

    def _is_settled(self, lane: Lane, ahead: Ranges) -> bool:
        at = lane.settling
        if at is None:
            return False
        return at < self.committed_offset or is_in(at, ahead)


def _size_bytes(record: Record) -> int:
    return len(record.key or b"") + len(record.value or b"")


class Partitions:
    """All partitions, their lanes by number, and the queue of lanes."""

    def __init__(
        self, concurrency: int, *, records_ahead: bool, weights: Mapping[str, int], lanes_per_key: int = 1
    ) -> None:
        self._lanes_per_key = lanes_per_key
        self._weights = {key.encode(): weight for key, weight in weights.items()}
        self._is_by_key = concurrency > 1
        self._records_ahead = records_ahead
        self.owned: dict[TopicPartition, Partition] = {}
        """The partitions assigned to this member."""
        self.at_work: dict[int, Lane] = {}
        """The lanes of these, and lanes of revoked partitions whose held records must still be handled here."""
        self._turns: dict[int, Lane] = {}
        self._same_turn: dict[int, Lane] = {}
        """Lanes whose turn goes on: those of keys with a weight."""
        self._numbers = itertools.count(1)

    def get(self, key: TopicPartition) -> Partition:
        """Return the partition, created if it is new."""
        partition = self.owned.get(key)
        if partition is None:
            partition = self.owned[key] = Partition(key, records_ahead=self._records_ahead)
        return partition

    def of(self, keys: Iterable[TopicPartition]) -> list[Partition]:
        return [self.owned[key] for key in keys if key in self.owned]

    def owner(self, lane: Lane) -> Partition | None:
        """Return the lane's partition, unless it has gone."""
        partition = self.owned.get(lane.key)
        return partition if partition is not None and partition.lanes.get(lane.name) is lane else None

    def with_metadata(self, offsets: Offsets) -> tuple[Offsets, Metadata, tuple[Publication, ...]]:
        """Return the offsets, metadata and outputs of a commit of these offsets."""
        metadata: dict[TopicPartition, str] = {}
        outputs: list[Publication] = []
        for partition in self.of(offsets):
            text, published = partition.order_commit(offsets[partition.key])
            outputs += published
            if text:
                metadata[partition.key] = text
        return offsets, metadata, tuple(outputs)

    def hold(self, partition: Partition, records: Sequence[Record]) -> None:
        """Hold polled records, in their order, to be handled."""
        if not records:
            return
        if not self._is_by_key and partition.lanes.keys() <= {MAIN}:
            lane = partition.lanes.get(MAIN) or self._add(partition, MAIN)
            lane.held.extend(records)
            self.queue(lane)
            return
        for record in records:
            name = self._name_of(partition, record)
            lane = partition.lanes.get(name) or self._add(partition, name)
            lane.held.append(record)
            self.queue(lane)

    def _name_of(self, partition: Partition, record: Record) -> LaneName:
        if not self._is_by_key:
            return record.key if record.key in partition.lanes else MAIN
        if record.key is None:
            return record.offset
        return record.key if self._lanes_per_key == 1 else self._shortest_of(partition, record.key)

    def _shortest_of(self, partition: Partition, key: bytes) -> LaneName:
        """Return the lane of a key with the fewest records."""
        shortest, fewest = 0, None
        for number in range(self._lanes_per_key):
            lane = partition.lanes.get((key, number))
            if lane is None:
                return key, number
            if fewest is None or len(lane.held) < fewest:
                shortest, fewest = number, len(lane.held)
        return key, shortest

    def _add(self, partition: Partition, name: LaneName) -> Lane:
        lane = Lane(next(self._numbers), partition.key, name)
        partition.lanes[name] = self.at_work[lane.number] = lane
        return lane

    def retry_lane(self, lane: Lane) -> None:
        """Move the main lane's failing first record, with the records of its key, to a lane of its own."""
        partition = self.owner(lane)
        if lane.name != MAIN or partition is None or len(partition.lanes) > RETRY_LANES:
            return
        key = lane.held[0].key
        main = Lane(next(self._numbers), lane.key, MAIN)
        main.held = deque(record for record in lane.held if record.key != key)
        lane.held = deque(record for record in lane.held if record.key == key)
        lane.name = key
        partition.lanes[key] = lane
        partition.lanes[MAIN] = self.at_work[main.number] = main
        self.queue(main)

    def clear(self, lane: Lane) -> None:
        """Remove a lane that holds no records."""
        if lane.held or lane.state != "idle":
            return
        partition = self.owner(lane)
        if partition is None or lane.name != MAIN:
            del self.at_work[lane.number]
        if partition is not None and lane.name != MAIN:
            del partition.lanes[lane.name]

    def queue(self, lane: Lane) -> None:
        """Append the lane to the queue, or continue its turn."""
        if lane.held and lane.state == "idle":
            (self._same_turn if lane.turns else self._turns)[lane.number] = lane

    def next(self) -> Lane | None:
        """Return the lane whose turn it is."""
        while self._same_turn or self._turns:
            queue = self._same_turn or self._turns
            lane = queue.pop(next(iter(queue)))
            if lane.held and lane.state == "idle":
                self._note_turn(lane)
                return lane
        return None

    def _note_turn(self, lane: Lane) -> None:
        """Count a record of the lane's turn, which is the first one if none may follow."""
        if lane.turns:
            lane.turns -= 1
        elif self._weights and isinstance(lane.name, bytes):
            lane.turns = self._weights.get(lane.name, 1) - 1

    def next_beside(self, lane: Lane, apart: Mapping[int, object]) -> Lane | None:
        """Return the next lane if it can share a run: it has the same partition, and its first record was never tried."""
        number = next(iter(self._turns), None)
        if number is None:
            return None
        other = self._turns[number]
        if not (other.held and other.state == "idle"):
            return None
        if other.key != lane.key or other.handed or other.held[0].offset in apart:
            return None
        return self._turns.pop(number)

    @property
    def waiting_count(self) -> int:
        """Return the approximate number of queued lanes."""
        return len(self._turns) + len(self._same_turn)

    def ready(self) -> list[Lane]:
        """Return all lanes that could start."""
        lanes = (*self._same_turn.values(), *self._turns.values())
        return [lane for lane in lanes if lane.held and lane.state == "idle"]

    def take(self, lane: Lane) -> Lane:
        """Remove the lane from the queue: its turn begins."""
        self._forget_turn(lane)
        return lane

    def _forget_turn(self, lane: Lane) -> None:
        self._turns.pop(lane.number, None)
        self._same_turn.pop(lane.number, None)

    def remove(self, partitions: list[Partition], *, is_handled_to_the_end: bool) -> None:
        """Remove partitions that are no longer assigned to this member."""
        for partition in partitions:
            del self.owned[partition.key]
            for lane in partition.lanes.values():
                if not (lane.held and is_handled_to_the_end):
                    self._forget_turn(lane)
                    del self.at_work[lane.number]

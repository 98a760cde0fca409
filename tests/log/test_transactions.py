"""Open and aborted transactions: against a plain model, over reverts, snapshots and replay."""

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from keyed_logs import append_keyed, compact, held, seal
from log_batches import NOW_MS, append, open_log, unlimited
from planaria.actors.log.log import PartitionLog
from planaria.actors.log.producers import ProducerStates
from planaria.actors.log.transactions import Transactions, TransactionsSnapshot
from planaria.transport.batch import (
    ABORT_MARKER,
    COMMIT_MARKER,
    CONTROL,
    TRANSACTIONAL,
    BatchHeader,
    is_commit,
    marker,
    parse_header,
    stamp,
)

A, B = 1, 2


def header(
    offset: int,
    producer_id: int = A,
    epoch: int = 0,
    sequence: int = 0,
    count: int = 1,
    end: int | None = None,
) -> BatchHeader:
    """Return the header of a batch of records, or with `end` of a marker."""
    attributes = TRANSACTIONAL if end is None else TRANSACTIONAL | CONTROL
    sequence = sequence if end is None else end
    return BatchHeader(
        offset, 0, 100, 0, 0, 1, attributes, count, NOW_MS, NOW_MS, producer_id, epoch, sequence
    )


def after(*headers: BatchHeader) -> Transactions:
    transactions = Transactions()
    for each in headers:
        transactions.apply(each)
    transactions.confirm()
    return transactions


def test_a_marker_is_one_empty_record_that_says_how_it_ended() -> None:
    for is_committed in (True, False):
        found = parse_header(marker(7, 3, is_committed, NOW_MS))
        assert found.is_control
        assert found.is_transactional
        assert (found.producer_id, found.producer_epoch, found.record_count) == (7, 3, 1)
        assert is_commit(found) is is_committed


def test_the_last_stable_offset_is_where_the_first_open_one_begins() -> None:
    transactions = after(header(10, A), header(11, B, 7), header(12, A, sequence=1))
    assert transactions.last_stable_offset(13) == 10
    transactions.apply(header(13, A, end=ABORT_MARKER))
    assert transactions.last_stable_offset(13) == 10, "the marker is not visible yet"
    assert transactions.last_stable_offset(14) == 11
    transactions.apply(header(14, B, 7, end=COMMIT_MARKER))
    assert transactions.last_stable_offset(15) == 15


def test_readers_are_told_of_the_aborted_ones_they_meet() -> None:
    transactions = after(
        header(10, A),
        header(11, B),
        header(12, A, end=ABORT_MARKER),
        header(13, A, 1),
        header(14, B, end=COMMIT_MARKER),
        header(15, A, 1, end=ABORT_MARKER),
    )
    named = [
        (each.producer_id, each.producer_epoch, each.first_offset)
        for each in transactions.aborted_between(0, 99)
    ]
    assert named == [(A, 0, 10), (A, 1, 13)]
    assert len(transactions.aborted_between(13, 99)) == 1
    assert len(transactions.aborted_between(12, 13)) == 1
    assert transactions.aborted_between(16, 99) == []
    assert transactions.is_aborted(header(10, A))
    assert not transactions.is_aborted(header(11, B))
    assert not transactions.is_aborted(header(16, A, 1))
    transactions.trim(13)
    assert len(transactions.aborted_between(0, 99)) == 1


@given(st.lists(st.tuples(st.integers(1, 4), st.sampled_from([None, None, ABORT_MARKER, COMMIT_MARKER]))))
def test_who_is_met_is_found_without_looking_at_all(steps: list[tuple[int, int | None]]) -> None:
    epochs: Counter[int] = Counter()
    log: list[BatchHeader] = []
    for offset, (producer, end) in enumerate(steps):
        log.append(header(offset, producer, epochs[producer], end=end))
        epochs[producer] += end is not None
    transactions = after(*log)
    aborted = {
        (each.producer_id, each.producer_epoch): each.base_offset
        for each in log
        if each.is_control and not is_commit(each)
    }
    begun: dict[tuple[int, int], int] = {}
    for each in log:
        if not each.is_control:
            key = (each.producer_id, each.producer_epoch)
            begun.setdefault(key, each.base_offset)
            assert transactions.is_aborted(each) == (key in aborted)
    for start in range(len(log)):
        for stop in range(start, len(log) + 1):
            met = {key for key, first in begun.items() if first < stop and aborted.get(key, -1) >= start}
            found = transactions.aborted_between(start, stop)
            assert {(each.producer_id, each.producer_epoch) for each in found} == met


def test_few_are_looked_at_however_many_were_aborted() -> None:
    count = 1_000
    transactions = after(
        *(
            found
            for epoch in range(count)
            for found in (header(2 * epoch, A, epoch), header(2 * epoch + 1, A, epoch, end=ABORT_MARKER))
        )
    )
    looked_at = CountedRows(transactions._aborted)
    transactions._aborted = looked_at
    assert len(transactions.aborted_between(100, 110)) == 5
    assert not transactions.is_aborted(header(100, B))
    assert looked_at.count < 40


class CountedRows(list[Any]):
    """Counts the accesses to its rows."""

    count = 0

    def __getitem__(self, at: Any) -> Any:
        self.count += 1 if isinstance(at, int) else count_of(at, len(self))
        return super().__getitem__(at)


def count_of(rows: slice, length: int) -> int:
    return len(range(*rows.indices(length)))


def test_a_snapshot_that_says_less_is_read() -> None:
    """Snapshots from before the stable offset was recorded."""
    rows = [[12, 10, A, 0], [15, 13, A, 1]]
    transactions = Transactions()
    transactions.load(msgspec.convert([[], rows], TransactionsSnapshot))
    assert [each.first_offset for each in transactions.aborted_between(0, 99)] == [10, 13]
    assert transactions.is_aborted(header(10, A))


def test_the_next_transaction_may_begin_before_the_marker_of_the_last() -> None:
    transactions = after(header(10, A, 0), header(11, A, 1), header(12, A, 0, end=COMMIT_MARKER))
    assert transactions.last_stable_offset(13) == 11


@given(st.data())
def test_state_is_a_function_of_the_log(data: st.DataObject) -> None:
    """For any history of writes, reverts, snapshots and replays from any snapshot."""
    states = ProducerStates()
    log: list[BatchHeader] = []
    snapshots: list[tuple[int, bytes]] = [(0, states.encode(0))]
    epochs = {A: 0, B: 0}
    sequences = {A: 0, B: 0}
    for _ in range(data.draw(st.integers(1, 25))):
        turn: list[BatchHeader] = []
        before = dict(epochs), dict(sequences)
        for _ in range(data.draw(st.integers(1, 3))):
            producer = data.draw(st.sampled_from([A, B]))
            offset = (turn or log)[-1].next_offset if turn or log else 0
            end = data.draw(st.sampled_from([None, None, ABORT_MARKER, COMMIT_MARKER]))
            if end is None:
                found = header(offset, producer, epochs[producer], sequences[producer], count=2)
                states.check(found)
                sequences[producer] += 2
            else:
                found = header(offset, producer, epochs[producer], end=end)
                epochs[producer] += 1
                sequences[producer] = 0
            states.apply(found)
            turn.append(found)
        if data.draw(st.booleans()):
            states.confirm(turn, NOW_MS)
            log += turn
        else:
            states.encode(log[-1].next_offset if log else 0)
            states.revert()
            epochs, sequences = before
        end_offset = log[-1].next_offset if log else 0
        if data.draw(st.booleans()):
            snapshots.append((end_offset, states.encode(end_offset)))
        assert states.transactions.open() == expected_open(log)
    offset, snapshot = data.draw(st.sampled_from(snapshots))
    replayed = ProducerStates()
    assert replayed.load(snapshot, offset)
    replayed.replay(((each, None, ()) for each in log if each.base_offset >= offset), NOW_MS)
    end_offset = log[-1].next_offset if log else 0
    assert replayed.transactions.open() == expected_open(log)
    assert replayed.transactions.aborted_between(0, 10**9) == states.transactions.aborted_between(0, 10**9)
    assert replayed.transactions.last_stable_offset(end_offset) == states.transactions.last_stable_offset(
        end_offset
    )
    for producer in (A, B):
        mine, its = states.get(producer), replayed.get(producer)
        assert (mine and (mine.epoch, mine.batches)) == (its and (its.epoch, its.batches))


def expected_open(log: list[BatchHeader]) -> dict[tuple[int, int], int]:
    found: dict[tuple[int, int], int] = {}
    for each in log:
        key = (each.producer_id, each.producer_epoch)
        if each.is_control:
            found.pop(key, None)
        else:
            found.setdefault(key, each.base_offset)
    return found


def test_who_has_a_transaction_open_is_not_forgotten() -> None:
    states = ProducerStates(limit=2, expiry_ms=10)
    for number, producer in enumerate((A, 5, 6, 7)):
        one = header(number, producer)
        if producer != A:
            one = one._replace(attributes=0)
        states.apply(one, NOW_MS)
        states.confirm([one], NOW_MS)
    states.expire(NOW_MS + 100)
    assert states.get(A) is not None
    assert len(states) == 1


def append_marker(log: PartitionLog, producer_id: int, epoch: int, is_committed: bool) -> None:
    frame = marker(producer_id, epoch, is_committed, NOW_MS)
    stamped = bytes(stamp(frame, log.log_end_offset, max(0, log.last_leader_epoch)))
    log.append([stamped], [parse_header(stamped)], NOW_MS)


def test_compaction_drops_what_was_aborted_and_waits_for_what_is_open(tmp_path: Path) -> None:
    fields = {"attributes": TRANSACTIONAL, "producer_id": A, "base_sequence": 0}
    log = PartitionLog.open(
        tmp_path, unlimited(is_deleting=False, is_compacting=True, min_cleanable_ratio=0.0), NOW_MS
    )
    append_keyed(log, [(b"k", b"old"), (b"j", b"old")])
    append_keyed(log, [(b"k", b"aborted")], producer_epoch=0, **fields)
    append_marker(log, A, 0, is_committed=False)
    append_keyed(log, [(b"j", b"committed")], producer_epoch=1, **fields)
    append_marker(log, A, 1, is_committed=True)
    sealed_below = log.log_end_offset
    append_keyed(log, [(b"k", b"open")], producer_epoch=2, **fields)
    seal(log)
    assert not compact(log), "the segment has records whose end is not known"
    append_marker(log, A, 2, is_committed=False)
    seal(log)
    assert compact(log)
    left = {offset: record for offset, record in held(log).items() if record[0] in (b"k", b"j")}
    assert left == {0: (b"k", b"old"), 4: (b"j", b"committed")}
    assert sealed_below == 6
    log.close()


def test_no_marker_is_found_by_time(tmp_path: Path) -> None:
    """Old data loaded in transactions: the markers have the time of the load. Aborted records have no time either."""
    log = open_log(tmp_path, segment_bytes=300)
    for load in range(6):
        for time in (1_000 + load * 10, 1_005 + load * 10):
            append(log, [b"x"], timestamps_ms=[time], producer_id=A, producer_epoch=load, base_sequence=0,
                   attributes=TRANSACTIONAL)  # fmt: skip
            if time % 10 == 0:
                continue
            end = marker(A, load, load % 2 == 0, NOW_MS)
            log.append([stamped := bytes(stamp(end, log.log_end_offset, 0))], [parse_header(stamped)], NOW_MS)
    for _ in range(2):
        assert log.offset_for_timestamp(1_001) == (1, 1_005)
        assert log.offset_for_timestamp(1_006) == (3, 1_010)
        assert log.offset_for_timestamp(1_006, is_committed=True) == (6, 1_020)
        assert log.offset_for_timestamp(1_055, is_committed=True) is None
        assert log.offset_for_timestamp(1_056) is None
        log.close()
        log = open_log(tmp_path, segment_bytes=300)
    log.close()

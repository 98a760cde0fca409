"""Records delivered to a program: contiguous, verified, of its own partitions and of the present epoch only."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, structs

from planaria.transport.batch import CONTROL, TRANSACTIONAL, build, stamp
from planaria.transport.client.errors import CorruptData, NoOffset, OffsetOutOfRange
from planaria.transport.client.fetching import Chunk, Consumed, GaveUp, Located, Trouble
from planaria.transport.client.reader import Reader
from planaria.transport.protocol.errors import ErrorBody, ErrorCode
from planaria.transport.protocol.groups import PartitionOffset

P, Q = ("A", 0), ("A", 1)


def batch(first: int, count: int, attributes: int = 0, **producer: int) -> bytes:
    records = [(None, b"%d" % offset, 0, None) for offset in range(first, first + count)]
    frame = build(records, first_timestamp_ms=5, max_timestamp_ms=5, attributes=attributes, **producer)
    return bytes(stamp(frame, first, 0))


def chunk(reader: Reader, tp: tuple[str, int], *frames: bytes, next_offset: int = -1) -> Chunk:
    size = sum(map(len, frames))
    return Chunk(tp, reader.epochs()[tp], tuple(frames), size, next_offset)


def reader_at(offset: int, *tps: tuple[str, int]) -> Reader:
    reader = Reader()
    for tp, epoch in reader.add(tps or (P,)).items():
        reader.accept(Located(tp, epoch, offset))
    return reader


def offsets(reader: Reader, count: int = 100) -> list[int]:
    return [message.offset for message in reader.take(count)]


def test_messages_come_in_slices_and_the_position_follows() -> None:
    reader = reader_at(0)
    reader.accept(chunk(reader, P, batch(0, 5), batch(5, 5), next_offset=10))
    assert offsets(reader, 3) == [0, 1, 2]
    assert reader.position(P) == 3
    assert offsets(reader, 4) == [3, 4, 5, 6]
    assert offsets(reader) == [7, 8, 9]
    assert reader.position(P) == 10
    assert offsets(reader) == []


def test_several_batches_in_one_frame() -> None:
    reader = reader_at(0)
    reader.accept(chunk(reader, P, batch(0, 2) + batch(2, 2), next_offset=4))
    assert offsets(reader) == [0, 1, 2, 3]


def test_the_first_batch_may_begin_before_the_position() -> None:
    reader = reader_at(7)
    reader.accept(chunk(reader, P, batch(0, 5), batch(5, 5), next_offset=10))
    assert offsets(reader) == [7, 8, 9]


def test_control_batches_and_gaps_are_passed_over() -> None:
    reader = reader_at(0)
    reader.accept(chunk(reader, P, batch(0, 2), batch(2, 1, CONTROL), batch(8, 1), next_offset=12))
    assert offsets(reader) == [0, 1, 8]
    assert reader.position(P) == 12


def test_a_chunk_without_batches_moves_the_position() -> None:
    reader = reader_at(0)
    reader.accept(chunk(reader, P, next_offset=4))
    reader.accept(chunk(reader, P, batch(6, 1), next_offset=7))
    assert offsets(reader) == [6]
    reader.accept(chunk(reader, P, next_offset=9))
    assert offsets(reader) == []
    assert reader.position(P) == 9


def test_aborted_records_are_passed_over_where_the_broker_names_them() -> None:
    def written(first: int, by: int, epoch: int = 0) -> bytes:
        producer = {"producer_id": by, "producer_epoch": epoch, "base_sequence": 0}
        return batch(first, 2, TRANSACTIONAL, **producer)

    frames = (written(0, by=7), written(2, by=8), batch(4, 2), written(6, by=7, epoch=1))
    reader = reader_at(0)
    reader.accept(structs.replace(chunk(reader, P, *frames, next_offset=8), aborted=frozenset({(7, 0)})))
    assert offsets(reader) == [2, 3, 4, 5, 6, 7]
    reader.accept(chunk(reader, P, written(8, by=7), next_offset=10))
    assert offsets(reader) == [8, 9], "and only there"


def test_chunks_are_reported_as_consumed_when_opened() -> None:
    reader = reader_at(0)
    reader.accept(chunk(reader, P, batch(0, 2), next_offset=2))
    assert reader.take_events() == []
    offsets(reader, 1)
    assert reader.take_events() == [Consumed(P, reader.epochs()[P], len(batch(0, 2)))]


def test_nothing_of_a_partition_that_is_not_owned() -> None:
    reader = reader_at(0, P, Q)
    mine = chunk(reader, P, batch(0, 1), next_offset=1)
    late = chunk(reader, Q, batch(0, 1), next_offset=1)
    reader.accept(late)
    reader.remove([Q])
    reader.accept(late)
    reader.accept(mine)
    assert [(message.partition, message.offset) for message in reader.take(10)] == [(0, 0)]


def test_nothing_from_before_a_seek() -> None:
    reader = reader_at(0)
    old = chunk(reader, P, batch(0, 5), next_offset=5)
    reader.accept(old)
    offsets(reader, 2)
    reader.seek(P, 40)
    reader.accept(old)
    assert offsets(reader) == []
    assert reader.position(P) == 40
    reader.accept(chunk(reader, P, batch(40, 1), next_offset=41))
    assert offsets(reader) == [40]


def test_nothing_from_before_a_partition_came_back() -> None:
    reader = reader_at(0)
    old = chunk(reader, P, batch(0, 5), next_offset=5)
    reader.remove([P])
    reader.add([P])
    reader.accept(old)
    assert offsets(reader) == []


def test_a_paused_partition_keeps_its_messages() -> None:
    reader = reader_at(0, P, Q)
    reader.accept(chunk(reader, P, batch(0, 1), next_offset=1))
    reader.accept(chunk(reader, Q, batch(0, 1), next_offset=1))
    reader.set_paused(P, True)
    assert [message.partition for message in reader.take(10)] == [1]
    reader.set_paused(P, False)
    assert [message.partition for message in reader.take(10)] == [0]


def test_partitions_take_turns() -> None:
    reader = reader_at(0, P, Q)
    for first in (0, 2):
        for tp in (P, Q):
            reader.accept(chunk(reader, tp, batch(first, 2), next_offset=first + 2))
    assert {message.partition for message in reader.take(2)} == {0}
    assert sorted(message.offset for message in reader.take(100)) == [0, 1, 2, 2, 3, 3]


def test_what_is_given_back_comes_again() -> None:
    reader = reader_at(0)
    reader.accept(chunk(reader, P, batch(0, 5), next_offset=5))
    taken = reader.take(4)
    reader.give_back(taken[1:], reader.epochs())
    assert reader.position(P) == 1
    assert offsets(reader) == [1, 2, 3, 4]


def test_what_is_given_back_after_a_seek_is_dropped() -> None:
    reader = reader_at(0)
    reader.accept(chunk(reader, P, batch(0, 5), next_offset=5))
    epochs = reader.epochs()
    taken = reader.take(4)
    reader.seek(P, 9)
    reader.give_back(taken, epochs)
    assert reader.position(P) == 9
    assert offsets(reader) == []


@pytest.mark.parametrize("position", [30, 70, 2], ids=["body", "records", "head"])
def test_damage_is_named_and_what_precedes_it_is_delivered(position: int) -> None:
    damaged = bytearray(batch(5, 5))
    damaged[position] ^= 1
    reader = reader_at(0)
    reader.accept(chunk(reader, P, batch(0, 5), bytes(damaged), next_offset=10))
    assert offsets(reader) == [0, 1, 2, 3, 4]
    for _ in range(2):
        assert offsets(reader) == []
        with pytest.raises(CorruptData, match="A/0 at offset 5"):
            reader.raise_trouble()
    reader.seek(P, 10)
    reader.raise_trouble()


def test_data_fetched_before_an_error_is_handed_out_first() -> None:
    reader = reader_at(0)
    reader.accept(chunk(reader, P, batch(0, 3), next_offset=3))
    reader.accept(Trouble(P, reader.epochs()[P], 3, ErrorBody(ErrorCode.CORRUPT_LOG, "why")))
    reader.raise_trouble()
    assert offsets(reader, 2) == [0, 1]
    reader.raise_trouble()
    assert offsets(reader) == [2]
    with pytest.raises(CorruptData):
        reader.raise_trouble()


def test_an_error_is_raised_although_other_partitions_have_data() -> None:
    reader = reader_at(0, P, Q)
    reader.accept(Trouble(P, reader.epochs()[P], 0, ErrorBody(ErrorCode.CORRUPT_LOG, "why")))
    reader.accept(chunk(reader, Q, batch(0, 3), next_offset=3))
    with pytest.raises(CorruptData):
        reader.raise_trouble(is_new=True)
    reader.raise_trouble(is_new=True)
    reader.raise_trouble(Q)
    assert offsets(reader) == [0, 1, 2]
    with pytest.raises(CorruptData):
        reader.raise_trouble()


def test_an_error_that_is_raised_again_and_again_does_not_grow() -> None:
    reader = reader_at(0)
    reader.accept(Trouble(P, reader.epochs()[P], 0, ErrorBody(ErrorCode.CORRUPT_LOG, "why")))
    depths = []
    for _ in range(3):
        with pytest.raises(CorruptData) as raised:
            reader.raise_trouble()
        depths.append(len(raised.traceback))
    assert depths == [depths[0]] * 3


def test_nothing_behind_damage_is_kept_or_handed_out() -> None:
    damaged = bytearray(batch(0, 5))
    damaged[70] ^= 1
    reader = reader_at(0)
    reader.accept(chunk(reader, P, bytes(damaged), next_offset=5))
    assert offsets(reader) == []
    assert GaveUp(P, reader.epochs()[P]) in reader.take_events()
    reader.accept(chunk(reader, P, batch(5, 5), next_offset=10))
    reader.accept(Located(P, reader.epochs()[P], 7))
    assert offsets(reader) == []
    for _ in range(2):
        with pytest.raises(CorruptData, match="A/0 at offset 0"):
            reader.raise_trouble()


def test_a_new_location_takes_effect_behind_the_data_before_it() -> None:
    reader = reader_at(5)
    reader.accept(chunk(reader, P, batch(5, 5), next_offset=10))
    reader.accept(Located(P, reader.epochs()[P], 0))  # the log starts again
    reader.accept(chunk(reader, P, batch(0, 3), next_offset=3))
    assert offsets(reader) == [5, 6, 7, 8, 9], "what one call hands out belongs to one location"
    assert offsets(reader) == [0, 1, 2]
    assert reader.position(P) == 3
    reader.accept(Located(P, reader.epochs()[P], 0))
    reader.accept(chunk(reader, P, batch(0, 3), next_offset=3))
    assert offsets(reader) == [0, 1, 2]


def test_trouble_has_plain_names() -> None:
    for code, kind in (
        ("NO_OFFSET", NoOffset),
        (ErrorCode.OFFSET_OUT_OF_RANGE, OffsetOutOfRange),
        ("CORRUPT_LOG", CorruptData),
    ):
        reader = reader_at(0)
        reader.accept(Trouble(P, reader.epochs()[P], 3, ErrorBody(code, "why")))
        with pytest.raises(kind, match="A/0"):
            reader.raise_trouble()


def test_whole_batches_are_handed_out_undecoded() -> None:
    reader = reader_at(0)
    reader.accept(chunk(reader, P, batch(0, 5), batch(5, 5), next_offset=10))
    taken = reader.take_batches(10)
    assert [item.header.base_offset for item in taken] == [0, 5]
    assert reader.position(P) == 10


def test_a_new_location_changes_nothing_of_what_is_given_back() -> None:
    reader = reader_at(5)
    reader.accept(structs.replace(chunk(reader, P, batch(5, 5), next_offset=10), topic_id="old"))
    taken = reader.take(10)
    reader.accept(Located(P, reader.epochs()[P], 0, "new"))
    reader.give_back(taken[2:], reader.epochs())
    assert (reader.position(P), reader.origin(P)[0]) == (7, "old")
    reader.accept(structs.replace(chunk(reader, P, batch(0, 3), next_offset=3), topic_id="new"))
    assert offsets(reader) == [7, 8, 9]
    assert offsets(reader) == [0, 1, 2]
    assert reader.origin(P)[0] == "new"


def test_what_was_read_before_damage_can_be_given_back_and_taken_whole() -> None:
    damaged = bytearray(batch(5, 5))
    damaged[70] ^= 1
    reader = reader_at(0)
    reader.accept(chunk(reader, P, batch(0, 5), bytes(damaged), next_offset=10))
    reader.give_back(reader.take(100)[2:], reader.epochs())
    [whole] = reader.take_batches(10)
    assert (whole.header.base_offset, reader.position(P)) == (0, 5)
    with pytest.raises(CorruptData):
        reader.raise_trouble()


def test_a_commit_names_the_leader_epoch_of_what_was_read_and_of_nothing_else() -> None:
    reader = Reader()
    [(tp, epoch)] = reader.add((P,)).items()
    reader.accept(Located(tp, epoch, 0, leader_epoch=2))
    for first, leader_epoch in ((0, 2), (5, 4)):
        data = chunk(reader, P, batch(first, 5), next_offset=first + 5)
        reader.accept(structs.replace(data, leader_epoch=leader_epoch))

    def stamp(offset: int) -> Any:
        return reader.stamped(PartitionOffset(*P, offset)).leader_epoch

    assert stamp(0) == 2
    reader.take(5)
    assert (stamp(5), stamp(6)) == (2, UNSET)
    reader.take(3)
    assert (stamp(5), stamp(8)) == (4, 4), "an epoch that was read from later says no less"
    reader.seek(P, 3)
    assert stamp(3) is UNSET


SIZES = st.lists(st.integers(1, 4), min_size=1, max_size=8)
CALLS = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.integers(1, 6)),
        st.tuples(st.just("iterate"), st.integers(1, 6), st.integers(0, 6)),
        st.tuples(st.just("batches"), st.integers(1, 3)),
        st.tuples(st.just("seek"), st.integers(0, 32)),
        st.tuples(st.just("pause")),
    ),
    max_size=12,
)


@given(sizes=SIZES, left_out=st.sets(st.integers(0, 7)), cuts=st.sets(st.integers(1, 7)), calls=CALLS)
def test_calls_of_all_kinds_skip_nothing_and_repeat_nothing(
    sizes: list[int], left_out: set[int], cuts: set[int], calls: list[Any]
) -> None:
    """Iterations, polls and polls for batches, in any order, with seeks between them, read one log."""
    frames: list[tuple[int, bytes]] = []
    visible: list[int] = []
    end = 0
    for number, size in enumerate(sizes):
        frames.append((end, batch(end, size, CONTROL if number in left_out else 0)))
        visible += [] if number in left_out else range(end, end + size)
        end += size
    reader = reader_at(0)

    def fetch_from(offset: int) -> None:
        part: list[bytes] = []
        for number, (_, frame) in enumerate(frames):
            after = frames[number + 1][0] if number + 1 < len(frames) else end
            if after > offset:
                part.append(frame)
            if part and (after == end or number + 1 in cuts):
                reader.accept(chunk(reader, P, *part, next_offset=after))
                part = []

    fetch_from(0)
    at = 0
    for kind, *arguments in [*calls, ("iterate", 100, 100)]:
        due = [offset for offset in visible if offset >= at]
        if kind in ("take", "iterate"):
            taken = reader.take(arguments[0])
            assert [message.offset for message in taken] == due[: arguments[0]]
            read = len(taken) if kind == "take" else min(arguments[1], len(taken))
            reader.give_back(taken[read:], reader.epochs())
            at = taken[read - 1].offset + 1 if read else at
        elif kind == "batches":
            found = [item.header for item in reader.take_batches(arguments[0])]
            whole = [at for header in found for at in range(header.base_offset, header.next_offset)]
            read = [offset for offset in whole if offset >= at]
            assert read == due[: len(read)]
            assert len(found) == arguments[0] or read == due, "no more only at the end"
            at = found[-1].next_offset if found else at
        elif kind == "seek":
            at = min(arguments[0], end)
            reader.seek(P, at)
            fetch_from(at)
        else:
            reader.set_paused(P, True)
            assert reader.take(5) == reader.take_batches(5) == []
            reader.set_paused(P, False)
        assert [offset for offset in visible if offset >= (reader.position(P) or 0)] == [
            offset for offset in visible if offset >= at
        ]

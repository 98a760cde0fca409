"""Divergence of a log from its reader's view: random histories of appends, losses and compaction."""

from typing import NamedTuple

from hypothesis import example, given
from hypothesis import strategies as st

from planaria.actors.partition.divergence import divergence
from planaria.transport.batch import BatchHeader, build, parse_header, stamp


class Reader(NamedTuple):
    position: int
    leader_epoch: int
    seen: list[BatchHeader]


def append(log: list[BatchHeader], count: int, leader_epoch: int) -> None:
    records = [(None, b"x", 0, None)] * count
    frame = build(records, first_timestamp_ms=0, max_timestamp_ms=0)
    log.append(parse_header(stamp(frame, log[-1].next_offset if log else 0, leader_epoch)))


def find(log: list[BatchHeader], reader: Reader, start: int, end: int) -> int | None:
    def header_at(offset: int) -> BatchHeader | None:
        return next((header for header in log if header.next_offset > offset), None)

    return divergence(header_at, start, end, reader.position, reader.leader_epoch)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 3)),
        st.tuples(st.just("read"), st.integers(0, 9)),
        st.tuples(st.just("cut"), st.integers(0, 3)),
        st.tuples(st.just("restart"), st.just(0)),
    ),
    max_size=30,
)


@example(
    steps=[*[("append", 1)] * 3, ("read", 0), ("cut", 3), ("append", 1), ("append", 1)],
    compacted={1},
    start=0,
).via("the last records before the reader's position are compacted")
@example(
    steps=[("append", 2), ("read", 0), ("cut", 1), ("append", 1), ("append", 2)], compacted=set(), start=2
).via("the log starts in the middle of a batch, at the reader's position")
@given(steps=STEPS, compacted=st.sets(st.integers(0, 30)), start=st.integers(0, 5))
def test_readers_find_the_first_record_that_is_another_one(
    steps: list[tuple[str, int]], compacted: set[int], start: int
) -> None:
    log: list[BatchHeader] = []
    readers: list[Reader] = []
    leader_epoch = 0
    for kind, number in steps:
        if kind == "append":
            append(log, number, leader_epoch)
        elif kind == "read":
            seen = log[: len(log) - number] if number < len(log) else log
            readers.append(Reader(seen[-1].next_offset if seen else 0, leader_epoch, list(seen)))
        else:
            leader_epoch += 1
            del log[len(log) - min(number, len(log)) :]
    end = log[-1].next_offset if log else 0
    start = min(start, end)
    for reader in readers:
        same = 0
        for ours, theirs in zip(log, reader.seen, strict=False):
            if ours != theirs:
                break
            same = ours.next_offset
        expected = None if same >= reader.position else max(same, start)
        if reader.position <= start:
            expected = None
        assert find(log, reader, start, end) == expected
        kept = [header for number, header in enumerate(log) if number not in compacted]
        found = find(kept, reader, start, end)
        # The epochs of compacted records are unknown: the first remaining one decides.
        remaining = [
            max(header.base_offset, start)
            for header in kept
            if header.leader_epoch > reader.leader_epoch and header.next_offset > start
        ]
        remaining = [offset for offset in remaining if offset < min(reader.position, end)]
        assert found == (remaining[0] if remaining else end if reader.position > end else None)
        assert found is None or (expected is not None and expected <= found)

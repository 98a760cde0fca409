"""The versions of keys are a function of the log: of its committed records, and of nothing that was taken back."""

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from log_batches import NOW_MS, abandon, unlimited
from planaria.actors.log.key_map import name_of
from planaria.actors.log.key_versions import NO_VERSION, KeyVersions, writes_of
from planaria.actors.log.log import PartitionLog
from planaria.actors.log.producers import ProducerStates
from planaria.transport.batch import TRANSACTIONAL, BatchHeader, build, is_commit, marker, parse_header, stamp

KEYS = (b"a", b"b", b"c" * 40)
PRODUCERS = (1 << 50, (1 << 50) + 1)

Written = tuple[BatchHeader, bytes]


class Log:
    """Batches of records, transactions and markers, as a leader would place them."""

    def __init__(self) -> None:
        self.batches: list[Written] = []
        self.end_offset = 0
        self.epochs = dict.fromkeys(PRODUCERS, 0)

    def append(self, action: tuple[Any, ...]) -> Written:
        match action:
            case ("plain", records):
                frame = build(rows(records), first_timestamp_ms=1, max_timestamp_ms=1)
            case ("transactional", producer, records):
                frame = build(
                    rows(records),
                    first_timestamp_ms=1,
                    max_timestamp_ms=1,
                    producer_id=producer,
                    producer_epoch=self.epochs[producer],
                    base_sequence=0,
                    attributes=TRANSACTIONAL,
                )
            case ("end", producer, is_committed):
                frame = marker(producer, self.epochs[producer], is_committed, 1)
                self.epochs[producer] += 1
        frame = bytes(stamp(bytearray(frame), self.end_offset, 0))
        header = parse_header(frame)
        self.end_offset = header.next_offset
        self.batches.append((header, frame))
        return header, frame

    def committed(self) -> dict[bytes, int]:
        """Return the offset of each key's last record, as a reader of committed records sees it in the end."""
        ends = {
            (header.producer_id, header.producer_epoch): is_commit(header)
            for header, _ in self.batches
            if header.is_control
        }
        found: dict[bytes, int] = {}
        for header, frame in self.batches:
            is_committed = ends.get((header.producer_id, header.producer_epoch), False)
            if header.is_control or (header.is_transactional and not is_committed):
                continue
            for write in writes_of(frame, header):
                found[write.name] = NO_VERSION if write.is_deleted else header.base_offset + write.position
        return found


def rows(records: list[tuple[bytes, bool]]) -> list[Any]:
    return [(key, None if is_deleted else b"v", 0, None) for key, is_deleted in records]


records = st.lists(st.tuples(st.sampled_from(KEYS), st.booleans()), min_size=1, max_size=3)
producers = st.sampled_from(PRODUCERS)
actions = st.one_of(
    st.tuples(st.just("plain"), records),
    st.tuples(st.just("transactional"), producers, records),
    st.tuples(st.just("end"), producers, st.booleans()),
)


def versions_in(index: KeyVersions) -> dict[bytes, int]:
    return {key: index.version_of(name_of(key)) for key in KEYS}


@given(st.lists(st.tuples(actions, st.sampled_from(["confirm", "wait", "revert"])), max_size=25))
def test_versions_are_those_of_the_log(steps: list[tuple[tuple[Any, ...], str]]) -> None:
    log, states = Log(), ProducerStates()
    index = states.key_versions
    index.is_kept = True
    confirmed = 0
    for action, end in steps:
        header, frame = log.append(action)
        index.note(header, writes_of(frame, header))
        if end == "confirm":
            index.confirm()
            confirmed = len(log.batches)
        elif end == "revert":
            index.revert()
            del log.batches[confirmed:]
            log.end_offset = log.batches[-1][0].next_offset if log.batches else 0
        loaded = ProducerStates()
        assert loaded.load(states.encode(log.end_offset), log.end_offset)
        replayed = KeyVersions()
        for each, data in log.batches[:confirmed]:
            replayed.note(each, writes_of(data, each))
        assert versions_in(loaded.key_versions) == versions_in(replayed)
    open_now = {transaction for transaction, written in index._unsettled.items() if written}
    for producer, epoch in sorted(open_now):
        log.epochs[producer] = epoch
        header, frame = log.append(("end", producer, True))
        index.note(header, ())
    expected = {key: log.committed().get(name_of(key), NO_VERSION) for key in KEYS}
    assert versions_in(index) == expected
    index.confirm()
    index.trim(0)
    assert versions_in(index) == expected
    assert len(index) == sum(version != NO_VERSION for version in expected.values())


def test_records_below_the_start_of_the_log_are_none() -> None:
    log, index = Log(), KeyVersions()
    for action in (("plain", [(b"a", False)]), ("plain", [(b"b", False)])):
        header, frame = log.append(action)
        index.note(header, writes_of(frame, header))
    index.trim(1)
    assert (index.version_of(b"a"), index.version_of(b"b")) == (NO_VERSION, 1)


def test_a_log_that_is_opened_again_or_cut_has_the_versions_of_its_records(tmp_path: Path) -> None:
    config = replace(unlimited(segment_bytes=300), keeps_key_versions=True)

    def versions(log: PartitionLog) -> list[int]:
        return [log.producers.key_versions.version_of(b"k%d" % number) for number in range(3)]

    log = PartitionLog.open(tmp_path, config, NOW_MS)
    for offset in range(20):
        frame = build([(b"k%d" % (offset % 3), b"v" * 20, 0, None)], first_timestamp_ms=1, max_timestamp_ms=1)
        frame = bytes(stamp(bytearray(frame), offset, 0))
        header = parse_header(frame)
        log.producers.key_versions.note(header, writes_of(frame, header))
        log.append([frame], [header], NOW_MS)
        if offset == 15:
            log.checkpoint()
    abandon(log)
    log = PartitionLog.open(tmp_path, config, NOW_MS)
    assert versions(log) == [18, 19, 17]
    log.truncate_to(10, NOW_MS)
    assert versions(log) == [9, 7, 8]
    abandon(log)
    log = PartitionLog.open(tmp_path, config, NOW_MS)
    assert versions(log) == [9, 7, 8]
    log.reset_to(50, NOW_MS)
    assert versions(log) == [NO_VERSION] * 3
    log.close()

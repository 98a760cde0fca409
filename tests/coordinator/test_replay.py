"""Recovery: the replay, the take-over, the snapshot; and the process around them, with simulated answers."""

from pathlib import Path
from typing import Any

import pytest

from planaria.actors.coordinator import machine as machine_module
from planaria.actors.coordinator.offsets import CommittedOffset
from planaria.actors.coordinator.process import snapshot_path
from planaria.actors.coordinator.records import Change, OffsetKey, StartKey, encode
from planaria.actors.coordinator.snapshot import decode_snapshot
from planaria.actors.journal.identity import STARTS_PER_ID, Start, closing_identity, identity_of, start_of
from planaria.actors.journal.replay import InvalidRecord, ReplayFailed, ReplayFetchCall
from planaria.actors.log.errors import StorageFull
from planaria.actors.log.files import Files
from planaria.transport.addresses import coordinator_address
from planaria.transport.batch import build, parse_header
from planaria.transport.machine import Answered, Failed, StopRequested
from planaria.transport.protocol.data import Fetch, Produce
from planaria.transport.protocol.errors import ErrorBody, ErrorCode
from planaria.transport.protocol.groups import (
    CommitOffsets,
    DeleteGroup,
    FetchOffsets,
    GroupHeartbeat,
    PartitionOffset,
)
from simulated_group import GROUP, PARTITION, SimulatedGroup, SimulatedMember, converge

ADDRESS = coordinator_address(GROUP)


def commit(group: SimulatedGroup, offset: int) -> Any:
    offsets = [PartitionOffset("ORDERS", 0, offset)]
    return group.request("x", CommitOffsets(group=group.group, offsets=offsets))


def committed(group: SimulatedGroup) -> int:
    [found] = group.request("x", FetchOffsets(group=group.group)).offsets
    return found.offset


def test_a_new_group_takes_its_partition_over_with_a_start_record() -> None:
    group = SimulatedGroup().run()
    [batch] = group.log.batches
    header = parse_header(batch)
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (*identity_of(ADDRESS, 0), 0)
    assert header.producer_id >> 62 == 1
    assert header.producer_id < 2**63


def test_each_incarnation_writes_under_a_higher_epoch() -> None:
    group = SimulatedGroup().run()
    for number in range(3):
        commit(group, number)
        group.crash(is_append_durable=False)
        group.drain()
    assert [parse_header(batch).producer_epoch for batch in group.log.batches] == [0, 0, 1, 1, 2, 2, 3]
    assert committed(group) == 2


def test_requests_before_the_end_of_the_replay_are_refused_as_retriable() -> None:
    group = SimulatedGroup()
    group.start()
    number = group.ask("x", GroupHeartbeat(group=GROUP, topics=["ORDERS"]))
    body = group.answer_of(number)
    assert (body.code, body.retriable) == (ErrorCode.ACTOR_UNAVAILABLE, True)


@pytest.mark.parametrize("is_durable", [True, False])
def test_an_append_on_its_way_at_the_crash_counts_or_not_but_never_half(is_durable: bool) -> None:
    group = SimulatedGroup().run()
    member = SimulatedMember(group, "a")
    member.heartbeat()
    group.crash(is_append_durable=is_durable)
    group.drain()
    assert len(group.state.members) == is_durable


def test_a_write_that_arrives_after_the_log_was_read_is_read_before_serving() -> None:
    group = SimulatedGroup().run()
    group.ask("x", CommitOffsets(group=GROUP, offsets=[PartitionOffset("ORDERS", 0, 42)]))
    [late] = [bytes(call.payload[0]) for call in group.calls if isinstance(call.request, Produce)]
    group.crash(is_append_durable=False)
    while not any(isinstance(call.request, Produce) for call in group.calls):
        group.answer(group.answerable()[0])
    assert group.log.append(late).error is None  # after the reading, before the start record
    group.drain()
    assert committed(group) == 42
    refused = group.log.append(late).error
    assert refused is not None
    assert refused.code == ErrorCode.PRODUCER_FENCED


def test_a_start_record_that_another_incarnation_wrote_is_not_taken_for_our_own() -> None:
    group = SimulatedGroup()
    group.start()
    group.answer(group.answerable()[0])
    [claim] = [bytes(call.payload[0]) for call in group.calls if isinstance(call.request, Produce)]
    group.crash(is_append_durable=False)
    group.answer(group.answerable()[0])
    assert (
        group.log.append(claim).error is None
    )  # the claim of the dead one arrives first, with the same epoch
    group.drain()
    assert group.is_ready
    assert [parse_header(batch).producer_epoch for batch in group.log.batches] == [0, 1]


def test_a_claim_whose_answer_is_lost_is_repeated_and_counts_once() -> None:
    group = SimulatedGroup()
    group.start()
    group.answer(group.answerable()[0])
    [claim] = group.calls
    group.lose_answer(claim)
    group.advance(100)
    group.drain()
    assert group.is_ready
    assert len(group.log.batches) == 1


def test_a_partition_that_is_down_is_waited_for() -> None:
    group = SimulatedGroup()
    group.is_partition_up = False
    group.start()
    for _ in range(5):
        group.drain()
        group.advance(100)
    group.drain()
    assert not group.is_ready
    group.partition_up()
    group.drain()
    assert group.is_ready


def test_groups_of_one_partition_do_not_see_each_other() -> None:
    first = SimulatedGroup(group="first").run()
    second = SimulatedGroup(group="second")
    second.log = first.log
    second.run()
    for number in range(5):
        commit(first, number)
        commit(second, 100 + number)
    for group, expected in ((first, 4), (second, 104)):
        group.crash(is_append_durable=False)
        group.drain()
        assert committed(group) == expected


@pytest.mark.parametrize("error", [ErrorCode.CORRUPT_LOG, ErrorCode.INVALID_REQUEST])
def test_a_log_that_cannot_be_read_crashes(error: ErrorCode) -> None:
    group = SimulatedGroup()
    group.start()
    with pytest.raises(ReplayFailed, match=error):
        group.handle(Failed(ReplayFetchCall(), ErrorBody(error, "rot", False)))


def damage(next_offset: int) -> ErrorBody:
    return ErrorBody(ErrorCode.CORRUPT_LOG, "rot", False, next_offset=next_offset)


def snapshotted() -> SimulatedGroup:
    """Return a group with a snapshot of its whole log, about to recover."""
    group = SimulatedGroup().run()
    commit(group, 3)
    group.handle(StopRequested(group.now + 5_000))
    group.drain()
    assert group.is_stopped
    assert group.snapshot is not None
    group.start()
    return group


def test_damage_that_the_snapshot_covers_loses_nothing() -> None:
    group = snapshotted()
    [call] = group.calls
    group.calls.clear()
    group.handle(Failed(call.key, damage(group.log.end)))
    [again] = group.calls
    assert isinstance(again.request, Fetch)
    assert again.request.offset == group.log.end
    group.drain()
    assert group.is_ready
    assert committed(group) == 3


def test_damage_beyond_the_snapshot_crashes() -> None:
    group = snapshotted()
    with pytest.raises(ReplayFailed, match="CORRUPT_LOG"):
        group.handle(Failed(group.calls[0].key, damage(group.log.end + 1)))


def test_damage_without_a_snapshot_crashes() -> None:
    group = SimulatedGroup().run()
    commit(group, 3)
    group.start(with_snapshot=False)
    with pytest.raises(ReplayFailed, match="CORRUPT_LOG"):
        group.handle(Failed(group.calls[0].key, damage(group.log.end)))


def test_a_damaged_batch_crashes() -> None:
    group = SimulatedGroup().run()
    commit(group, 3)
    group.log.batches[-1] = group.log.batches[-1][:-1] + b"\xff"
    group.crash(is_append_durable=False)
    with pytest.raises(ReplayFailed, match="checksum"):
        group.drain()


def forged(group: SimulatedGroup, key: bytes, value: bytes, producer_id: int) -> None:
    epoch = 0 if producer_id >= 0 else -1
    frame = build(
        [(key, value, 0, None)],
        first_timestamp_ms=0,
        max_timestamp_ms=0,
        producer_id=producer_id,
        producer_epoch=epoch,
        base_sequence=epoch,
    )
    assert group.log.append(frame).error is None


def test_what_a_stranger_wrote_is_passed_over() -> None:
    group = SimulatedGroup()
    forged(group, b"\x00", b"junk", -1)
    key, value, _, _ = encode(Change(OffsetKey(GROUP, "ORDERS", 0), CommittedOffset(999)))
    assert key is not None
    assert value is not None
    forged(group, key, value, -1)
    group.run()
    assert not group.state.offsets


def test_an_own_record_that_cannot_be_read_crashes() -> None:
    group = SimulatedGroup()
    forged(group, b"\x93\xa6future\xa7billing\x01", b"\x80", identity_of(ADDRESS, 0).producer_id)
    group.start()
    with pytest.raises(InvalidRecord, match="cannot be read"):
        group.drain()


def test_a_log_that_ends_where_it_should_not_crashes() -> None:
    group = SimulatedGroup().run()
    group.start()
    [call] = [call for call in group.calls if isinstance(call.request, Fetch)]
    reply, _ = group.log.fetch(0)  # type: ignore[misc]
    reply.next_offset = 0
    with pytest.raises(ReplayFailed, match="cannot be read"):
        group.handle(Answered(call.key, reply, ()))


def with_snapshot(monkeypatch: pytest.MonkeyPatch) -> SimulatedGroup:
    monkeypatch.setattr(machine_module, "SNAPSHOT_RECORDS", 5)
    group = SimulatedGroup().run()
    members = [SimulatedMember(group, name, instance_id=name) for name in "ab"]
    members[0].turn()
    converge(members)
    for number in range(10):
        members[0].commits(*min(members[0].owned), number)
    assert group.snapshot is not None
    return group


def content(group: SimulatedGroup) -> dict[Any, Any]:
    """Return the state without the incarnation that started last."""
    return {
        change.key: change.value for change in group.state.changes() if not isinstance(change.key, StartKey)
    }


def test_a_snapshot_holds_the_whole_state_and_shortens_the_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    group = with_snapshot(monkeypatch)
    expected = content(group)
    group.start()
    [first_fetch] = group.calls
    assert first_fetch.request.offset > 5
    group.drain()
    assert content(group) == expected
    group.start(with_snapshot=False)
    group.drain()
    assert content(group) == expected


def test_a_damaged_snapshot_is_thrown_away(monkeypatch: pytest.MonkeyPatch) -> None:
    group = with_snapshot(monkeypatch)
    data = group.snapshot
    assert data is not None
    assert decode_snapshot(data, GROUP) is not None
    assert decode_snapshot(data, "other") is None
    for position in range(0, len(data), 7):
        damaged = bytearray(data)
        damaged[position] ^= 0x41
        snapshot = decode_snapshot(bytes(damaged), GROUP)
        assert snapshot is None or position in (6, 7), position
    for length in range(0, len(data), 11):
        assert decode_snapshot(data[:length], GROUP) is None


def test_a_snapshot_that_survives_its_group_brings_nothing_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_module, "SNAPSHOT_RECORDS", 1)
    group = SimulatedGroup().run()
    commit(group, 7)
    survivor = group.snapshot
    assert survivor is not None
    group.request("x", DeleteGroup(group=GROUP))
    group.snapshot = survivor
    group.start()
    group.drain()
    assert group.request("x", FetchOffsets(group=GROUP)).offsets == []


def test_a_deleted_group_leaves_no_snapshot_however_late_it_is_stopped() -> None:
    group = SimulatedGroup().run()
    commit(group, 7)
    group.snapshot = b"of before"
    group.request("x", DeleteGroup(group=GROUP))
    group.advance(60_000)
    group.handle(StopRequested(0))
    assert group.is_stopped
    assert group.snapshot is None


def test_a_snapshot_of_another_log_is_thrown_away(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    old = with_snapshot(monkeypatch)
    assert old.snapshot is not None
    snapshot = decode_snapshot(old.snapshot, GROUP)
    assert snapshot is not None
    mark = snapshot.mark
    group = SimulatedGroup().run()
    for number in range(old.log.end + 5):
        commit(group, number)
    (other,) = (
        header for header in map(parse_header, group.log.batches) if header.base_offset == mark.base_offset
    )
    group.snapshot = old.snapshot
    caplog.clear()
    group.start()
    group.drain()
    assert group.is_ready
    assert not group.state.members
    (reason,) = reasons(caplog)
    assert f"offset {mark.base_offset} with checksum {mark.crc32c:08x}" in reason
    assert f"{PARTITION} has the batch at {mark.base_offset} with {other.crc32c:08x}" in reason


def test_a_snapshot_that_cannot_be_read_is_reported(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    group = with_snapshot(monkeypatch)
    expected = content(group)
    assert group.snapshot is not None
    group.start()
    assert reasons(caplog) == []
    group.snapshot = group.snapshot[:-1]
    group.start()
    group.drain()
    assert content(group) == expected
    assert reasons(caplog) == ["the file is damaged, or was written by another version"]


def reasons(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the reasons why snapshots were dropped."""
    return [
        record.__dict__["fields"]["reason"]
        for record in caplog.records
        if record.message == "snapshot dropped"
    ]


def on_disk(directory: Path, files: Files | None = None) -> SimulatedGroup:
    """Return a group whose snapshot is a real file."""
    group = SimulatedGroup()
    group.files, group.data_directory = files or Files(), str(directory)
    return group


def test_the_process_keeps_and_uses_the_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_module, "SNAPSHOT_RECORDS", 2)
    group = on_disk(tmp_path).run()
    for number in range(6):
        commit(group, number)
    path = snapshot_path(tmp_path, GROUP)
    assert path.name == f"{GROUP}.snapshot"
    assert path.exists()
    again = on_disk(tmp_path)
    again.log = group.log
    again.start()
    assert again.calls[0].request.offset > 0
    again.drain()
    assert committed(again) == 5


def test_the_process_deletes_a_deleted_groups_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_module, "SNAPSHOT_RECORDS", 1)
    group = on_disk(tmp_path).run()
    commit(group, 1)
    assert snapshot_path(tmp_path, GROUP).exists()
    group.request("x", DeleteGroup(group=GROUP))
    assert not snapshot_path(tmp_path, GROUP).exists()


def test_a_full_disk_costs_only_the_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_module, "SNAPSHOT_RECORDS", 2)

    class FullDisk(Files):
        def replace(self, path: Path, data: bytes) -> None:
            raise StorageFull("full")

    group = on_disk(tmp_path, FullDisk()).run()
    for number in range(6):
        commit(group, number)
    assert committed(group) == 5
    assert not snapshot_path(tmp_path, GROUP).exists()


def test_no_group_name_leaves_the_folder(tmp_path: Path) -> None:
    for name in ("..", ".", "a/b", "../../x"):
        path = snapshot_path(tmp_path, name)
        assert path.parent == tmp_path / "groups"
        assert path.resolve().parent == (tmp_path / "groups").resolve()


def started_often(count: int) -> SimulatedGroup:
    """Return a group whose coordinator was started `count` times and then committed 7."""
    group = SimulatedGroup()
    group.starts = count
    producer_id, epoch = identity_of(ADDRESS, count - 1)
    changes = [
        Change(StartKey(GROUP), Start(count - 1, f"run.{count}")),
        Change(OffsetKey(GROUP, "ORDERS", 0), CommittedOffset(7)),
    ]
    frame = build(
        [encode(change) for change in changes],
        first_timestamp_ms=0,
        max_timestamp_ms=0,
        producer_id=producer_id,
        producer_epoch=epoch,
        base_sequence=0,
    )
    assert group.log.append(frame).error is None
    return group


def a_late_write(group: SimulatedGroup, start: int) -> ErrorBody | None:
    """Return the error of a batch from an earlier start that reaches the partition only now."""
    producer_id, epoch = identity_of(ADDRESS, start)
    frame = build(
        [encode(Change(OffsetKey(GROUP, "ORDERS", 0), CommittedOffset(1)))],
        first_timestamp_ms=0,
        max_timestamp_ms=0,
        producer_id=producer_id,
        producer_epoch=epoch,
        base_sequence=2,
    )
    return group.log.append(frame).error


@pytest.mark.parametrize("eras", [1, 2])
def test_when_the_epochs_of_a_producer_id_are_used_up_the_next_one_takes_over(eras: int) -> None:
    first = eras * STARTS_PER_ID
    group = started_often(first)
    assert parse_header(group.log.batches[0]).producer_epoch == 32_766
    group.run()
    written = [
        (header.producer_id, header.producer_epoch) for header in map(parse_header, group.log.batches[1:3])
    ]
    assert written == [closing_identity(ADDRESS, first), identity_of(ADDRESS, first)]
    assert committed(group) == 7
    refused = a_late_write(group, first - 1)
    assert refused is not None
    assert refused.code == ErrorCode.PRODUCER_FENCED
    commit(group, 8)
    for _ in range(2):
        group.crash(is_append_durable=False)
        group.drain()
        assert committed(group) == 8
    assert [start_of(ADDRESS, parse_header(batch)) for batch in group.log.batches[-2:]] == [
        first + 1,
        first + 2,
    ]
    assert group.state.start == Start(first + 2, f"run.{group.starts}")


def test_a_crash_between_closing_an_id_and_claiming_the_next() -> None:
    group = started_often(STARTS_PER_ID)
    group.start()
    while len(group.log.batches) < 2:
        group.answer(group.answerable()[0])
    [late] = [bytes(call.payload[0]) for call in group.calls]
    group.crash(is_append_durable=False)
    group.drain()
    assert group.is_ready
    assert parse_header(group.log.batches[-1]).producer_epoch == 1
    refused = group.log.append(late).error
    assert refused is not None
    assert refused.code == ErrorCode.PRODUCER_FENCED
    assert committed(group) == 7


def test_two_starts_that_close_the_same_id_end_with_one_owner() -> None:
    group = started_often(STARTS_PER_ID)
    group.start()
    while len(group.log.batches) < 2:
        group.answer(group.answerable()[0])
    [claim] = [bytes(call.payload[0]) for call in group.calls]
    group.crash(is_append_durable=False)
    assert group.log.append(claim).error is None
    group.drain()
    assert group.is_ready
    assert group.state.start == Start(STARTS_PER_ID + 1, f"run.{group.starts}")


def test_another_groups_ids_are_not_this_groups() -> None:
    header = parse_header(started_often(3).log.batches[0])
    assert start_of(ADDRESS, header) == 2
    assert start_of("another", header) is None
    assert start_of(ADDRESS, header._replace(producer_id=-1)) is None

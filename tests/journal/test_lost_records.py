"""Lost records of an actor: it names them, it stops without them, and it tells the loss from a fence."""

import pytest

from planaria.actors.coordinator import machine as machine_module
from planaria.actors.journal.appender import AppendCall, AppendRefused, Fenced, SequenceRefused
from planaria.actors.journal.replay import RecordsLost, ReplayFailed, ReplayFetchCall
from planaria.transport.batch import build, parse_header
from planaria.transport.machine import Failed
from planaria.transport.protocol.data import Fetch
from planaria.transport.protocol.errors import ErrorBody, ErrorCode
from planaria.transport.protocol.groups import CommitOffsets, FetchOffsets, PartitionOffset
from simulated_group import SimulatedGroup

MISSING = "records of coordinator/billing are missing from partition/__offsets/0"
LOST = "segment 120 is missing; offsets 120 to 239 are lost"


def commit(group: SimulatedGroup, offset: int) -> None:
    group.request("x", CommitOffsets(group=group.group, offsets=[PartitionOffset("ORDERS", 0, offset)]))


def committed(group: SimulatedGroup) -> int:
    [found] = group.request("x", FetchOffsets(group=group.group)).offsets
    assert isinstance(found.offset, int)
    return found.offset


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> SimulatedGroup:
    """Several incarnations, each with a commit, and a snapshot after the last."""
    monkeypatch.setattr(machine_module, "SNAPSHOT_RECORDS", 1)
    group = SimulatedGroup().run()
    for number in range(4):
        commit(group, number)
        group.crash(is_append_durable=False)
        group.drain()
    commit(group, 4)
    assert group.snapshot is not None
    return group


def drop(group: SimulatedGroup, first: int, last: int) -> None:
    """Drop batches; the partition's producer state outlives them."""
    group.log.batches[first:last] = []


def test_a_lost_start_record_is_told_and_is_no_fence(group: SimulatedGroup) -> None:
    group.snapshot = None
    starts = [at for at, batch in enumerate(group.log.batches) if parse_header(batch).base_sequence == 0]
    drop(group, starts[-2], len(group.log.batches))
    group.log.end = parse_header(group.log.batches[-1]).next_offset
    group.start()
    with pytest.raises(RecordsLost, match=MISSING):
        group.drain()


def test_a_claim_that_is_taken_for_a_repeat_of_a_lost_start_is_told() -> None:
    group = SimulatedGroup().run()
    stranger = build([(b"key", b"value", 0, None)], first_timestamp_ms=0, max_timestamp_ms=0)
    group.log.append(stranger)
    drop(group, 0, len(group.log.batches) - 1)
    group.start()
    with pytest.raises(RecordsLost, match=MISSING):
        group.drain()


def test_a_newer_incarnation_is_a_fence_and_no_loss(group: SimulatedGroup) -> None:
    """It claims while this one is between reading the log and its own claim."""
    group.snapshot = None
    stale = SimulatedGroup()
    stale.log = group.log
    stale.start()
    while not stale.log.batches or all(isinstance(call.request, Fetch) for call in stale.calls):
        stale.answer(stale.calls[0])
    for _ in range(2):
        group.crash(is_append_durable=False)
        group.drain()
    with pytest.raises(Fenced):
        stale.drain()


@pytest.mark.parametrize("code", [ErrorCode.INVALID_TIMESTAMP, ErrorCode.MESSAGE_TOO_LARGE])
def test_a_claim_that_is_refused_for_another_reason_is_no_loss(
    group: SimulatedGroup, code: ErrorCode
) -> None:
    group.start()
    while not any(call.key == AppendCall() for call in group.calls):
        group.answer(group.calls[0])
    with pytest.raises(AppendRefused, match=code) as raised:
        group.handle(Failed(AppendCall(), ErrorBody(code, "refused", False)))
    assert not isinstance(raised.value, SequenceRefused)


def test_a_log_that_ends_before_the_snapshot_has_lost_records(group: SimulatedGroup) -> None:
    end = group.log.end
    for kept in (len(group.log.batches) - 1, len(group.log.batches) - 2):
        drop(group, kept, len(group.log.batches))
        group.log.end = parse_header(group.log.batches[-1]).next_offset
        group.start()
        with pytest.raises(RecordsLost, match=f"was taken when it ended at {end}"):
            group.drain()


def test_a_new_leader_that_does_not_know_its_last_committed_records_yet_has_not_lost_them(
    group: SimulatedGroup,
) -> None:
    """Its high watermark lags until its followers have fetched from it."""
    batches, end = list(group.log.batches), group.log.end
    drop(group, len(batches) - 1, len(batches))
    group.log.end = parse_header(group.log.batches[-1]).next_offset
    group.start()
    for _ in range(3):
        group.answer(group.calls[0])
    group.log.batches[:], group.log.end = batches, end
    group.drain()
    assert committed(group) == 4


def test_damage_that_no_snapshot_covers_is_named_with_its_segment(group: SimulatedGroup) -> None:
    group.snapshot = None
    group.start()
    with pytest.raises(RecordsLost, match=LOST):
        group.handle(
            Failed(ReplayFetchCall(), ErrorBody(ErrorCode.CORRUPT_LOG, LOST, False, next_offset=240))
        )


def test_damage_behind_the_snapshot_is_not_covered_by_it(group: SimulatedGroup) -> None:
    group.start()
    mark = group.log.end
    refusal = ErrorBody(ErrorCode.CORRUPT_LOG, LOST, False, next_offset=mark + 1)
    with pytest.raises(RecordsLost, match=LOST):
        group.handle(Failed(ReplayFetchCall(), refusal))


def test_damage_that_ends_with_the_snapshot_is_covered_by_it(group: SimulatedGroup) -> None:
    group.start()
    refusal = ErrorBody(ErrorCode.CORRUPT_LOG, LOST, False, next_offset=group.log.end)
    [call] = [call for call in group.calls if isinstance(call.request, Fetch)]
    group.calls.remove(call)
    group.handle(Failed(ReplayFetchCall(), refusal))
    group.drain()
    assert group.is_ready
    assert committed(group) == 4


def test_a_partition_that_loses_records_during_the_replay_ends_it(group: SimulatedGroup) -> None:
    """Those read are in the state and no longer in the log; others have their offsets."""
    group.snapshot = None
    group.start()
    [first] = [call for call in group.calls if isinstance(call.request, Fetch)]
    group.answer(first)
    kept = parse_header(group.log.batches[1]).next_offset
    group.log.cut(2)
    stranger = build([(b"key", b"value", 0, None)] * 20, first_timestamp_ms=0, max_timestamp_ms=0)
    group.log.append(stranger)
    assert group.log.end > kept
    with pytest.raises(ReplayFailed, match="LOG_TRUNCATED"):
        group.drain()

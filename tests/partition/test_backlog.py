"""Producers are refused while the slowest live group is too far behind, and until it has caught up well enough."""

import pytest

from planaria.actors.partition.backlog import SAVE_INTERVAL_MS
from planaria.actors.partition.effects import ApplyRetention
from planaria.actors.partition.groups import ReportedGroups, decode_groups
from planaria.actors.partition.upkeep import RETENTION_CHECK_MS
from planaria.transport.protocol.data import Produce, ProduceReply
from planaria.transport.protocol.errors import ErrorBody, ErrorCode
from planaria.transport.protocol.message import Done
from planaria.transport.protocol.progress import ReportProgress, ReportProgressReply
from planaria.transport.protocol.topics import ConfigurePartition, DeleteRecords, TopicConfig
from simulated_partition import SimulatedPartition, a_batch

LIMITED = TopicConfig(max_backlog_messages=10)
TIMEOUT_MS = LIMITED.backlog_group_timeout_ms


@pytest.fixture
def partition() -> SimulatedPartition:
    return SimulatedPartition(LIMITED)


def produce(partition: SimulatedPartition, *values: bytes) -> ProduceReply | ErrorBody:
    reply = partition.ask(Produce(topic="ORDERS", partition=0), [a_batch(*values or (b"v",))])
    assert reply is not None
    return reply.body  # type: ignore[return-value]


def is_refused(partition: SimulatedPartition) -> bool:
    """Return True if one more message is refused; it is written if not."""
    body = produce(partition)
    return isinstance(body, ErrorBody) and body.code == ErrorCode.BACKPRESSURE


def report(
    partition: SimulatedPartition,
    offset: int = -1,
    *,
    group: str = "slow",
    has_members: bool = True,
    epoch: int = 1,
    topic_id: str = "t1",
    leader_epoch: int | None = None,
) -> bool:
    """Report as a coordinator; return True if the partition requests the next report at once."""
    request = ReportProgress(
        topic="ORDERS",
        partition=0,
        topic_id=topic_id,
        group=group,
        epoch=epoch,
        offset=offset,
        leader_epoch=leader_epoch,
        has_members=has_members,
    )
    reply = partition.ask(request)
    assert reply is not None
    assert isinstance(reply.body, ReportProgressReply)
    return reply.body.is_urgent


def fill(partition: SimulatedPartition, messages: int) -> None:
    for _ in range(messages):
        assert not is_refused(partition)


def test_a_topic_that_nobody_reads_has_no_backlog(partition: SimulatedPartition) -> None:
    fill(partition, 100)


def test_past_the_limit_producers_are_refused_until_the_low_mark(partition: SimulatedPartition) -> None:
    report(partition, 0)
    fill(partition, 11)
    body = produce(partition)
    assert isinstance(body, ErrorBody)
    assert body.retriable
    assert isinstance(body.retry_after_ms, int)
    assert body.retry_after_ms > 0
    assert body.message == "group slow is 11 messages behind"
    assert partition.alarms == ("producers are refused: group slow is 11 messages behind",)
    report(partition, 2)
    assert is_refused(partition), "9 behind is below the limit, but above the low mark"
    assert partition.alarms == ("producers are refused: group slow is 9 messages behind",)
    report(partition, 3)
    assert partition.alarms == ()
    fill(partition, 3)
    assert is_refused(partition)


def test_one_request_may_bring_it_past_the_limit_and_no_second(partition: SimulatedPartition) -> None:
    report(partition, 0)
    assert isinstance(produce(partition, *[b"v"] * 100), ProduceReply)
    assert is_refused(partition)


def test_a_refused_request_without_an_answer_is_dropped(partition: SimulatedPartition) -> None:
    report(partition, 0)
    produce(partition, *[b"v"] * 100)
    assert partition.ask(Produce(topic="ORDERS", partition=0, acks=0), [a_batch(b"v")]) is None
    assert partition.log_end_offset == 100


def test_the_slowest_group_counts(partition: SimulatedPartition) -> None:
    report(partition, 0, group="a")
    report(partition, 0, group="b")
    fill(partition, 11)
    report(partition, 11, group="a")
    assert is_refused(partition)
    report(partition, 11, group="b")
    assert not is_refused(partition)


def test_a_group_without_a_commit_counts_from_where_it_was_first_seen(partition: SimulatedPartition) -> None:
    fill(partition, 50)
    report(partition)
    fill(partition, 11)
    assert is_refused(partition)


def test_a_group_without_members_counts_until_it_has_been_silent_for_long_enough(
    partition: SimulatedPartition,
) -> None:
    report(partition, 0)
    fill(partition, 11)
    report(partition, 0, has_members=False)
    partition.advance(TIMEOUT_MS - 1)
    assert is_refused(partition)
    report(partition, 1, has_members=False)  # a commit is a sign of life
    partition.advance(TIMEOUT_MS - 1)
    assert is_refused(partition)
    partition.advance(1)
    assert partition.alarms == ()
    assert not is_refused(partition)


def test_a_group_with_members_counts_however_long_it_is_silent(partition: SimulatedPartition) -> None:
    report(partition, 0)
    fill(partition, 11)
    partition.advance(10 * TIMEOUT_MS)
    assert is_refused(partition)
    report(partition, 11, group="quick")  # the slowest is searched again
    assert is_refused(partition)


def test_a_group_that_is_gone_counts_no_more(partition: SimulatedPartition) -> None:
    report(partition, 0)
    fill(partition, 11)
    assert is_refused(partition)
    report(partition, has_members=False)
    assert not is_refused(partition)


def test_what_an_earlier_coordinator_said_arrives_too_late(partition: SimulatedPartition) -> None:
    report(partition, 0, epoch=2)
    report(partition, has_members=False, epoch=1)
    fill(partition, 11)
    assert is_refused(partition)


def test_reports_of_an_earlier_topic_of_the_name_are_ignored(partition: SimulatedPartition) -> None:
    report(partition, 0, topic_id="t0")
    fill(partition, 20)


@pytest.mark.parametrize("is_reported_again", [True, False])
def test_a_group_has_not_read_what_took_the_place_of_lost_records(is_reported_again: bool) -> None:
    """After a power cut with flush=os: neither for the backlog nor for retention."""
    config = TopicConfig(flush="os", max_backlog_messages=10, retain_until_consumed=True)
    partition = SimulatedPartition(config)
    fill(partition, 4)
    partition.durable_count = 4
    fill(partition, 4)
    report(partition, 8, leader_epoch=0, has_members=False)
    partition.crash()
    fill(partition, 10)
    if is_reported_again:
        report(partition, 8, leader_epoch=0, epoch=2)
        assert [is_refused(partition), is_refused(partition)] == [False, True]
    partition.advance(RETENTION_CHECK_MS)
    told = [effect for effect in partition.performed if isinstance(effect, ApplyRetention)]
    assert told[-1].consumed_offset == 4
    report(partition, 14, leader_epoch=1, epoch=2)
    assert not is_refused(partition)


def test_the_next_report_is_urgent_above_the_low_mark(partition: SimulatedPartition) -> None:
    assert not report(partition, 0)
    fill(partition, 8)
    assert not report(partition, 0)
    fill(partition, 1)
    assert report(partition, 0)


def test_bytes_are_counted_in_the_log() -> None:
    size = len(a_batch(b"v"))
    partition = SimulatedPartition(TopicConfig(max_backlog_bytes=10 * size))
    fill(partition, 5)
    report(partition, 0)
    fill(partition, 6)
    assert is_refused(partition)
    report(partition, 2)
    assert is_refused(partition)
    report(partition, 3)
    fill(partition, 3)
    assert is_refused(partition)


def test_bytes_that_were_not_written_are_not_counted() -> None:
    size = len(a_batch(b"v"))
    partition = SimulatedPartition(TopicConfig(max_backlog_bytes=10 * size))
    report(partition, 0)
    partition.is_disk_full = True
    for _ in range(20):
        body = produce(partition)
        assert isinstance(body, ErrorBody)
        assert body.code == ErrorCode.STORAGE_FULL
    partition.is_disk_full = False
    fill(partition, 11)
    assert is_refused(partition)


def test_after_a_restart_producers_are_refused_as_before(partition: SimulatedPartition) -> None:
    report(partition, 3)
    fill(partition, 14)
    assert is_refused(partition)
    partition.crash()
    assert is_refused(partition)
    report(partition, 14, epoch=2)
    assert not is_refused(partition)


def test_after_a_restart_nobody_has_members_until_it_is_said_again(partition: SimulatedPartition) -> None:
    report(partition, 0)
    fill(partition, 11)
    partition.crash()
    partition.advance(TIMEOUT_MS)
    assert not is_refused(partition)


def test_commits_are_saved_a_little_later_new_groups_and_steps_back_at_once(
    partition: SimulatedPartition,
) -> None:
    report(partition, 5)
    first = partition.groups_file
    assert first is not None
    report(partition, 6)
    assert partition.groups_file == first
    partition.advance(1_000)
    second = partition.groups_file
    assert second not in (None, first)
    report(partition, 4)
    assert partition.groups_file not in (first, second)


def test_a_limit_counts_from_the_moment_it_is_set() -> None:
    partition = SimulatedPartition(TopicConfig())
    report(partition, 0)
    fill(partition, 30)
    reply = partition.ask(ConfigurePartition(config=LIMITED))
    assert reply is not None
    assert isinstance(reply.body, Done)
    assert not is_refused(partition), "its coordinator has not spoken yet"
    report(partition, 0)
    assert is_refused(partition)
    partition.ask(ConfigurePartition(config=TopicConfig()))
    assert not is_refused(partition)
    assert partition.alarms == ()


def test_a_damaged_file_is_no_file(partition: SimulatedPartition) -> None:
    report(partition, 0)
    fill(partition, 11)
    assert partition.groups_file is not None
    partition.groups_file = partition.groups_file[:-1] + b"\xff"
    partition.crash()
    assert not is_refused(partition)


def consumed_offset(partition: SimulatedPartition) -> int | None:
    """Return the consumed offset that retention receives."""
    partition.performed.clear()
    partition.advance(60_000)
    return next(
        effect for effect in partition.performed if isinstance(effect, ApplyRetention)
    ).consumed_offset


def test_retention_is_told_what_every_group_has_consumed_live_or_not() -> None:
    partition = SimulatedPartition(TopicConfig(retain_until_consumed=True))
    fill(partition, 20)
    assert consumed_offset(partition) is None, "nobody reads"
    report(partition, 7, group="a")
    report(partition, 5, group="b", has_members=False)
    partition.advance(10 * TIMEOUT_MS)
    assert consumed_offset(partition) == 5
    report(partition, group="c")
    assert consumed_offset(partition) == 0, "who has never committed may begin at the beginning"
    report(partition, 9, group="c")
    partition.advance(1_000)
    partition.crash()
    assert consumed_offset(partition) == 5, "a restart frees nothing"
    report(partition, group="b", has_members=False, epoch=2)
    assert consumed_offset(partition) == 7
    assert not is_refused(partition), "it is no limit to producers"


def test_a_group_that_is_reset_is_taken_for_slower_also_after_a_restart() -> None:
    partition = SimulatedPartition(TopicConfig(retain_until_consumed=True))
    fill(partition, 20)
    report(partition, 15)
    report(partition, 2)
    partition.crash()
    assert consumed_offset(partition) == 2


def test_retention_that_is_not_tied_to_groups_is_told_nothing(partition: SimulatedPartition) -> None:
    report(partition, 0)
    assert consumed_offset(partition) is None


def delete_records(partition: SimulatedPartition, before_offset: int) -> None:
    partition.ask(DeleteRecords(topic="ORDERS", partition=0, before_offset=before_offset))


def test_deleted_records_are_in_no_groups_backlog(partition: SimulatedPartition) -> None:
    report(partition, 1)
    fill(partition, 12)
    assert is_refused(partition)
    delete_records(partition, 12)
    assert partition.alarms == (), "nothing is left to read"
    fill(partition, 11)
    assert is_refused(partition), "the backlog counts from the start of the log"
    partition.crash()
    report(partition, 1)
    assert is_refused(partition), "a restarted partition counts 11 messages, not 22"
    delete_records(partition, 20)
    assert not is_refused(partition)


def test_deleted_records_are_not_held_by_a_backlog_in_bytes() -> None:
    partition = SimulatedPartition(TopicConfig(max_backlog_bytes=500))
    report(partition, 0)
    while not is_refused(partition):
        pass
    delete_records(partition, -1)
    assert not is_refused(partition)


def test_retention_waits_for_no_group_over_deleted_records() -> None:
    partition = SimulatedPartition(TopicConfig(retain_until_consumed=True))
    fill(partition, 20)
    report(partition, 3)
    delete_records(partition, 15)
    assert consumed_offset(partition) == 15


def commit(offset: int, *, group: str = "slow", has_members: bool = True) -> ReportProgress:
    return ReportProgress(
        topic="ORDERS",
        partition=0,
        topic_id="t1",
        group=group,
        epoch=1,
        offset=offset,
        leader_epoch=None,
        has_members=has_members,
    )


def test_a_report_that_must_be_durable_is_refused_on_a_full_disk_until_it_is() -> None:
    """A new group, and an offset that went back: a restart that knew nothing of them would delete their records."""
    partition = SimulatedPartition(TopicConfig(retain_until_consumed=True))
    fill(partition, 10)
    report(partition, 5)

    def refused(request: ReportProgress) -> bool:
        reply = partition.ask(request)
        assert reply is not None
        if isinstance(reply.body, ErrorBody):
            assert (reply.body.code, reply.body.retriable) == (ErrorCode.STORAGE_FULL, True)
        return isinstance(reply.body, ErrorBody)

    partition.files.is_full = True
    for _ in range(2):
        assert refused(commit(2)), "it went back"
        assert refused(commit(7, group="new"))
    assert refused(commit(3)), (
        "no report of the group is answered before the file shows where it went back to"
    )
    partition.files.is_full = False
    assert not refused(commit(7, group="new"))
    assert not refused(commit(3))
    saved = decode_groups(partition.files.content, 0)
    assert saved is not None
    assert saved.consumed_offset == 3


def test_commits_that_a_full_disk_did_not_take_are_saved_once_there_is_room() -> None:
    partition = SimulatedPartition(TopicConfig(retain_until_consumed=True))
    fill(partition, 10)
    report(partition, 5)
    partition.files.is_full = True
    report(partition, 6)
    partition.advance(5 * SAVE_INTERVAL_MS)
    partition.files.is_full = False
    partition.advance(2 * SAVE_INTERVAL_MS)
    saved = decode_groups(partition.files.content, 0)
    assert saved is not None
    assert saved.consumed_offset == 6


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("is_saved", [True, False])
def test_a_group_that_is_gone_leaves_the_file_as_stale_as_it_was_or_makes_it_so(
    is_known: bool, is_saved: bool
) -> None:
    groups = ReportedGroups()
    groups.report(commit(1, group="other"), 10, 0)
    if is_known:
        groups.report(commit(1), 10, 0)
    if is_saved:
        groups.on_saved()
    groups.report(commit(-1, has_members=False), 10, 0)
    assert groups.is_saved == (is_saved and not is_known)

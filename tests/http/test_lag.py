"""The lag of groups: in messages from reports, in seconds from the oldest unread record."""

from planaria.actors.http.gauges import lag_seconds
from planaria.actors.http.lag import LagCall, Lags
from planaria.actors.http.totals import SeenActor
from planaria.transport.addresses import Address
from planaria.transport.machine import Answered, Call, Failed
from planaria.transport.protocol.data import FetchedRecord, FetchReply
from planaria.transport.protocol.errors import ErrorBody
from planaria.transport.protocol.operations import ActorReport, GroupPosition, GroupReport, LogReport


def seen(address: Address, report: ActorReport) -> SeenActor:
    return SeenActor(
        address=address,
        pid=1,
        incarnation=1,
        restarts=0,
        hangs=0,
        state="ready",
        uptime_ms=1,
        report=report,
    )


def partition(start: int, end: int) -> SeenActor:
    log = LogReport(
        role="leader",
        leader_epoch=0,
        log_start_offset=start,
        high_watermark=end,
        log_end_offset=end,
        size_bytes=1,
    )
    return seen(Address("partition", "T", 0), ActorReport(log=log))


def group(offset: int, done: int = 0) -> SeenActor:
    report = GroupReport(
        type="consumer",
        state="stable",
        members=1,
        generation=1,
        positions=(GroupPosition("T", 0, offset, done),),
    )
    return seen(Address("coordinator", "g"), ActorReport(group=report))


def reply(next_offset: int, timestamp_ms: int | None, end: int = 9) -> FetchReply:
    records = (
        [] if timestamp_ms is None else [FetchedRecord(offset=next_offset - 1, timestamp_ms=timestamp_ms)]
    )
    return FetchReply(
        topic="T",
        partition=0,
        log_start_offset=0,
        high_watermark=end,
        next_offset=next_offset,
        records=records,
    )


def calls(effects: object) -> list[tuple[LagCall, int]]:
    assert isinstance(effects, list)
    return [(each.key, each.request.offset) for each in effects if isinstance(each, Call)]


def test_a_group_at_the_end_asks_nothing() -> None:
    lags = Lags()
    assert lags.begin([group(9), partition(0, 9)]) == []
    assert lags.is_done
    assert (lags.lags[0].messages, lag_seconds(lags.lags[0], 50)) == (0, 0)


def test_the_age_is_read_once_for_each_position() -> None:
    lags = Lags()
    [(key, offset)] = calls(lags.begin([group(4), partition(0, 9)]))
    assert offset == 4
    assert lags.handle(Answered(key, reply(5, 1_000))) == []
    assert lags.is_done
    assert (lags.lags[0].messages, lag_seconds(lags.lags[0], 3_500)) == (5, 2.5)
    assert lags.begin([group(4), partition(0, 12)]) == []
    assert (lags.lags[0].messages, lag_seconds(lags.lags[0], 4_000)) == (8, 3)
    assert calls(lags.begin([group(6), partition(0, 12)])) != []


def test_aborted_records_are_searched_past_and_deleted_ones_are_no_lag() -> None:
    lags = Lags()
    [(key, offset)] = calls(lags.begin([group(2), partition(5, 9)]))
    assert offset == 5
    assert lags.lags[0].messages == 4
    [(key, offset)] = calls(lags.handle(Answered(key, reply(7, None))))
    assert offset == 7
    assert lags.handle(Answered(key, reply(8, 1_000))) == []
    assert lag_seconds(lags.lags[0], 2_000) == 1


def test_a_partition_that_another_node_leads_answers_for_both() -> None:
    lags = Lags()
    [(key, _)] = calls(lags.begin([group(4)]))
    assert lags.lags[0].messages is None
    lags.handle(Answered(key, reply(5, 1_000, end=11)))
    assert lags.lags[0].messages == 7


def test_an_age_that_cannot_be_read_is_unknown_and_late_answers_are_ignored() -> None:
    lags = Lags()
    [(key, _)] = calls(lags.begin([group(4), partition(0, 9)]))
    lags.handle(Failed(key, ErrorBody("PARTITION_OFFLINE", "gone", True)))
    assert lags.is_done
    assert lag_seconds(lags.lags[0], 2_000) is None
    [(key, _)] = calls(lags.begin([group(4), partition(0, 9)]))
    lags.give_up()
    assert lags.handle(Answered(key, reply(5, 1_000))) == []
    assert lags.lags[0].oldest_ms is None

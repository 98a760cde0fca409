"""Read-ahead: one fetch in flight each, bounds, epochs, start positions."""

from typing import Any

import pytest

from planaria.transport.client.fetching import (
    Chunk,
    Consumed,
    Fetching,
    Located,
    SetPaused,
    StartFetching,
    StopFetching,
    Trouble,
)
from planaria.transport.client.options import ConsumerOptions
from planaria.transport.machine import Answered, Call, Failed, SetTimer, TimerFired
from planaria.transport.protocol.data import Fetch, FetchReply, ListOffsets, ListOffsetsReply
from planaria.transport.protocol.errors import RETRIABLE, ErrorBody, ErrorCode
from planaria.transport.protocol.groups import FetchOffsets, FetchOffsetsReply, PartitionOffset

P, Q = ("A", 0), ("A", 1)


class Desk:
    def __init__(
        self,
        group: str | None = None,
        reset: str = "earliest",
        prefetch_bytes: int = 350,
        *,
        is_member: bool = False,
    ) -> None:
        options: dict[str, Any] = {"auto_offset_reset": reset, "prefetch_bytes": prefetch_bytes}
        settings = ConsumerOptions(fetch_max_bytes=100, request_timeout_ms=1_000, **options)
        self.machine = Fetching(group, settings, is_member=is_member)
        self.asks: list[Call] = []
        self.order: list[str] = []

    def feed(self, event: Any) -> list[Any]:
        news = []
        self.order = []
        for effect in self.machine.handle(event, 0):
            self.order.append(type(effect).__name__)
            if isinstance(effect, Call):
                self.asks.append(effect)
            else:
                news.append(effect)
        return news

    def start(self, offset: int | None, *tps: tuple[str, int]) -> list[Any]:
        return self.feed(StartFetching(dict.fromkeys(tps or (P,), (1, offset))))

    def data(self, ask: Call, size: int, advance: int = 1) -> list[Any]:
        request = ask.request
        assert isinstance(request, Fetch)
        reply = FetchReply(
            topic=request.topic,
            partition=request.partition,
            log_start_offset=0,
            high_watermark=99,
            next_offset=request.offset + advance,
        )
        return self.feed(Answered(ask.key, reply, (b"x" * size,) if size else ()))

    def fail(self, ask: Call, code: ErrorCode) -> list[Any]:
        return self.feed(Failed(ask.key, ErrorBody(code, "no", code in RETRIABLE)))


def test_the_next_fetch_goes_out_before_the_chunk_is_handed_on() -> None:
    desk = Desk()
    assert desk.start(5) == [Located(P, 1, 5)]
    (chunk,) = desk.data(desk.asks[0], 10)
    assert isinstance(chunk, Chunk)
    assert desk.order == ["Call", "Chunk"]
    assert [ask.request.offset for ask in desk.asks] == [5, 6]  # type: ignore[attr-defined]


def test_an_empty_answer_is_no_chunk() -> None:
    desk = Desk()
    desk.start(5)
    assert desk.data(desk.asks[0], 0, advance=0) == []
    assert len(desk.asks) == 2


def test_a_stretch_that_compaction_emptied_moves_the_position() -> None:
    desk = Desk()
    desk.start(5)
    assert desk.data(desk.asks[0], 0, advance=7) == [Chunk(P, 1, (), 0, 12)]
    assert desk.asks[1].request.offset == 12  # type: ignore[attr-defined]


def test_a_full_buffer_stops_fetching_until_something_is_consumed() -> None:
    desk = Desk()
    desk.start(0)
    desk.data(desk.asks[-1], 100)
    desk.data(desk.asks[-1], 100)
    assert len(desk.asks) == 2
    desk.feed(Consumed(P, 1, 100))
    assert len(desk.asks) == 3


def test_all_partitions_share_a_bound() -> None:
    desk = Desk(prefetch_bytes=150)
    desk.start(0, P, Q)
    desk.data(desk.asks[0], 100)
    assert len(desk.asks) == 3
    desk.data(desk.asks[1], 100)
    assert len(desk.asks) == 3


def test_where_a_group_was_and_where_it_was_not() -> None:
    desk = Desk(group="g", is_member=True)
    desk.start(None, P, Q)
    (committed,) = desk.asks
    reply = FetchOffsetsReply(offsets=[PartitionOffset("A", 0, 7)])
    assert desk.feed(Answered(committed.key, reply)) == [Located(P, 1, 7, reset_epoch=0)]
    reset = desk.asks[-1]
    assert desk.feed(Answered(reset.key, ListOffsetsReply(offset=3))) == [Located(Q, 1, 3, reset_epoch=0)]


def test_a_position_names_the_topic_and_the_reset_it_belongs_to() -> None:
    desk = Desk(group="g", is_member=True)
    desk.start(None)
    offsets = [PartitionOffset("A", 0, 7, reset_epoch=3)]
    reply = FetchOffsetsReply(offsets=offsets, reset_epoch=2, topic_ids={"A": "old"})
    assert desk.feed(Answered(desk.asks[-1].key, reply)) == [Located(P, 1, 7, "old", 3)]
    assert desk.asks[-1].request.topic_id == "old"
    desk.fail(desk.asks[-1], ErrorCode.UNKNOWN_TOPIC_ID)
    assert len(desk.asks) == 2, (
        "the coordinator takes the partition away; until then nothing of the new topic is read"
    )


def test_without_a_group_a_position_in_a_topic_created_anew_is_void() -> None:
    desk = Desk()
    desk.start(7)
    assert desk.asks[-1].request.topic_id is None
    answer = FetchReply("A", 0, 0, 99, 8, topic_id="old")
    desk.feed(Answered(desk.asks[-1].key, answer, (b"x",)))
    assert desk.asks[-1].request.topic_id == "old"
    assert desk.fail(desk.asks[-1], ErrorCode.UNKNOWN_TOPIC_ID) == []
    assert isinstance(desk.asks[-1].request, ListOffsets)
    assert desk.asks[-1].request.at == "earliest"
    located = desk.feed(Answered(desk.asks[-1].key, ListOffsetsReply(offset=0, topic_id="new")))
    assert located == [Located(P, 1, 0, "new")]
    assert (desk.asks[-1].request.offset, desk.asks[-1].request.topic_id) == (0, "new")


@pytest.mark.parametrize("group", [None, "g"])
def test_a_topic_created_again_is_read_from_its_beginning_whatever_the_policy(group: str | None) -> None:
    desk = Desk(reset="latest", group=group)
    desk.start(7)
    desk.feed(Answered(desk.asks[-1].key, FetchReply("A", 0, 0, 99, 8, topic_id="old"), (b"x",)))
    for again in desk.fail(desk.asks[-1], ErrorCode.UNKNOWN_TOPIC_ID):
        desk.feed(TimerFired(again.key))
    if group is not None:
        desk.feed(Answered(desk.asks[-1].key, FetchOffsetsReply(offsets=[])))
    assert isinstance(desk.asks[-1].request, ListOffsets)
    assert desk.asks[-1].request.at == "earliest"


def test_without_a_reset_policy_a_topic_created_anew_is_trouble() -> None:
    desk = Desk(reset="error")
    desk.start(7)
    desk.feed(Answered(desk.asks[-1].key, FetchReply("A", 0, 0, 99, 8, topic_id="old"), (b"x",)))
    (trouble,) = desk.fail(desk.asks[-1], ErrorCode.UNKNOWN_TOPIC_ID)
    assert trouble.error.code == ErrorCode.UNKNOWN_TOPIC_ID
    desk.feed(StartFetching({P: (2, 0)}))
    assert desk.asks[-1].request.topic_id is None, "a seek takes the topic that is there"


def test_a_commit_to_a_group_s_place_is_looked_up_again_when_the_topic_is_created_anew() -> None:
    desk = Desk(group="g")
    desk.start(None)
    desk.feed(Answered(desk.asks[-1].key, FetchOffsetsReply(offsets=[], topic_ids={"A": "old"})))
    desk.feed(Answered(desk.asks[-1].key, ListOffsetsReply(offset=0, topic_id="old")))
    assert desk.fail(desk.asks[-1], ErrorCode.UNKNOWN_TOPIC_ID) == [SetTimer(("again", P, 1), 500)]
    desk.feed(TimerFired(("again", P, 1)))
    assert isinstance(desk.asks[-1].request, FetchOffsets)


def test_without_an_offset_and_without_a_reset_there_is_trouble() -> None:
    desk = Desk(reset="error")
    (trouble,) = desk.start(None)
    assert trouble == Trouble(P, 1, -1, ErrorBody("NO_OFFSET", "no committed offset"))


def test_answers_of_an_older_epoch_are_dropped() -> None:
    desk = Desk()
    desk.start(0)
    (old,) = desk.asks
    desk.feed(StartFetching({P: (2, 40)}))
    assert desk.data(old, 10) == []
    desk.feed(StopFetching((P,)))
    assert desk.data(desk.asks[-1], 10) == []
    assert len(desk.asks) == 2


def test_a_paused_partition_is_not_fetched() -> None:
    desk = Desk()
    desk.start(0)
    desk.feed(SetPaused((P,), True))
    desk.data(desk.asks[-1], 10)
    assert len(desk.asks) == 1
    desk.feed(SetPaused((P,), False))
    assert len(desk.asks) == 2


def test_a_fetch_names_the_leader_epoch_that_its_position_was_read_from() -> None:
    desk = Desk(group="g", is_member=True)
    desk.start(None)
    reply = FetchOffsetsReply(offsets=[PartitionOffset("A", 0, 7, leader_epoch=3)])
    [located] = desk.feed(Answered(desk.asks[-1].key, reply))
    assert (located.offset, located.leader_epoch) == (7, 3)
    assert desk.asks[-1].request.leader_epoch == 3
    answer = FetchReply("A", 0, 0, 99, 9, leader_epoch=5)
    [chunk] = desk.feed(Answered(desk.asks[-1].key, answer, (b"x",)))
    assert chunk.leader_epoch == 5
    assert desk.asks[-1].request.leader_epoch == 5
    desk.feed(StartFetching({P: (2, 4)}))
    assert desk.asks[-1].request.leader_epoch is None, "where a program seeks was read by nobody"


@pytest.mark.parametrize("is_member", [True, False])
def test_a_log_that_was_cut_goes_on_where_it_differs_or_is_trouble(is_member: bool) -> None:
    error = ErrorBody(ErrorCode.LOG_TRUNCATED, "cut", next_offset=5)
    desk = Desk(group="g", is_member=is_member, reset="latest")
    desk.start(50)
    [located] = desk.feed(Failed(desk.asks[-1].key, error))
    assert (located.offset, located.lost_from) == (5, 50)
    assert (desk.asks[-1].request.offset, desk.asks[-1].request.leader_epoch) == (5, None)
    strict = Desk(reset="error")
    strict.start(50)
    [trouble] = strict.feed(Failed(strict.asks[-1].key, error))
    assert (trouble.offset, trouble.error) == (50, error)


def test_an_offset_out_of_range_is_located_anew_or_trouble() -> None:
    desk = Desk()
    desk.start(50)
    assert desk.fail(desk.asks[-1], ErrorCode.OFFSET_OUT_OF_RANGE) == []
    assert desk.feed(Answered(desk.asks[-1].key, ListOffsetsReply(offset=9))) == [Located(P, 1, 9)]
    strict = Desk(reset="error")
    strict.start(50)
    (trouble,) = strict.fail(strict.asks[-1], ErrorCode.OFFSET_OUT_OF_RANGE)
    assert (trouble.offset, trouble.error.code) == (50, ErrorCode.OFFSET_OUT_OF_RANGE)


def test_what_may_succeed_later_is_asked_again() -> None:
    desk = Desk()
    desk.start(5)
    desk.fail(desk.asks[-1], ErrorCode.TIMED_OUT)
    assert [ask.request.offset for ask in desk.asks] == [5, 5]  # type: ignore[attr-defined]


def test_a_topic_that_is_gone_is_the_coordinators_business_for_a_member() -> None:
    desk = Desk(is_member=True)
    desk.start(5)
    (timer,) = desk.fail(desk.asks[-1], ErrorCode.UNKNOWN_TOPIC)
    assert isinstance(timer, SetTimer)
    desk.feed(TimerFired(timer.key))
    assert len(desk.asks) == 2
    alone = Desk()
    alone.start(5)
    (trouble,) = alone.fail(alone.asks[-1], ErrorCode.UNKNOWN_TOPIC)
    assert isinstance(trouble, Trouble)

"""A mirror over two simulated partitions: the copy, faults of the source, promotion, and everything at random."""

from typing import Any

import pytest

from planaria.actors.http.families import FAMILIES
from planaria.actors.http.gauges import Observation, gauges
from planaria.actors.http.totals import SeenActor
from planaria.actors.mirror.delayed import DelayedMessages
from planaria.actors.mirror.effects import AskSource, SourceFailed, Started
from planaria.actors.mirror.figures import gauges_of
from planaria.actors.mirror.keys import DelayedKey, DelayedTimer, GoOnTimer, TopicsKey
from planaria.actors.mirror.machine import MirrorMachine
from planaria.transport.addresses import mirror_address
from planaria.transport.batch import parse_header
from planaria.transport.machine import SetTimer
from planaria.transport.protocol.data import Fetch, Produce
from planaria.transport.protocol.delayed import ListScheduled, ListScheduledReply, ScheduledMessage
from planaria.transport.protocol.errors import ErrorBody, ErrorCode
from planaria.transport.protocol.mirrored import FORK_EPOCHS
from planaria.transport.protocol.mirrors import MirrorAppend, MirrorSpec, SealMirror
from planaria.transport.protocol.operations import ActorReport
from planaria.transport.protocol.topics import DeleteRecords, TopicConfig
from planaria.transport.protocol.transactions import Marker, WriteMarkers
from simulated_mirror import NAMES, TRANSACTIONAL_IDS, MirrorWorld
from simulated_partition import a_batch

FIRST, SECOND = TRANSACTIONAL_IDS
PRODUCE = Produce(topic="ORDERS", partition=0)


@pytest.fixture
def world() -> MirrorWorld:
    return MirrorWorld()


def fetched(world: MirrorWorld, offset: int, **options: Any) -> Any:
    return world.ask_copy(Fetch(topic="ORDERS", partition=0, offset=offset, format="batches", **options))


def test_the_copy_has_the_bytes_and_offsets_of_the_source(world: MirrorWorld) -> None:
    world.produce(b"a", b"b")
    world.crash_source()
    world.produce(b"c", producer=1)
    world.produce(b"t", producer=FIRST, is_transactional=True)
    world.end_transaction(FIRST, committed=True)
    world.settle()
    assert [frame for _, frame in world.copy.log] == [frame for _, frame in world.source.log]
    assert fetched(world, 0).high_watermark == 5
    lag = world.mirror.report(world.now).topics[0].partitions[0]
    assert (lag.log_end_offset, lag.source_high_watermark, lag.behind_ms) == (5, 5, 0)


def test_a_copy_that_follows_takes_no_producer(world: MirrorWorld) -> None:
    world.produce(b"a")
    world.settle()
    requests = [(PRODUCE, [a_batch(b"x")]), (DeleteRecords(topic="ORDERS", partition=0, before_offset=1), ())]
    for request, payload in requests:
        refusal = world.ask_copy(request, payload)
        assert isinstance(refusal, ErrorBody)
        assert (refusal.code, refusal.retriable) == (ErrorCode.TOPIC_IS_MIRRORED, True)
    markers = [Marker(9, 0, committed=True)]
    world.ask_copy(WriteMarkers(topic="ORDERS", partition=0, markers=markers))
    assert world.copy.log_end_offset == 1


def test_batches_are_appended_at_the_end_and_nowhere_else(world: MirrorWorld) -> None:
    world.produce(b"a", b"b")
    world.settle()
    batches = [frame for _, frame in world.source.log]
    for offset in (0, 3):
        refusal = world.ask_copy(MirrorAppend(**NAMES, offset=offset), batches)
        assert (refusal.code, refusal.next_offset) == (ErrorCode.OFFSET_OUT_OF_RANGE, 2)
    assert world.ask_copy(MirrorAppend(**NAMES, offset=2), batches).code == ErrorCode.INVALID_BATCH
    assert world.ask_copy(MirrorAppend(**NAMES, offset=2), [b"x" * 80]).code == ErrorCode.INVALID_BATCH
    other = MirrorAppend(**{**NAMES, "topic_id": "t2"}, offset=2)
    assert world.ask_copy(other).code == ErrorCode.UNKNOWN_TOPIC_ID
    assert world.copy.log_end_offset == 2


def test_a_reader_that_is_ahead_of_the_copy_waits_for_it(world: MirrorWorld) -> None:
    world.produce(b"a")
    world.settle()
    world.ask_copy(MirrorAppend(**NAMES, offset=1, source_high_watermark=5))
    assert fetched(world, 3).next_offset == 3
    assert fetched(world, 6).code == ErrorCode.OFFSET_OUT_OF_RANGE


def test_readers_compare_the_epochs_of_the_source(world: MirrorWorld) -> None:
    """The copy is started often, and takes an epoch each time: no reader takes that for a lost tail."""
    for _ in range(5):
        world.copy.crash()
    world.produce(b"a")
    world.crash_source()
    world.produce(b"b")
    world.settle()
    reply = fetched(world, 0)
    assert reply.leader_epoch == parse_header(world.source.log[-1][1]).leader_epoch == 1
    for _ in range(3):
        world.copy.crash()
        world.crash_source()
    world.produce(b"c")
    world.settle()
    assert fetched(world, reply.next_offset, leader_epoch=reply.leader_epoch).next_offset == 3


def test_a_cut_link_is_caught_up(world: MirrorWorld) -> None:
    world.produce(b"a")
    world.settle()
    world.is_cut = True
    world.crash_source()
    for _ in range(30):
        world.produce(b"x", producer=1)
        world.advance(2_000)
    report = world.mirror.report(world.now)
    assert (report.state, world.copy.log_end_offset) == ("unreachable", 1)
    assert "TIMED_OUT" in report.reason
    world.settle()
    assert world.copy.log_end_offset == 31
    assert world.mirror.report(world.now).state == "running"


def test_retention_that_passes_the_copy_is_counted_and_goes_on(world: MirrorWorld) -> None:
    world.produce(b"a")
    world.settle()
    world.is_cut = True
    world.crash_source()
    for _ in range(4):
        world.produce(b"x")
    world.source.ask(DeleteRecords(topic="ORDERS", partition=0, before_offset=3))
    world.settle()
    assert world.copy.log_end_offset == 5
    assert world.copy.log_start_offset == 3
    assert world.mirror.report(world.now).topics[0].partitions[0].skipped == 2
    assert not world.faults


def test_an_empty_copy_begins_where_the_source_begins(world: MirrorWorld) -> None:
    world.is_cut = True
    world.crash_source()
    for _ in range(4):
        world.produce(b"x")
    world.source.ask(DeleteRecords(topic="ORDERS", partition=0, before_offset=3))
    world.settle()
    assert (world.copy.log_start_offset, world.copy.log_end_offset) == (3, 4)
    assert world.mirror.report(world.now).topics[0].partitions[0].skipped == 0


def test_the_fork_of_an_empty_copy_is_where_its_empty_source_ends(world: MirrorWorld) -> None:
    """Otherwise the promoted copy gives offsets out again that the source has used."""
    world.produce(b"a")
    world.settle()
    world.source.ask(DeleteRecords(topic="ORDERS", partition=0, before_offset=1))
    world.settle()
    world.is_cut = True
    world.crash_source()
    for _ in range(3):
        world.produce(b"x")
    world.source.ask(DeleteRecords(topic="ORDERS", partition=0, before_offset=4))
    world.settle()
    assert (world.copy.log_start_offset, world.copy.log_end_offset) == (4, 4)
    fork, _ = world.promote()
    assert fork.offset == 4


def test_deleted_records_of_the_source_are_deleted_here(world: MirrorWorld) -> None:
    for _ in range(4):
        world.produce(b"x")
    world.settle()
    world.source.ask(DeleteRecords(topic="ORDERS", partition=0, before_offset=2))
    world.settle()
    assert world.copy.log_start_offset == 2


def test_a_source_that_was_created_again_is_a_fault(world: MirrorWorld) -> None:
    world.produce(b"a")
    world.settle()
    world.topic_id = "t2"
    world.advance(60_000)
    assert world.faults == ["the source's topic was created again: t1 was copied, it is t2 now"]
    assert world.mirror.report(world.now).topics[0].state == "faulted"
    appends = world.appends
    world.produce(b"b")
    world.settle()
    assert (world.appends, world.copy.log_end_offset) == (appends, 1)


def test_a_source_that_lost_what_was_copied_is_a_fault(world: MirrorWorld) -> None:
    for _ in range(3):
        world.produce(b"a")
    world.settle()
    world.lose_tail(1)
    world.advance(10_000)
    assert len(world.faults) == 1
    assert "has lost records that were copied" in world.faults[0]
    assert world.copy.log_end_offset == 3


def test_a_source_with_other_records_is_a_fault(world: MirrorWorld) -> None:
    for _ in range(3):
        world.produce(b"a")
    world.settle()
    world.is_cut = True
    world.lose_tail(1)
    for _ in range(4):
        world.produce(b"z")
    world.settle()
    assert len(world.faults) == 1
    assert "there another log from 1 on" in world.faults[0]


def test_a_compacted_source_leaves_the_same_gaps(world: MirrorWorld) -> None:
    for _ in range(5):
        world.produce(b"a", producer=1)
    world.settle()
    world.is_cut = True
    world.crash_source()
    for _ in range(5):
        world.produce(b"b", producer=1)
    del world.source.log[6:8]
    world.source.durable_count = len(world.source.log)
    world.settle()
    assert [header.base_offset for header, _ in world.copy.log] == [0, 1, 2, 3, 4, 5, 8, 9]


def test_offsets_of_groups_are_copied_and_never_beyond_the_copy(world: MirrorWorld) -> None:
    for _ in range(3):
        world.produce(b"a")
    world.settle()
    world.group = {"g": 2}
    world.advance(3_000)
    assert world.committed == {"g": 2}
    world.group["g"] = 9
    world.advance(3_000)
    assert world.committed == {"g": 3}


def test_offsets_of_groups_are_not_copied_to_a_topic_that_was_promoted(world: MirrorWorld) -> None:
    """The group goes on here; an offset that it had at the source would set it back."""
    for _ in range(3):
        world.produce(b"a")
    world.settle()
    world.group = {"g": 1}
    world.advance(3_000)
    world.promote()
    world.produce(b"b")
    world.is_checked = False
    world.advance(10_000)
    world.group["g"] = 2
    world.advance(3_000)
    assert world.committed == {"g": 1}


def test_delayed_messages_at_the_source_are_counted_and_the_last_count_outlives_it(
    world: MirrorWorld,
) -> None:
    assert world.mirror.report(world.now).delayed == {}
    world.delayed = ["ORDERS", "ORDERS", "NOT_COPIED"]
    world.advance(6_000)
    report = world.mirror.report(world.now)
    assert (report.delayed, report.delayed_at_ms) == ({"ORDERS": 2}, 5_000)
    world.is_cut = True
    world.advance(60_000)
    report = world.mirror.report(world.now)
    assert (report.state, report.delayed, report.delayed_at_ms) == ("unreachable", {"ORDERS": 2}, 5_000)


def test_delayed_messages_are_counted_page_by_page_up_to_a_limit() -> None:
    delayed = DelayedMessages(lambda topic: topic == "ORDERS")
    [ask] = delayed.start()
    page = [
        ScheduledMessage(scheduled_id="1", topic=topic, deliver_at_ms=1, scheduled_at_ms=0, size_bytes=1)
        for topic in ("ORDERS", "OTHER")
    ] * 500
    for number in range(10):
        assert delayed.counted_at is None
        assert isinstance(ask, AskSource)
        assert ask.request == ListScheduled(limit=1_000, after=str(number) if number else None)
        [ask] = delayed.on_page(ListScheduledReply(messages=page, next=str(number + 1)), 7)
    assert ask == SetTimer(DelayedTimer(), 5_007)
    assert (delayed.counts, delayed.counted_at) == ({"ORDERS": 5_000}, 7)


def test_a_source_that_has_never_answered_is_not_running() -> None:
    mirror = MirrorMachine("m", MirrorSpec(source="tcp://a:1", topics=("ORDERS",)))
    mirror.handle(Started(), 0)
    assert mirror.report(5_000).state == "starting"
    refused = SourceFailed(TopicsKey(), ErrorBody(ErrorCode.UNAUTHENTICATED, "a wrong password", True))
    mirror.handle(refused, 5_000)
    assert mirror.report(5_000).state == "unreachable"


def test_a_source_that_does_not_list_delayed_messages_is_copied_all_the_same() -> None:
    mirror = MirrorMachine("m", MirrorSpec(source="tcp://a:1", topics=("ORDERS",)))
    mirror.handle(Started(), 0)
    refused = SourceFailed(DelayedKey(), ErrorBody(ErrorCode.FORBIDDEN, "needs the right operate", False))
    assert mirror.handle(refused, 10) == [SetTimer(DelayedTimer(), 5_010)]
    report = mirror.report(10)
    assert (report.state, report.reason, report.delayed_at_ms) == ("starting", "", -1)


def test_every_gauge_is_a_metric(world: MirrorWorld) -> None:
    world.produce(b"a")
    world.settle()
    report = ActorReport(gauges=gauges_of(world.mirror.report(world.now)))
    address = mirror_address("m")
    actor = SeenActor(
        address=address,
        pid=None,
        incarnation=1,
        restarts=0,
        hangs=0,
        state="ready",
        uptime_ms=0,
        report=report,
    )
    seen = Observation(actors=[actor], uptime_ms=0, lags=[], wall_ms=0)
    found = {name: value for (name, labels), value in gauges(seen, "", "").items() if labels == ("m",)}
    assert found.keys() == {name for name in FAMILIES if name.startswith("planaria_mirror_")}
    assert found["planaria_mirror_copied_bytes"] == world.source.size_bytes


def test_the_rate_is_kept() -> None:
    world = MirrorWorld()
    world.mirror._rate._bytes_per_second = 1_000
    world.produce(bytes(5_000))
    world.produce(bytes(5_000))
    assert world.copy.log_end_offset == 1
    assert GoOnTimer(("ORDERS", 0)) in world.timers  # type: ignore[arg-type]
    world.advance(4_000)
    assert world.copy.log_end_offset == 1
    world.advance(3_000)
    assert world.copy.log_end_offset == 2


class TestPromotion:
    def test_its_epochs_are_above_those_that_an_idle_source_has_taken(self, world: MirrorWorld) -> None:
        """Each start of the source takes one, and its readers have that, also without a batch of it."""
        world.produce(b"a")
        world.settle()
        for _ in range(FORK_EPOCHS + 200):
            world.source.crash()
        world.crash_source()
        world.settle()
        source_epoch = world.source.ask(Fetch(topic="ORDERS", partition=0, offset=0)).body.leader_epoch  # type: ignore[union-attr]
        assert source_epoch > FORK_EPOCHS + parse_header(world.copy.log[0][1]).leader_epoch
        fork, _ = world.promote()
        assert fork.first_epoch > source_epoch
        for _ in range(3):
            world.ask_copy(PRODUCE, [a_batch(b"here")])
        # It has read on at the source, where other records follow the fork.
        reader = Fetch(topic="ORDERS", partition=0, offset=3, leader_epoch=source_epoch)
        refused = world.ask_copy(reader)
        assert (refused.code, refused.next_offset) == (ErrorCode.LOG_TRUNCATED, 1)

    def test_the_source_is_known_as_of_its_last_answer_also_while_nothing_is_written(
        self, world: MirrorWorld
    ) -> None:
        world.produce(b"a")
        world.settle()
        world.copy.crash()
        world.advance(20_000)
        fork, _ = world.promote()
        assert fork.source_high_watermark == 1
        assert world.now - fork.heard_at_ms <= 5_000

    def test_open_transactions_are_aborted_and_others_stay(self, world: MirrorWorld) -> None:
        world.produce(b"t", producer=FIRST, is_transactional=True)
        world.produce(b"u", producer=SECOND, is_transactional=True)
        world.end_transaction(SECOND, committed=True)
        world.settle()
        assert fetched(world, 0).last_stable_offset == 0
        fork, reply = world.promote()
        assert (fork.offset, fork.leader_epoch, fork.source_high_watermark) == (3, 0, 3)
        assert reply.leader_epoch == FORK_EPOCHS
        found = fetched(world, 0)
        assert (found.last_stable_offset, found.high_watermark) == (4, 4)
        assert [each.producer_id for each in found.aborted] == [FIRST]

    def test_a_producer_goes_on_with_its_sequence(self, world: MirrorWorld) -> None:
        for value in (b"a", b"b"):
            world.produce(value, producer=1)
        world.settle()
        world.promote()
        sequenced = {"producer_id": 1, "producer_epoch": 0}
        results = world.ask_copy(
            PRODUCE,
            [a_batch(b"b", base_sequence=1, **sequenced), a_batch(b"c", base_sequence=2, **sequenced)],
        ).batches
        assert [(result.base_offset, result.duplicate) for result in results] == [(1, True), (2, False)]

    def test_no_copy_arrives_after_the_fork(self, world: MirrorWorld) -> None:
        world.produce(b"a")
        world.settle()
        fork = world.ask_copy(SealMirror(**NAMES)).fork
        world.produce(b"b")
        world.advance(5_000)
        assert world.copy.log_end_offset == fork.offset == 1
        assert world.ask_copy(SealMirror(**NAMES)).fork == fork
        assert world.ask_copy(PRODUCE, [a_batch(b"x")]).code == ErrorCode.TOPIC_IS_MIRRORED
        world.promote()
        world.ask_copy(PRODUCE, [a_batch(b"x")])
        world.is_checked = False
        world.advance(5_000)
        assert world.copy.log_end_offset == 2
        assert world.ask_copy(MirrorAppend(**NAMES, offset=-1)).code == ErrorCode.NOT_MIRRORED

    def test_a_promoted_partition_that_dies_stays_promoted(self, world: MirrorWorld) -> None:
        """Also if it dies before it has aborted the source's transactions."""
        world.produce(b"t", producer=FIRST, is_transactional=True)
        world.settle()
        _, reply = world.promote()
        del world.copy.log[1:]
        world.copy.durable_count = 1
        world.copy.crash()
        assert fetched(world, 0).last_stable_offset == 2
        produced = world.ask_copy(PRODUCE, [a_batch(b"x")])
        assert produced.batches[0].base_offset == 2
        assert world.copy.log[-1][0].leader_epoch > reply.leader_epoch

    def test_a_reader_of_the_source_that_is_beyond_the_fork_is_found(self, world: MirrorWorld) -> None:
        world.produce(b"a")
        world.settle()
        world.is_cut = True
        for _ in range(3):
            world.crash_source()
            world.produce(b"b")
        epoch = world.source.log[-1][0].leader_epoch
        world.promote()
        for _ in range(9):
            world.ask_copy(PRODUCE, [a_batch(b"x")])
        refusal = fetched(world, 4, leader_epoch=epoch)
        assert (refusal.code, refusal.next_offset) == (ErrorCode.LOG_TRUNCATED, 1)


def run(seed: int, steps: int) -> None:
    world = MirrorWorld(seed)
    world.loss = world.draw.choice([0.0, 0.05, 0.3])
    for _ in range(steps):
        world.step()
    world.settle()
    assert not world.faults
    source, copy = world.logs()
    assert copy == source
    open_before = world.copy.machine._role._transactions.open()
    open_there = world.source.machine._role._transactions.open()
    assert open_before.keys() <= open_there.keys()
    for key, first in open_there.items():
        # A copy that began later than the transaction has seen only a part of it, or none: then nothing is to abort.
        seen = [
            header.base_offset
            for header, _ in world.copy.log
            if (header.producer_id, header.producer_epoch) == key and header.base_offset >= first
        ]
        assert open_before.get(key) in ([first, seen[0]] if seen else [first, None]), (key, first, seen)
    fork, _ = world.promote()
    assert fork.offset == world.source.log_end_offset
    assert not world.copy.machine._role._transactions.open()
    assert world.copy.log_end_offset == fork.offset + len(open_before)


@pytest.mark.parametrize("seed", range(12))
def test_the_copy_is_the_source_under_faults(seed: int) -> None:
    run(seed, 60)


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(12, 1_000))
def test_the_copy_is_the_source_under_faults_for_long(seed: int) -> None:
    run(seed, 300)


def test_a_topic_without_a_mirror_takes_no_copies() -> None:
    world = MirrorWorld()
    world.copy = world.source
    assert world.ask_copy(MirrorAppend(**NAMES, offset=-1)).code == ErrorCode.NOT_MIRRORED
    assert TopicConfig() == world.source.config

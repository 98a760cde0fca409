"""An idempotent producer against a model partition: under any wire fault, no loss, no repeat, in order."""

from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from example_counts import examples
from model_partition import ModelPartition
from planaria.transport.calls.retry import RetryPolicy
from planaria.transport.client.lanes import MOVED_MS, Outcome, PartitionSequence, ProducerIdentity
from planaria.transport.client.producing import LaneFreed, LaneHeld
from planaria.transport.machine import Answered, Failed, TimerFired
from planaria.transport.protocol.data import InitProducerReply
from planaria.transport.protocol.errors import ErrorBody, ErrorCode
from producing_driver import LANE, LOST, FakeBatch, World, new_machine

FATES = st.sampled_from(
    ["ok", "ok", "ok", "request lost", "answer lost", "repeated", "cut", "storage full", "held", "tick"]
)
STEPS = st.lists(st.one_of(st.integers(1, 3), FATES), min_size=6, max_size=60)


@examples(400)
@given(STEPS)
def test_every_batch_is_appended_once_and_in_order(steps: list[Any]) -> None:
    world = World()
    world.play(steps)
    assert [outcome.error for outcome in world.outcomes.values() if outcome.error is not None] == []
    published = next(world.numbers)
    assert world.appended() == list(range(published))
    offsets = {number: outcome.base_offset for number, outcome in world.outcomes.items()}
    firsts = [
        i for i, value in enumerate(world.partition.values()) if value is not None and value.endswith(b".0")
    ]
    assert offsets == dict(enumerate(firsts))


@examples(400)
@given(st.lists(st.one_of(st.integers(1, 3), FATES, st.just("refused")), min_size=6, max_size=60))
def test_what_is_given_up_leaves_the_rest_whole(steps: list[Any]) -> None:
    """With refusals and deadlines: successes are present once, in order; certain failures are absent."""
    world = World(expires=True, delivery_timeout_ms=100)
    world.play(steps)
    there = world.appended()
    assert there == sorted(set(there)), "once each and in order"
    for number, outcome in world.outcomes.items():
        if outcome.error is None:
            assert number in there
        elif not outcome.is_uncertain:
            assert number not in there
    assert len(world.outcomes) == next(world.numbers)


def test_at_most_five_batches_are_under_way() -> None:
    world = World()
    for _ in range(8):
        world.publish()
    assert len(world.wire) == 5
    world.step("ok")
    assert len(world.wire) == 5
    assert not world.machine.is_idle(LANE)
    world.finish()
    assert world.machine.is_idle(LANE)


def test_after_a_failure_all_are_sent_again_under_the_same_sequences() -> None:
    world = World()
    for _ in range(3):
        world.publish(2)
    first = [(item.batch.number, item.sequence) for item in world.wire]
    world.step("request lost")
    assert len(world.wire) == 2, "those behind it are waited for"
    world.step("ok")
    assert LANE not in world.timers, "the backoff begins when the last attempt has ended"
    world.step("ok")
    assert not world.wire
    assert world.timers[LANE] == RetryPolicy().delay_ms(1, lambda: 0.0)
    world.tick()
    assert [(item.batch.number, item.sequence) for item in world.wire] == first
    world.finish()
    assert world.appended() == [0, 1, 2]


def test_a_hole_makes_the_next_epoch() -> None:
    world = World()
    world.publish()
    world.publish()
    world.step("refused")
    world.finish()
    assert world.appended() == [1]
    last = world.transmitted[-1]
    assert last.identity is not None
    assert (last.identity.epoch, last.sequence) == (1, 0)
    assert world.outcomes[0].error is not None
    assert not world.outcomes[0].is_uncertain


def test_a_forgotten_producer_starts_again_when_nothing_is_in_doubt() -> None:
    world = World()
    world.publish()
    world.finish()
    world.partition.producers.clear()
    world.publish()
    world.publish()
    world.finish()
    assert world.appended() == [0, 1, 2]
    assert all(outcome.error is None for outcome in world.outcomes.values())


def test_a_forgotten_producer_reports_what_is_in_doubt_as_uncertain() -> None:
    world = World()
    world.publish()
    world.finish()
    world.publish()
    world.step("answer lost")
    world.partition.producers.clear()
    world.finish()
    assert world.outcomes[1].is_uncertain
    assert world.appended() == [0, 1], "it was there, and was not sent again"


@pytest.mark.parametrize("known", ["a", "b", None])
@pytest.mark.parametrize("fate", ["answer lost", "request lost", "cut"])
def test_what_is_in_doubt_goes_to_the_topic_created_again(fate: str, known: str | None) -> None:
    """In doubt, whatever the client knows of it by then."""
    world = World()
    world.publish()
    world.finish()
    world.publish()
    world.publish()
    world.step(fate)
    world.topic_id = known
    world.current_topic_id = "b"
    world.partition = ModelPartition()
    world.finish()
    assert world.appended() == [1, 2], "nothing of them was in the new topic, nothing is missing there"
    world.publish()
    world.finish()
    assert world.appended() == [1, 2, 3]
    assert all(outcome.error is None for outcome in world.outcomes.values())


def test_nothing_is_uncertain_of_a_topic_that_is_gone() -> None:
    world = World()
    world.publish()
    world.step("answer lost")
    world.tick()
    item = world.wire.popleft()
    world.feed(Failed((item.lane, item.token), ErrorBody(ErrorCode.UNKNOWN_TOPIC, "deleted")))
    assert world.outcomes[0].error is not None
    assert not world.outcomes[0].is_uncertain


def test_a_transaction_does_not_go_on_in_a_topic_created_again() -> None:
    world = World(is_transactional=True)
    world.machine.adopt(ProducerIdentity(7, 0))
    world.publish()
    world.step("ok")
    world.current_topic_id = "b"
    world.partition = ModelPartition()
    world.publish()
    world.finish()
    assert world.outcomes[1].error is not None
    assert world.appended() == []


def test_a_fenced_producer_ends() -> None:
    world = World()
    world.publish()
    world.publish()
    item = world.wire.popleft()
    world.feed(Failed((item.lane, item.token), ErrorBody(ErrorCode.PRODUCER_FENCED, "fenced")))
    assert [world.outcomes[number].error.code for number in (0, 1)] == ["PRODUCER_FENCED"] * 2  # type: ignore[union-attr]
    world.publish()
    assert world.outcomes[2].error is not None


def test_a_stale_answer_is_ignored() -> None:
    world = World()
    world.publish()
    stale = world.wire[0]
    world.step("request lost")
    world.tick()
    world.feed(Failed((stale.lane, stale.token), ErrorBody(ErrorCode.INVALID_BATCH, "late")))
    world.finish()
    assert world.appended() == [0]


def test_backoff_doubles_while_it_fails_and_resets_on_success() -> None:
    policy = RetryPolicy()
    assert [policy.delay_ms(n, lambda: 0.0) for n in (1, 2, 3, 20)] == [10, 20, 40, 1_000]
    assert policy.delay_ms(3, lambda: 1.0) == 32


def test_without_acknowledgements_a_batch_is_done_when_sent() -> None:
    world = World(acks=0)
    world.publish()
    assert world.wire[0].identity is None
    assert world.outcomes[0].base_offset == -1
    assert world.outcomes[0].error is None


def test_an_exhausted_epoch_takes_a_new_producer_id() -> None:
    world = World()
    world.publish()
    world.finish()
    lane = world.machine._lanes[LANE]
    assert lane.identity is not None
    lane.identity = type(lane.identity)(lane.identity.producer_id, 2**15 - 1)
    world.partition.producers[lane.identity.producer_id].epoch = 2**15 - 1
    world.publish()
    world.publish()
    world.step("refused")
    world.finish()
    assert world.appended() == [0, 2]
    last = world.transmitted[-1]
    assert last.identity is not None
    assert last.identity.producer_id == 8


def test_the_next_leader_is_asked_again_soon_however_often_others_have_refused() -> None:
    world = World()
    world.publish()
    for _ in range(12):
        item = world.wire.popleft()
        refusal = ErrorBody(ErrorCode.NOT_LEADER, "n2 leads", retriable=True)
        world.feed(Failed((item.lane, item.token), refusal))
        assert 0 < world.timers[LANE] - world.now <= MOVED_MS
        world.tick()


def test_what_expires_says_what_was_answered_last() -> None:
    lane = PartitionSequence(LANE, count(1))
    lane.identity = ProducerIdentity(7, 0)
    for number in range(2):
        lane.put(FakeBatch(number, 1, created_ms=0))
    first, _ = lane.transmit()
    lane.refuse(first.token, ErrorBody(ErrorCode.STORAGE_FULL, "no room", retriable=True))
    expired = lane.expire(created_before=1)
    assert [item.batch.number for item in expired] == [0, 1]  # type: ignore[attr-defined]
    assert expired[0].error.message.endswith("; last answer: STORAGE_FULL: no room")


def test_only_what_is_too_old_expires_whether_it_is_under_way_or_waits() -> None:
    lane = PartitionSequence(LANE, count(1))
    lane.identity = ProducerIdentity(7, 0)
    for number in range(10):
        lane.put(FakeBatch(number, 1, created_ms=number))
    assert len(lane.transmit()) == 5
    assert [item.batch.number for item in lane.expire(created_before=3)] == [0, 1, 2]  # type: ignore[attr-defined]
    assert [item.batch.number for item in lane.expire(created_before=7)] == [3, 4, 5, 6]  # type: ignore[attr-defined]
    assert len(lane) == 3


@pytest.mark.parametrize(
    ("code", "is_lost"),
    [
        (ErrorCode.OUT_OF_ORDER_SEQUENCE, True),
        (ErrorCode.UNKNOWN_PRODUCER, True),
        (ErrorCode.INVALID_BATCH, False),
        (ErrorCode.STORAGE_FULL, False),
    ],
)
def test_an_identity_is_lost_by_its_oldest_batch_and_only_over_its_sequence(
    code: ErrorCode, is_lost: bool
) -> None:
    lane = PartitionSequence(LANE, count(1))
    lane.identity = ProducerIdentity(7, 0)
    for number in range(2):
        lane.put(FakeBatch(number, 1, created_ms=0))
    first, second = lane.transmit()
    assert lane.is_lost(first.token, ErrorBody(code, "refused")) == is_lost
    assert not lane.is_lost(second.token, ErrorBody(code, "refused"))


def test_held_batches_wait_as_long_as_the_partition_asks_and_the_oldest_goes_alone() -> None:
    world = World()
    for _ in range(5):
        world.publish()
    for _ in range(5):
        world.step("held")
    for attempt in range(1, 20):
        assert not world.wire
        world.tick()
        assert world.now == attempt * 50, "no backoff grows"
        assert [item.batch.number for item in world.wire] == [0]
        world.publish()
        assert len(world.wire) == 1
        world.step("held")
    world.tick()
    world.step("ok")
    assert [item.batch.number for item in world.wire] == [1, 2, 3, 4, 5]
    world.finish()
    assert world.appended() == list(range(24))
    assert all(outcome.error is None for outcome in world.outcomes.values())
    assert world.told == [LaneHeld] * 24 + [LaneFreed]


def test_time_in_which_a_partition_is_held_counts_for_no_batch() -> None:
    world = World(expires=True, delivery_timeout_ms=100)
    world.publish()
    for _ in range(20):
        world.step("held")
        while not world.wire:
            world.tick()
    assert world.now > 900
    assert world.outcomes == {}
    world.step("request lost")
    lost_at = world.now
    while not world.outcomes:
        world.wire.clear()
        world.tick()
    assert world.now <= lost_at + 100
    assert world.outcomes[0].is_uncertain


def test_an_impatient_producer_gives_up_in_time_and_knows_that_nothing_was_written() -> None:
    world = World(expires=True, delivery_timeout_ms=100, is_patient=False)
    world.publish()
    world.publish()
    while len(world.outcomes) < 2:
        world.step("held")
    assert world.now <= 151
    assert [outcome.is_uncertain for outcome in world.outcomes.values()] == [False, False]
    assert "BACKPRESSURE" in world.outcomes[0].error.message  # type: ignore[union-attr]
    world.publish()
    world.finish()
    assert world.appended() == [2]


@pytest.mark.parametrize("ending", ["expired", "failed", "closed"])
@pytest.mark.parametrize("sends", [0, 1])
def test_what_never_left_is_not_uncertain(ending: str, sends: int) -> None:
    machine = new_machine(topic_id_of=lambda _: "a")
    machine.put(LANE, FakeBatch(0, 1, 0), 0)
    (transmit, *_) = machine.handle(
        Answered("init_producer", InitProducerReply(producer_id=1, producer_epoch=0)), 0
    )
    assert transmit.receipt is not None
    transmit.receipt.is_kept = True
    transmit.receipt.sends = sends
    if ending == "failed":
        machine.handle(Failed((LANE, transmit.token), LOST), 1)
    if ending == "closed":
        effects = machine.abandon(LOST)
    else:
        effects = machine.handle(TimerFired("expiry"), 10_001)
    (outcome,) = [effect for effect in effects if isinstance(effect, Outcome)]
    assert outcome.error is not None
    assert outcome.is_uncertain == bool(sends)


@pytest.mark.parametrize("code", [ErrorCode.STORAGE_FULL, ErrorCode.OVERLOADED])
def test_what_was_refused_before_it_was_written_is_not_uncertain(code: ErrorCode) -> None:
    machine = new_machine(topic_id_of=lambda _: "a")
    machine.put(LANE, FakeBatch(0, 1, 0), 0)
    (transmit, *_) = machine.handle(
        Answered("init_producer", InitProducerReply(producer_id=1, producer_epoch=0)), 0
    )
    machine.handle(Failed((LANE, transmit.token), ErrorBody(code, "not now", retriable=True)), 1)
    effects = machine.handle(TimerFired("expiry"), 10_001)
    assert [effect.is_uncertain for effect in effects if isinstance(effect, Outcome)] == [False]

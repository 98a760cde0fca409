"""A share group that looks at keys: the coordinator over simulated logs, through crashes, transactions and retention."""

import random
import time
from pathlib import Path
from typing import Any

import pytest

from planaria import Broker
from planaria.actors.coordinator.share.acquiring import LOOK_MS
from planaria.actors.coordinator.share.log_bounds import LogBounds
from planaria.transport.batch import build
from planaria.transport.protocol.errors import ErrorBody
from planaria.transport.protocol.groups import DescribeGroup
from planaria.transport.protocol.shares import Acquire, ConfigureShareGroup
from simulated_group import GROUP
from simulated_share import SimulatedShare


@pytest.fixture
def group() -> SimulatedShare:
    group = SimulatedShare()
    group.run()
    return group


def configure(group: SimulatedShare, **options: Any) -> None:
    body = group.request("operator", ConfigureShareGroup(group=GROUP, **options))
    assert not isinstance(body, ErrorBody), body


def publish(group: SimulatedShare, keys: str, headers: dict[str, str] | None = None) -> None:
    records = [(key.encode(), b"x", 0, headers) for key in keys]
    group.log_of("ORDERS").append(build(records, first_timestamp_ms=1, max_timestamp_ms=1))
    group.drain()


def acquired(group: SimulatedShare, member: str, count: int = 100) -> list[int]:
    """Return the offsets that a member gets without waiting."""
    return [
        offset
        for each in group.acquire(member, count)
        for offset in range(each.first_offset, each.last_offset + 1)
    ]


def accept(group: SimulatedShare, member: str, *offsets: int) -> None:
    for offset in offsets:
        assert group.acknowledge(member, offset, offset, "accept") is None


def test_keys_take_turns_and_everything_is_delivered_once(group: SimulatedShare) -> None:
    configure(group, fair=True)
    publish(group, "aaaaaaab")
    assert acquired(group, "m", 2) == [0, 7]
    accept(group, "m", 0, 7)
    assert acquired(group, "m") == [1, 2, 3, 4, 5, 6]
    accept(group, "m", 1, 2, 3, 4, 5, 6)
    assert group.state.shares["ORDERS", 0].start == 8


def test_no_more_of_a_key_are_locked_than_allowed(group: SimulatedShare) -> None:
    configure(group, max_in_flight_per_key=1)
    publish(group, "aab")
    assert acquired(group, "m") == [0, 2]
    assert acquired(group, "n") == []
    accept(group, "m", 0)
    assert acquired(group, "n") == [1]


def test_a_waiting_member_gets_a_record_when_its_key_is_free(group: SimulatedShare) -> None:
    configure(group, rate_per_key=1)
    publish(group, "aa")
    assert acquired(group, "m") == [0]
    waiting = group.ask("n", Acquire(group=GROUP, topics=["ORDERS"], member_id="n", max_wait_ms=30_000))
    group.drain()
    assert group.answer_of(waiting) is None
    group.advance(1_100, group.drain)
    reply = group.answer_of(waiting)
    assert [each.first_offset for each in reply.ranges] == [1]


def test_a_successor_knows_the_keys_of_records_that_are_not_done(group: SimulatedShare) -> None:
    configure(group, max_in_flight_per_key=1)
    publish(group, "aaab")
    assert acquired(group, "m") == [0, 3]
    accept(group, "m", 3)
    group.crash(is_append_durable=True)
    group.drain()
    publish(group, "b")
    assert acquired(group, "n") == [0, 4]
    assert acquired(group, "n") == []


def test_expired_records_are_skipped_or_dead_lettered(group: SimulatedShare) -> None:
    configure(group, expired="skip")
    publish(group, "ab", {"expires-at-ms": "1"})
    publish(group, "c")
    assert acquired(group, "m") == [2]
    accept(group, "m", 2)
    assert group.state.shares["ORDERS", 0].start == 3
    configure(group, expired="dead_letter", dead_letter="DLQ")
    publish(group, "a", {"expires-at-ms": "1"})
    assert acquired(group, "m") == []
    group.drain()
    assert group.log_of("DLQ").end == 1


def test_a_higher_priority_is_first(group: SimulatedShare) -> None:
    configure(group, fair=True)
    publish(group, "aaa")
    publish(group, "b", {"priority": "5"})
    publish(group, "c", {"priority": "high"})
    assert acquired(group, "m", 2) == [0, 3]


def test_only_the_newest_of_a_key_is_delivered(group: SimulatedShare) -> None:
    configure(group, coalesce="latest", max_wait_ms=1_000)
    publish(group, "aab")
    assert acquired(group, "m") == []
    group.advance(1_000, group.drain)
    assert acquired(group, "m") == [1, 2]
    accept(group, "m", 1, 2)
    assert group.state.shares["ORDERS", 0].start == 3


def test_offsets_without_records_are_done(group: SimulatedShare) -> None:
    configure(group, fair=True)
    publish(group, "ab")
    group.log_of("ORDERS").leave_a_gap(5)
    publish(group, "c")
    assert acquired(group, "m") == [0, 1, 7]
    accept(group, "m", 0, 1, 7)
    assert group.state.shares["ORDERS", 0].start == 8


def test_retention_takes_records_that_are_known(group: SimulatedShare) -> None:
    configure(group, max_in_flight_per_key=1)
    publish(group, "aa")
    publish(group, "ab")
    assert acquired(group, "m") == [0, 3]
    group.log_of("ORDERS").retain_from(2)
    publish(group, "c")
    assert 2 in acquired(group, "n")


def test_a_group_that_no_longer_looks_at_keys_delivers_what_is_left(group: SimulatedShare) -> None:
    configure(group, max_in_flight_per_key=1)
    publish(group, "aaab")
    assert acquired(group, "m") == [0, 3]
    configure(group, max_in_flight_per_key=0)
    assert acquired(group, "n") == [1, 2]


def test_a_noisy_key_of_a_hundred_thousand_records_delays_no_other(group: SimulatedShare) -> None:
    configure(group, fair=True)
    for _ in range(100):
        publish(group, "a" * 1_000)
    publish(group, "b")
    assert acquired(group, "m", 1) == [0]
    assert acquired(group, "m", 2) == [1, 100_000]


def test_a_record_that_comes_while_others_wait_is_found_before_they_are_done(group: SimulatedShare) -> None:
    configure(group, fair=True)
    publish(group, "a" * 100)
    for number in range(3):
        assert acquired(group, "m", 1) == [number]  # of the known records
    publish(group, "b")
    group.advance(LOOK_MS)
    assert 100 in [*acquired(group, "m", 1), *acquired(group, "n", 1), *acquired(group, "o", 1)]


def test_looking_for_new_records_is_no_work_for_each_delivery(
    group: SimulatedShare, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    request_tail = LogBounds.request_tail
    monkeypatch.setattr(
        LogBounds, "request_tail", lambda *given: looks.append(group.now) or request_tail(*given)
    )
    configure(group, fair=True)
    publish(group, "a" * 100)
    for number in range(60):
        assert acquired(group, "m", 1) == [number]
        group.advance(10)
    assert len(looks) in (6, 7)


@pytest.mark.chaos
@pytest.mark.processes
def test_another_key_is_served_within_a_second_behind_a_noisy_one(tmp_path: Path) -> None:
    """With a real broker, on a quiet machine: a hundred thousand jobs of one tenant wait."""
    with Broker(tmp_path / "data", endpoint="tcp://127.0.0.1:*") as broker:
        broker.create_topic("JOBS")
        broker.configure_share_group("workers", fair=True)
        with broker.producer() as producer:
            for number in range(100_000):
                producer.publish("JOBS", number, key="noisy")
        with broker.client.share_consumer("workers", "JOBS") as worker:
            worker.acknowledge(worker.poll(60, max_messages=1))
            for _ in range(10):
                began = time.monotonic()
                broker.publish("JOBS", "quiet", None)
                is_served = False
                while not is_served:
                    jobs = worker.poll(10, max_messages=10)
                    worker.acknowledge(jobs)
                    is_served = any(job.key == b"quiet" for job in jobs)
                assert time.monotonic() - began < 1


def test_every_record_is_accepted_once_through_crashes_and_failures(group: SimulatedShare, seed: int) -> None:
    draw = random.Random(seed)
    configure(group, fair=True, max_in_flight_per_key=2, max_deliveries=1_000)
    accepted: set[int] = set()
    published = 0
    for _ in range(60):
        if draw.random() < 0.5:
            count = draw.randint(1, 8)
            publish(group, "".join(draw.choices("aaab", k=count)))
            published += count
        member = draw.choice("mn")
        found = acquired(group, member, draw.randint(1, 5))
        assert not accepted & set(found)
        for offset in found:
            verdict = draw.choice(["accept", "accept", "fail", "release"])
            assert group.acknowledge(member, offset, offset, verdict) is None
            accepted |= {offset} if verdict == "accept" else set()
        if draw.random() < 0.1:
            group.crash(is_append_durable=draw.random() < 0.5)
            group.drain()
    while found := acquired(group, "m", 5):
        accept(group, "m", *found)
        accepted |= set(found)
    assert accepted == set(range(published))
    assert group.request("operator", DescribeGroup(group=GROUP)).share.partitions[0].start_offset == published

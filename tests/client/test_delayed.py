"""Delayed messages in the client: valid times, and the resulting requests."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from fake_broker import FakeBroker
from planaria.transport.batch import RecordFields
from planaria.transport.client.client import Client
from planaria.transport.client.identified import ANY_PARTITION, DelayedRecords, Schedule
from planaria.transport.client.lanes import Outcome
from planaria.transport.client.options import InvalidOption
from planaria.transport.client.schedule import schedule
from planaria.transport.machine import Answered, Call
from planaria.transport.protocol.data import PublishedRecord, PublishReply
from planaria.transport.protocol.errors import ErrorBody
from planaria.transport.protocol.message import MAX_HEADER_BYTES


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"delay": 1.5}, (None, 1_500)),
        ({"delay": timedelta(minutes=2)}, (None, 120_000)),
        ({"delay": 0}, (None, 0)),
        ({"deliver_at": 1_700_000_000_000}, (1_700_000_000_000, None)),
        ({"deliver_at": datetime(2026, 1, 31, 12, tzinfo=UTC)}, (1_769_860_800_000, None)),
    ],
)
def test_a_time_is_said_in_several_ways(
    given: dict[str, Any], expected: tuple[int | None, int | None]
) -> None:
    when = schedule(given.get("deliver_at"), given.get("delay"), "id", None)
    assert when == Schedule("id", *expected)


def test_each_message_gets_an_id_of_its_own() -> None:
    assert schedule(None, 1, None, None).scheduled_id != schedule(None, 1, None, None).scheduled_id


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ((None, -1, None, None), "delay: must be 0 to 31622400 seconds, not -1"),
        ((None, float("nan"), None, None), "delay: must be"),
        ((None, timedelta(days=400), None, None), "delay: must be"),
        ((-5, None, None, None), "deliver_at: must be a time after 1970, not -5"),
        ((5, 5, None, None), "deliver_at and delay are both given"),
        ((None, None, "id", None), "scheduled_id: is for messages with deliver_at or delay"),
        ((None, 5, "", None), "scheduled_id: must have 1 to 256 bytes"),
        ((None, 5, None, "order-17"), "dedup_id: a delayed message is recognised by its scheduled_id"),
    ],
)
def test_what_cannot_be_is_refused(given: tuple[Any, ...], wrong: str) -> None:
    with pytest.raises(InvalidOption, match=wrong):
        schedule(*given)


def test_a_delayed_message_that_is_too_large_for_a_request_is_refused_at_once(
    client: Client, broker: FakeBroker
) -> None:
    client.create_topic("BIG", 1)
    with pytest.raises(InvalidOption, match=r"value: a delayed message has at most 8388608 bytes, not 8\d+"):
        client.publish("BIG", bytes(MAX_HEADER_BYTES), delay=1)
    assert broker.count("publish") == 0


def batch(name: str, when: tuple[int | None, int | None], created_ms: int) -> Any:
    return SimpleNamespace(
        name=name,
        alone=RecordFields(None, name.encode(), 0, None),
        records=SimpleNamespace(has_own_times=False),
        schedule=Schedule(name, *when),
        created_ms=created_ms,
        size_bytes=10,
    )


def test_a_delay_is_what_is_left_of_it_when_the_broker_is_asked() -> None:
    lanes = DelayedRecords(1_000, 100)
    tp = ("T", ANY_PARTITION)
    (asked,) = lanes.put(tp, batch("a", (None, 500), 0), 0)
    lanes.put(tp, batch("b", (None, 500), 100), 100)
    lanes.put(tp, batch("c", (9_000, None), 100), 100)
    lanes.put(tp, batch("d", (None, 10), 100), 100)
    assert isinstance(asked, Call)
    assert asked.key == ("delayed", tp)
    refused = ErrorBody("INVALID_REQUEST", "no")
    reply = PublishReply(records=[PublishedRecord(-1, -1, scheduled_id="a")])
    outcome, again = lanes.handle(Answered(asked.key, reply), 300)
    assert isinstance(outcome, Outcome)
    assert (outcome.batch.name, outcome.error) == ("a", None)
    assert isinstance(again, Call)
    request: Any = again.request
    assert (request.topic, request.partition) == ("T", None)
    assert [
        (each.value, each.scheduled_id, each.delay_ms, each.deliver_at_ms) for each in request.records
    ] == [
        (b"b", "b", 300, None),
        (b"c", "c", None, 9_000),
        (b"d", "d", 0, None),
    ]
    reply = PublishReply(
        records=[
            PublishedRecord(-1, -1, scheduled_id="b"),
            PublishedRecord(-1, -1, duplicate=True, scheduled_id="c"),
            PublishedRecord(-1, -1, refused),
        ]
    )
    outcomes: list[Any] = lanes.handle(Answered(again.key, reply), 300)
    assert [(each.batch.name, each.is_duplicate, each.error) for each in outcomes] == [
        ("b", False, None),
        ("c", True, None),
        ("d", False, refused),
    ]

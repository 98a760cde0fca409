"""Errors by their classes, and a group's lag, as a program sees them on a running broker."""

from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from live_trees import until
from patience import TIMEOUT_S
from planaria import Broker, GroupNotEmpty, LogPosition, TopicExists, UnknownGroup, UnknownTopic

pytestmark = pytest.mark.processes


def test_refusals_have_classes(broker: Broker) -> None:
    client = broker.client
    client.create_topic("T", 2)
    with pytest.raises(TopicExists):
        client.create_topic("T", 3)
    with pytest.raises(TopicExists):
        broker.create_topic("T", 3)
    for refused in (
        lambda: client.describe_group("none"),
        lambda: client.delete_group("none"),
        lambda: client.group_lag("none"),
    ):
        with pytest.raises(UnknownGroup):
            refused()
    with pytest.raises(UnknownTopic):
        client.describe_topic("none")
    with client.consumer("g", "T") as member:
        until(lambda: member.poll(0.1) or member.assignment(), "it is a member")
        with pytest.raises(GroupNotEmpty):
            client.reset_offsets("g", {("T", 0): 0})  # type: ignore[dict-item]
        with pytest.raises(GroupNotEmpty):
            client.delete_group("g")


def test_the_lag_of_a_group_counts_what_it_has_not_committed(broker: Broker) -> None:
    client = broker.client
    client.create_topic("T", 2)
    for number in range(10):
        client.publish("T", number, partition=number % 2)
    with client.consumer("g", "T", auto_offset_reset="earliest", auto_commit=False) as consumer:
        messages = []
        while len(messages) < 10:
            messages += consumer.poll(TIMEOUT_S)
        consumer.commit({("T", 0): 2, ("T", 1): 5})  # type: ignore[dict-item]
    assert client.group_lag("g") == {("T", 0): 3, ("T", 1): 0}
    client.delete_topic("T")
    assert set(client.group_lag("g").values()) <= {None}


def test_a_time_is_a_datetime_or_milliseconds(broker: Broker) -> None:
    client = broker.client
    client.create_topic("T")
    start_ms = 1_700_000_000_000
    for number in range(5):
        client.publish("T", number, partition=0, timestamp_ms=start_ms + number)
    third = datetime.fromtimestamp(start_ms // 1000, UTC) + timedelta(milliseconds=2)
    tp = ("T", 0)
    with client.consumer(topics="T") as consumer:
        for time in (third, third.astimezone(), third.astimezone().replace(tzinfo=None), start_ms + 2):
            assert consumer.offsets_for_times({tp: time}) == {tp: 2}  # type: ignore[dict-item]
            assert client.list_offsets("T", 0, time) == LogPosition(offset=2, timestamp_ms=start_ms + 2)
        between = third + timedelta(microseconds=1)
        assert consumer.offsets_for_times({tp: between}) == {tp: 3}  # type: ignore[dict-item]


def test_a_broker_administers_as_its_client_does(broker: Broker) -> None:
    broker.create_topic("T", 2)
    broker.create_topic("T", 2)
    assert broker.describe_topic("T") == broker.client.describe_topic("T")
    assert [each.topic for each in broker.list_topics()] == ["T"]
    assert broker.list_offsets("T", 0, datetime(2100, 1, 1)) is None
    assert broker.list_offsets("T", 0).offset == 0
    assert broker.alter_topic("T", 3, retention_ms=5_000).config.retention_ms == 5_000
    broker.set_quota("c", fetch_bytes=5)
    assert (broker.list_quotas()["c"].fetch_bytes, broker.list_quotas()["c"].produce_bytes) == (5, None)
    broker.publish("T", None, b"x", delay=timedelta(hours=1), scheduled_id="later")
    assert [each.scheduled_id for each in broker.list_scheduled("T")] == ["later"]
    broker.remove_quota("c")
    assert broker.revive("gateway/0") == "ready"
    assert {each.address for each in broker.client.status().actors} >= {"gateway/0", "partition/T/0"}
    assert {each.address for each in broker.status().actors} >= {"gateway/0", "partition/T/0"}


def test_a_declaration_that_differs_is_reported(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    broker.create_topic("T", 2, retention_ms=5_000)
    for declare in (broker.create_topic, partial(broker.client.create_topic, if_not_exists=True)):
        caplog.clear()
        assert len(declare("T", 1, retention_ms=6_000).partitions) == 2
        assert "retention_ms = 5000, not 6000" in caplog.text
        with pytest.raises(TopicExists, match="2 partitions, not 3"):
            declare("T", 3)

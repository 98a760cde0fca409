"""Errors by their classes, and a group's lag, as a program sees them on a running broker."""

from datetime import UTC, datetime, timedelta

import pytest

from planaria import Broker, GroupNotEmpty, TopicExists, UnknownGroup, UnknownTopic

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
        member.poll(5)
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
            messages += consumer.poll(5)
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
            assert client.list_offsets("T", 0, time).offset == 2
        between = third + timedelta(microseconds=1)
        assert consumer.offsets_for_times({tp: between}) == {tp: 3}  # type: ignore[dict-item]

"""Errors by their classes, and a group's lag, as a program sees them on a running broker."""

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

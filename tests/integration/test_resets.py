"""Committed offsets are set only in partitions that exist."""

import pytest

from patience import TIMEOUT_S
from planaria import Broker, InvalidOption, ProtocolError

pytestmark = pytest.mark.processes


def test_a_reset_of_what_does_not_exist_is_refused_and_sets_nothing(broker: Broker) -> None:
    broker.create_topic("T", 2)
    broker.client.publish("T", 1, partition=0)
    with broker.client.consumer("g", ["T"], auto_offset_reset="earliest") as consumer:
        assert consumer.poll(TIMEOUT_S)
        consumer.commit()
    broker.client.reset_offsets("g", {("T", 0): 1, ("T", 1): 0})
    with pytest.raises(ProtocolError, match="UNKNOWN_PARTITION"):
        broker.client.reset_offsets("g", {("T", 0): 0, ("T", 2): 0})
    with pytest.raises(InvalidOption, match="from 0 up, not -1"):
        broker.client.reset_offsets("g", {("T", 0): 0, ("T", -1): 0})
    with pytest.raises(ProtocolError, match="UNKNOWN_TOPIC"):
        broker.client.reset_offsets("g", {("T", 0): 0, ("NOPE", 0): 0})
    offsets = broker.client.describe_group("g").offsets
    assert [(entry.topic, entry.partition, entry.offset) for entry in offsets] == [("T", 0, 1), ("T", 1, 0)]

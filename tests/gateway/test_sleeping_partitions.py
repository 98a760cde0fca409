"""Sleeping partitions: requests are routed to them, which wakes them, and clients see them as online."""

from typing import Any

import pytest

from gateway_driver import GatewayDriver
from planaria.transport.addresses import Address
from planaria.transport.machine import PeersAsleep
from planaria.transport.protocol.data import Fetch, ListOffsets, Produce, Publish, PublishRecord
from planaria.transport.protocol.message import Request
from planaria.transport.protocol.session import Metadata

ADDRESS = "partition/ORDERS/0"
TP: dict[str, Any] = {"topic": "ORDERS", "partition": 0}


@pytest.fixture
def gateway() -> GatewayDriver:
    gateway = GatewayDriver().start(ORDERS=1)
    gateway.down(ADDRESS, "no traffic", asleep=True)
    return gateway


@pytest.mark.parametrize("request_", [Produce(**TP), Fetch(**TP, offset=0), ListOffsets(**TP, at="latest")])
def test_requests_go_on_to_it(gateway: GatewayDriver, request_: Request) -> None:
    gateway.ask(request_, b"payload")
    assert [call.address for call in gateway.calls] == [ADDRESS]


def test_messages_without_a_partition_go_on_to_it(gateway: GatewayDriver) -> None:
    gateway.ask(Publish(topic="ORDERS", records=[PublishRecord(value=b"1")]))
    assert [call.address for call in gateway.calls] == [ADDRESS]


def test_what_nobody_waits_for_wakes_it_too(gateway: GatewayDriver) -> None:
    number = gateway.ask(Produce(**TP, acks=0), b"payload")
    (call,) = gateway.calls
    assert (call.address, call.payload) == (ADDRESS, (b"payload",))
    gateway.answer(b"raw")
    assert number not in gateway.replies
    gateway.ask(Produce(**TP, acks=0), b"payload")
    gateway.fail()


def test_clients_see_it_online_as_the_incarnation_that_they_will_wake(gateway: GatewayDriver) -> None:
    """So a client whose connection has ended does not wait until it trusts the old incarnation again."""
    (topic,) = gateway.reply(Metadata(topics=["ORDERS"])).topics
    (partition,) = topic.partitions
    assert (partition.online, partition.incarnation, partition.endpoint) == (True, 2, None)
    gateway.up(ADDRESS)
    (topic,) = gateway.reply(Metadata(topics=["ORDERS"])).topics
    assert topic.partitions[0].incarnation == 2
    assert topic.partitions[0].endpoint is not None


def test_one_that_died_on_its_way_is_offline(gateway: GatewayDriver) -> None:
    gateway.up(ADDRESS)
    gateway.down(ADDRESS)
    (topic,) = gateway.reply(Metadata(topics=["ORDERS"])).topics
    assert not topic.partitions[0].online


def test_a_poll_ends_when_it_falls_asleep() -> None:
    gateway = GatewayDriver().start(ORDERS=1)
    version = gateway.reply(Metadata(topics=["ORDERS"])).version
    number = gateway.ask(Metadata(topics=["ORDERS"], after_version=version, max_wait_ms=10_000))
    gateway.down(ADDRESS, asleep=True)
    assert gateway.replies[number].topics[0].partitions[0].online


def test_those_that_slept_before_the_gateway_was_there() -> None:
    gateway = GatewayDriver()
    gateway.up("controller")
    gateway.give(PeersAsleep(addresses=[Address.parse(ADDRESS)]))
    gateway.set_topics(ORDERS=1)
    gateway.ask(Produce(**TP), b"payload")
    assert [call.address for call in gateway.calls] == [ADDRESS]

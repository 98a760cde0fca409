"""Metadata: its contents, and the requests that a change wakes."""

import pytest

from gateway_driver import GatewayDriver
from planaria.actors.gateway.keys import PollTimer
from planaria.transport.addresses import Address
from planaria.transport.protocol.control import PeerUp
from planaria.transport.protocol.session import Metadata
from planaria.transport.protocol.topics import CatalogTopic


@pytest.fixture
def gateway() -> GatewayDriver:
    return GatewayDriver().start(ORDERS=2, SHIPMENTS=1)


def version(gateway: GatewayDriver) -> int:
    found: int = gateway.reply(Metadata()).version
    return found


def test_topics_partitions_and_endpoints(gateway: GatewayDriver) -> None:
    gateway.down("partition/ORDERS/1", "killed")
    reply = gateway.reply(Metadata(topics=["ORDERS", "NOPE", "ORDERS"]))
    (topic,) = reply.topics
    assert (topic.topic, topic.topic_id, topic.max_message_bytes) == ("ORDERS", "id-ORDERS", 1_000)
    first, second = topic.partitions
    assert (first.online, first.incarnation, first.endpoint) == (True, 1, "ipc://partition/ORDERS/0.1")
    assert (second.online, second.endpoint) == (False, None)
    assert "killed" in second.reason
    assert (reply.unknown_topics, reply.instance_id) == (["NOPE"], "run")


def test_a_coordinator_has_an_endpoint_while_it_is_up(gateway: GatewayDriver) -> None:
    def endpoint() -> str | None:
        (group,) = gateway.reply(Metadata(topics=[], groups=["g"])).groups
        found: str | None = group.endpoint
        return found

    assert endpoint() is None
    gateway.up("coordinator/g")
    assert endpoint() == "ipc://coordinator/g.1"
    gateway.down("coordinator/g", "no work", asleep=True)
    assert endpoint() is None, "the gateway wakes it"


def test_a_coordinator_on_another_node_has_the_name_of_that_node(gateway: GatewayDriver) -> None:
    address = Address.parse("coordinator/g")
    up = PeerUp(address=address, incarnation=1, endpoint="ipc://link.1", node="n2", target=address)
    gateway.give(up)
    (group,) = gateway.reply(Metadata(topics=[], groups=["g"])).groups
    assert (group.endpoint, group.node) == (None, "n2")


def test_internal_topics_are_shown_on_demand_only(gateway: GatewayDriver) -> None:
    gateway.set_topics(ORDERS=1, __offsets=1)
    assert [each.topic for each in gateway.reply(Metadata()).topics] == ["ORDERS"]
    assert [each.topic for each in gateway.reply(Metadata(topics=["__offsets"])).topics] == ["__offsets"]


def test_no_client_is_shown_a_way_past_the_gateway_to_an_internal_topic() -> None:
    gateway = GatewayDriver().start(__offsets=1)
    (topic,) = gateway.reply(Metadata(topics=["__offsets"])).topics
    (partition,) = topic.partitions
    assert (partition.online, partition.endpoint) == (True, None)


def test_before_the_first_table_the_controller_is_asked() -> None:
    gateway = GatewayDriver()
    gateway.up("controller")
    gateway.hold_topics(ORDERS=1)
    assert [each.topic for each in gateway.reply(Metadata()).topics] == ["ORDERS"]
    gateway = GatewayDriver()
    gateway.up("controller")
    gateway.controller_answers = False
    number = gateway.ask(Metadata())
    gateway.fail("ACTOR_UNAVAILABLE")
    assert gateway.replies[number].retriable


def test_a_topic_just_created_is_found(gateway: GatewayDriver) -> None:
    gateway.hold_topics(ORDERS=2, NEW=1)
    assert gateway.reply(Metadata(topics=["NEW"])).unknown_topics == []


def test_a_poll_is_parked_until_its_topic_changes(gateway: GatewayDriver) -> None:
    number = gateway.ask(Metadata(topics=["ORDERS"], after_version=version(gateway), max_wait_ms=10_000))
    gateway.down("partition/SHIPMENTS/0")
    gateway.up("coordinator/g")
    assert number not in gateway.replies
    gateway.down("partition/ORDERS/1")
    assert not gateway.replies[number].topics[0].partitions[1].online
    assert PollTimer(number) not in gateway.timers


def test_a_poll_for_all_hears_of_every_topic_but_internal_ones(gateway: GatewayDriver) -> None:
    poll = Metadata(after_version=version(gateway), max_wait_ms=10_000)
    first = gateway.ask(poll)
    gateway.set_topics(ORDERS=2, SHIPMENTS=1, __offsets=1)
    gateway.up("partition/__offsets/0")
    assert first not in gateway.replies
    gateway.set_topics(ORDERS=2, SHIPMENTS=1, __offsets=1, NEW=1)
    assert [each.topic for each in gateway.replies[first].topics] == ["NEW", "ORDERS", "SHIPMENTS"]


def test_a_poll_for_an_unknown_topic_hears_of_its_creation_and_end(gateway: GatewayDriver) -> None:
    first = gateway.ask(Metadata(topics=["NEW"], after_version=version(gateway), max_wait_ms=10_000))
    assert first not in gateway.replies
    gateway.set_topics(ORDERS=2, NEW=1)
    created = gateway.replies[first]
    assert created.topics[0].topic == "NEW"
    second = gateway.ask(Metadata(topics=["NEW"], after_version=created.version, max_wait_ms=10_000))
    gateway.set_topics(ORDERS=2)
    assert gateway.replies[second].unknown_topics == ["NEW"]


def test_a_changed_topic_is_news(gateway: GatewayDriver) -> None:
    first = gateway.ask(Metadata(topics=["ORDERS"], after_version=version(gateway), max_wait_ms=10_000))
    gateway.set_topics(CatalogTopic("ORDERS", "id-ORDERS", 2, 5_000), SHIPMENTS=1)
    assert gateway.replies[first].topics[0].max_message_bytes == 5_000


def test_news_missed_between_two_polls_is_told_at_once(gateway: GatewayDriver) -> None:
    before = version(gateway)
    gateway.down("partition/ORDERS/0")
    assert gateway.reply(Metadata(topics=["ORDERS"], after_version=before, max_wait_ms=10_000))
    number = gateway.ask(Metadata(topics=["SHIPMENTS"], after_version=before, max_wait_ms=10_000))
    assert number not in gateway.replies


def test_a_poll_ends_with_its_time(gateway: GatewayDriver) -> None:
    at = version(gateway)
    number = gateway.ask(Metadata(after_version=at, max_wait_ms=3_000))
    gateway.advance(2_999)
    assert number not in gateway.replies
    gateway.advance(1)
    assert gateway.replies[number].version == at


def test_versions_of_incarnations_do_not_meet() -> None:
    old = GatewayDriver(incarnation=1).start(ORDERS=1)
    new = GatewayDriver(incarnation=2).start(ORDERS=1)
    assert version(new) > version(old) + 1_000_000
    assert new.reply(Metadata(after_version=version(old), max_wait_ms=9_000))
    assert old.reply(Metadata(after_version=version(new), max_wait_ms=9_000))


def test_deleted_topics_leave_nothing_behind(gateway: GatewayDriver) -> None:
    for number in range(1_500):
        gateway.set_topics(**{f"T{number}": 1})
    assert len(gateway.machine._metadata._changed_at) < 1_100

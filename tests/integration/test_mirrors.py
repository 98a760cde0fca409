"""Mirrors between two real brokers, which all tests share: copies, promotion, and kills on both sides."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from patience import wait_until
from planaria import Broker, Client
from planaria.transport.producer_ids import producer_id_of, site_from
from planaria.transport.protocol.data import InitProducer, InitProducerReply
from planaria.transport.protocol.errors import ErrorCode, ProtocolError
from relay import Relay
from sites import SETTINGS, Sites, caught_up, ends, fill, records

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    folder = tmp_path_factory.mktemp("sites")
    with Broker(folder / "source", **SETTINGS) as source, Broker(folder / "here", **SETTINGS) as here:
        yield Sites(source, here)


def test_topics_are_copied_followed_and_promoted(sites: Sites) -> None:
    fill(sites.source, "A.ORDERS", 500, partitions=2)
    sites.mirror("a", "A.*")
    wait_until(caught_up(sites, "A.ORDERS"))
    assert records(sites.here, "A.ORDERS") == records(sites.source, "A.ORDERS")
    described = sites.here.describe_topic("A.ORDERS")
    assert described.topic_id == sites.source.describe_topic("A.ORDERS").topic_id
    fill(sites.source, "A.LATER", 3)  # found by the pattern
    with sites.source.consumer("a.billing", ["A.ORDERS"], auto_offset_reset="earliest") as consumer:
        seen = sum(1 for _ in zip(range(500), consumer, strict=False))
        consumer.commit()
    assert seen == 500
    with pytest.raises(ProtocolError) as refused:
        sites.here.alter_topic("A.ORDERS", retention_ms=1_000)
    assert refused.value.code == ErrorCode.TOPIC_IS_MIRRORED
    wait_until(caught_up(sites, "A.LATER"))
    wait_until(lambda: sites.here.group_offsets("a.billing") == sites.source.group_offsets("a.billing"))
    with sites.source.producer(transactional_id="a.tx") as producer:
        transaction = producer.transaction()
        transaction.publish("A.ORDERS", "open", partition=0).result()
        wait_until(caught_up(sites, "A.ORDERS"))
        promoted = sites.promote("a")
        transaction.abort()
    assert sorted(promoted) == ["A.LATER", "A.ORDERS"]
    assert sum(fork.offset for fork in promoted["A.ORDERS"]) == 501
    sites.here.publish("A.ORDERS", "new", key="new")
    assert [each.data for each in sites.here.read("A.ORDERS")].count("open") == 0
    assert "new" in [each.data for each in sites.here.read("A.ORDERS")]
    assert sites.promote("a") == promoted
    topic = sites.topic("a", "A.ORDERS")
    assert topic is not None
    assert topic.state == "promoted"
    sites.here.delete_mirror("a")
    assert "a" not in [each.mirror for each in sites.here.list_mirrors()]


def test_producer_ids_of_linked_brokers_have_a_site(sites: Sites) -> None:
    def highest_bits(client: Client) -> int:
        return client._ask(InitProducer(), InitProducerReply).producer_id // producer_id_of(0, 0, 1)

    sites.mirror("ids", "NONE")
    assert highest_bits(sites.source) == 0
    assert 1 <= highest_bits(sites.here) <= 31
    assert {site_from(bytes([each])) for each in range(250)} == set(range(1, 32))
    sites.here.delete_mirror("ids")


def test_a_source_that_is_created_again_is_a_fault(sites: Sites) -> None:
    fill(sites.source, "B", 10)
    sites.mirror("b", "B")
    wait_until(caught_up(sites, "B"))
    sites.source.delete_topic("B")
    fill(sites.source, "B", 20)

    def is_faulted() -> bool:
        topic = sites.topic("b", "B")
        return topic is not None and topic.state == "faulted"

    wait_until(is_faulted)
    topic = sites.topic("b", "B")
    assert topic is not None
    assert "created again" in topic.reason or "no longer has this partition" in topic.reason
    assert ends(sites.here, "B") == [10]
    sites.here.delete_topic("B")
    sites.here.resume_mirror("b")
    wait_until(caught_up(sites, "B"))
    sites.here.delete_mirror("b")


def test_a_topic_that_is_here_and_a_loop_are_refused(sites: Sites) -> None:
    fill(sites.source, "C", 5)
    fill(sites.here, "C", 3)
    sites.mirror("c", "C")

    def reason() -> str:
        topic = sites.topic("c", "C")
        return topic.reason if topic is not None and topic.state == "refused" else ""

    wait_until(lambda: "not a copy of the source's topic" in reason())
    assert ends(sites.here, "C") == [3]
    fill(sites.here, "LOOP", 1)
    back = sites.reversed
    back.mirror("back", "LOOP")
    wait_until(caught_up(back, "LOOP"))
    sites.mirror("loop", "LOOP")

    def loop_reason() -> str:
        topic = sites.topic("loop", "LOOP")
        return "" if topic is None else topic.reason

    wait_until(lambda: "a loop" in loop_reason())
    back.here.delete_mirror("back")
    sites.here.delete_mirror("loop")
    sites.here.delete_mirror("c")


def test_a_link_that_is_cut_is_caught_up(sites: Sites) -> None:
    fill(sites.source, "E", 10)
    host = sites.endpoint
    with Relay(int(host.rpartition(":")[2])) as relay:
        sites.endpoint = relay.endpoint
        sites.mirror("e", "E")
        sites.endpoint = host
        wait_until(caught_up(sites, "E"))
        for cut in (relay.cut, relay.go_silent):
            cut()
            fill(sites.source, "E", 500)
        wait_until(caught_up(sites, "E"))
    assert records(sites.here, "E") == records(sites.source, "E")
    sites.here.delete_mirror("e")


@pytest.mark.chaos
def test_a_link_that_is_cut_for_a_minute_under_load_is_caught_up(sites: Sites) -> None:
    fill(sites.source, "L", 1, partitions=2)
    host = sites.endpoint
    with Relay(int(host.rpartition(":")[2])) as relay:
        sites.endpoint = relay.endpoint
        sites.mirror("l", "L")
        sites.endpoint = host
        wait_until(caught_up(sites, "L"))
        relay.part()
        cut_at, published = time.monotonic(), 1
        with sites.source.producer(delivery_timeout_ms=60_000) as producer:
            while time.monotonic() < cut_at + 60:
                for _ in range(100):
                    producer.publish("L", published, key=str(published))
                    published += 1
                time.sleep(0.01)  # a pace, not a wait
        held = sum(end or 0 for end in ends(sites.here, "L"))
        assert held < published
        assert sites.report("l").state == "unreachable"
        relay.join()
        wait_until(caught_up(sites, "L"))
    assert records(sites.here, "L") == records(sites.source, "L")
    assert len(records(sites.here, "L")) == published
    sites.here.delete_mirror("l")


def test_killed_at_random_nothing_is_lost_or_doubled(sites: Sites) -> None:
    draw = random.Random(5)
    fill(sites.source, "D", 1, partitions=2)
    sites.mirror("d", "D")
    wait_until(caught_up(sites, "D"))
    source, here = sites.brokers
    victims = [
        (here, "mirror/d"),
        (here, "partition/D/0"),
        (here, "partition/D/1"),
        (here, "controller"),
        (source, "partition/D/0"),
        (source, "gateway/0"),
    ]
    draw.shuffle(victims)
    with sites.source.producer(delivery_timeout_ms=60_000) as producer:
        for broker, address in victims:
            for number in range(300):
                producer.publish("D", number, key=str(number))
            broker.kill(address)
        producer.flush()
    wait_until(caught_up(sites, "D"))
    assert records(sites.here, "D") == records(sites.source, "D")
    assert len(records(sites.here, "D")) == 1 + 300 * len(victims)
    sites.here.delete_mirror("d")


def test_a_mirror_of_a_mirror_has_the_offsets_and_the_topic_id_of_the_first_source(
    sites: Sites, tmp_path: Path
) -> None:
    fill(sites.source, "M.ORDERS", 200)
    sites.mirror("m", "M.ORDERS")
    wait_until(caught_up(sites, "M.ORDERS"))
    with Broker(tmp_path / "beyond", **SETTINGS) as broker:
        beyond = Sites(sites.brokers[1], broker)
        beyond.mirror("m", "M.ORDERS")
        wait_until(caught_up(beyond, "M.ORDERS"))
        fill(sites.source, "M.ORDERS", 50)
        wait_until(lambda: ends(beyond.here, "M.ORDERS") == ends(sites.source, "M.ORDERS"))
        assert records(beyond.here, "M.ORDERS") == records(sites.source, "M.ORDERS")
        first = sites.source.describe_topic("M.ORDERS").topic_id
        assert beyond.here.describe_topic("M.ORDERS").topic_id == first

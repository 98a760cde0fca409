"""Fail-back between two real brokers, with the processes of the old source killed on the way."""

import json
import re
import shlex
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from command_line import planaria
from documents import blocks_of
from patience import TIMEOUT_S, wait_until
from planaria import Broker, Client
from planaria.transport.protocol.errors import ErrorCode, ProtocolError
from shell_blocks import KINDS, steps_of
from sites import SETTINGS, Sites, caught_up, ends, fill, records
from source_tree import ROOT

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    folder = tmp_path_factory.mktemp("sites")
    with Broker(folder / "paris", **SETTINGS) as paris, Broker(folder / "rome", **SETTINGS) as rome:
        yield Sites(paris, rome)


def killed(broker: Broker, address: str) -> bool:
    try:
        broker.kill(address)
    except ProtocolError:
        return False  # it is being started
    return True


def test_the_old_source_follows_and_keeps_what_it_alone_had(sites: Sites) -> None:
    paris, rome = sites.brokers
    fill(sites.source, "ORDERS", 200, partitions=2)
    sites.mirror("paris", "ORDERS")
    wait_until(caught_up(sites, "ORDERS"))
    sites.here.pause_mirror("paris")
    fill(sites.source, "ORDERS", 1_000)  # never copied
    with sites.source.consumer("billing", ["ORDERS"], auto_offset_reset="earliest") as consumer:
        assert sum(1 for _ in zip(range(1_200), consumer, strict=False)) == 1_200
        consumer.commit()
    forks = {fork.partition: fork.offset for fork in sites.promote("paris")["ORDERS"]}
    alone = [each for each in records(sites.source, "ORDERS") if each[1] >= forks[each[0]]]
    assert len(alone) == 1_000
    for number in range(20):
        sites.here.publish("ORDERS", f"rome {number}", key=str(number))

    back = sites.reversed
    back.mirror("refused", "ORDERS")  # not by accident
    wait_until(lambda: "failback" in back.reason("refused", "ORDERS"))
    back.here.delete_mirror("refused")
    back.mirror("rome", "ORDERS", failback=True)
    for address in ("mirror/rome", "partition/ORDERS/0", "controller", "mirror/rome", "partition/ORDERS/1"):
        wait_until(lambda address=address: killed(paris, address))  # type: ignore[misc]
    wait_until(caught_up(back, "ORDERS"))
    assert records(back.here, "ORDERS") == records(back.source, "ORDERS")
    assert records(back.here, "__diverged.ORDERS") == alone
    # A producer that begins at the site that follows finds the promoted one.
    with (
        Client([paris.endpoint, rome.endpoint]) as client,
        client.producer(delivery_timeout_ms=60_000) as producer,
    ):
        producer.publish("ORDERS", "found", key="0").result(TIMEOUT_S)
    with pytest.raises(ProtocolError) as refused:
        back.here.publish("__diverged.ORDERS", "x")
    assert refused.value.code == ErrorCode.FORBIDDEN
    # The group had read beyond the forks here: it goes on there.
    with back.here.consumer("billing", ["ORDERS"], auto_offset_reset="earliest") as consumer:
        found = [message.data for _, message in zip(range(21), consumer, strict=False)]
    assert sorted(found) == sorted(["found", *(f"rome {number}" for number in range(20))])
    back.here.delete_topic("__diverged.ORDERS")

    # And the other way round, without records beyond the forks.
    back.promote("rome")
    back.here.publish("ORDERS", "paris again")
    sites.here.delete_mirror("paris")
    sites.mirror("paris", "ORDERS", failback=True)
    wait_until(caught_up(sites, "ORDERS"))
    assert records(sites.here, "ORDERS") == records(sites.source, "ORDERS")
    topic = sites.topic("paris", "ORDERS")
    assert topic is not None
    assert (topic.state, topic.diverged) == ("following", "")
    assert ends(sites.here, "__diverged.ORDERS") == []
    sites.here.delete_mirror("paris")
    back.here.delete_mirror("rome")


def test_of_two_promoted_topics_that_are_to_follow_each_other_one_is_refused(sites: Sites) -> None:
    """Both fail-backs are ordered at the same moment. In the end the records that each side alone has are there, or set
    aside."""
    back = sites.reversed
    fill(sites.source, "BOTH", 20)
    sites.mirror("to-rome", "BOTH")
    wait_until(caught_up(sites, "BOTH"))
    sites.promote("to-rome")
    sites.here.delete_mirror("to-rome")
    back.mirror("to-paris", "BOTH", failback=True)

    def is_following() -> bool:
        topic = back.topic("to-paris", "BOTH")
        return topic is not None and topic.state == "following"

    wait_until(is_following)
    wait_until(caught_up(back, "BOTH"))
    back.promote("to-paris")
    back.here.delete_mirror("to-paris")
    alone = {}
    for side in (sites, back):
        for number in range(10):
            side.here.publish("BOTH", f"{number} of {side.brokers[1].endpoint}", key=str(number))
        alone[side] = records(side.here, "BOTH")
    with ThreadPoolExecutor() as pool:
        orders = [pool.submit(side.mirror, "back", "BOTH", failback=True) for side in alone]
    for order in orders:
        order.result()

    def is_decided() -> bool:
        states = sorted(topic.state for side in alone if (topic := side.topic("back", "BOTH")) is not None)
        return states == ["following", "refused"]

    wait_until(is_decided)
    [refused] = [side for side in alone if "only one of the two can follow" in side.reason("back", "BOTH")]
    [follower] = [side for side in alone if side is not refused]
    refused.here.delete_mirror("back")
    refused.here.publish("BOTH", "more")
    wait_until(caught_up(follower, "BOTH"))
    assert records(follower.here, "BOTH") == records(refused.here, "BOTH")
    assert [each[-1] for each in records(refused.here, "BOTH")][:-1] == [each[-1] for each in alone[refused]]
    set_aside = records(follower.here, "__diverged.BOTH")
    assert set(alone[follower]) - set(alone[refused]) <= set(set_aside)
    follower.here.delete_mirror("back")


def test_every_command_does_what_it_says(sites: Sites) -> None:
    """Once each, over the whole life of a mirror."""
    here, there = sites.brokers[1].endpoint, sites.brokers[0].endpoint

    def run(*arguments: str, connect: str = here) -> str:
        done = planaria("mirror", *arguments, "--connect", connect)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refused(*arguments: str) -> str:
        done = planaria("mirror", *arguments, "--connect", here)
        assert done.returncode != 0
        assert len(done.stderr.splitlines()) == 1, done.stderr
        return done.stderr

    assert "there is no mirror 'v'" in refused("promote", "v")
    assert "mirror list shows all" in refused("pause", "v")
    assert "'V ORDERS' is neither a name nor a pattern" in refused("create", "v", "V ORDERS", "--from", there)
    fill(sites.source, "V.ORDERS", 10)
    sites.source.configure_share_group("v.queue")
    sites.source.publish("V.ORDERS", b"later", delay=3_600)
    created = run("create", "v", "V.*", "--from", there, "--bytes-per-second", "1MB")
    assert "copies V.*" in created
    assert "not copied: delayed messages" in created
    wait_until(caught_up(sites, "V.ORDERS"))
    assert "V.ORDERS" in run("status", "v")
    wait_until(lambda: "group v.queue is not copied: a share group" in run("status", "v"))
    assert "1000000" in run("list", "--json")
    assert "2,000 bytes a second" in run("throttle", "v", "2000")
    assert "no limit" in run("throttle", "v", "unlimited")
    wait_until(lambda: "V.ORDERS: 1 delayed message not copied" in run("status", "v"))
    run("pause", "v")
    assert "paused" in run("list")
    fill(sites.source, "V.ORDERS", 5)
    run("resume", "v")
    wait_until(caught_up(sites, "V.ORDERS"))
    run("pause", "v")
    fill(sites.source, "V.ORDERS", 2)  # not copied
    assert json.loads(run("promote", "v", "--json"))["topics"][0]["forks"][0]["offset"] == 15
    assert refused("failback", "v2", "V.*", "--from", there).startswith("planaria: V.ORDERS is refused")
    run("delete", "v2", "--yes")
    found = json.loads(run("failback", "w", "V.*", "--from", here, "--json", connect=there))["topics"]
    assert [(each["topic"], each["state"], each["diverged"]) for each in found] == [
        ("V.ORDERS", "following", "__diverged.V.ORDERS")
    ]
    assert found[0]["partitions"] == [{"partition": 0, "first": 15, "next": 17}]
    assert "kept in __diverged.V.ORDERS" in run("status", connect=there)
    assert "V.ORDERS is following and its mirror w was deleted" not in run("status", connect=there)
    run("delete", "w", "--yes", connect=there)
    assert "planaria mirror promote w V.ORDERS" in run("status", connect=there)
    run("delete", "v", "--yes")
    assert "there are no mirrors" in run("list", connect=there)


def test_the_commands_of_the_page_run(sites: Sites) -> None:
    paris, rome = (broker.endpoint for broker in sites.brokers)
    fill(sites.source, "PAYMENTS", 10)
    page = ROOT / "docs" / "mirrors.md"
    steps = [step for block in blocks_of(page) if block.kind in KINDS for step in steps_of(block)]
    assert [step.command.split()[2] for step in steps] == ["create", "status", "promote", "failback"]
    for step in steps:
        command = step.command.replace("tcp://paris:5570", paris).replace("tcp://rome:5570", rome)
        # Other tests have mirrors and topics of the same names.
        command = re.sub(r" (paris|rome) ", r" page-\1 ", command).replace("ORDERS*", "PAGE*")
        done = planaria(*shlex.split(command)[1:])
        assert done.returncode == 0, (command, done)
        if "mirror create" in command:
            wait_until(caught_up(sites, "PAYMENTS"))

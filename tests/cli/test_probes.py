"""Behaviour that scripts and probes rely on: exit codes, unwrapped lines, immediate answers."""

from collections.abc import Iterator

import pytest

from command_line import ServedBroker, planaria
from patience import TIMEOUT_S
from planaria import Client

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def client(broker: ServedBroker) -> Iterator[Client]:
    with Client(broker.endpoint) as client:
        client.create_topic("LOG", 1)
        client.publish("LOG", b"x")
        yield client


def test_check_says_that_all_is_well(broker: ServedBroker, client: Client) -> None:
    done = planaria("status", "--check", "--connect", broker.endpoint)
    assert (done.returncode, done.stderr) == (0, "")


def test_one_of_several_endpoints_that_answers_is_enough(broker: ServedBroker, client: Client) -> None:
    endpoints = f"tcp://127.0.0.1:1,{broker.endpoint.removeprefix('tcp://')}"
    for command in (("topic", "list"), ("status", "--check")):
        done = planaria(*command, "--connect", endpoints)
        assert (done.returncode, done.stderr) == (0, "")
    done = planaria("topic", "list", "--connect", "tcp://127.0.0.1:1,127.0.0.1:2")
    assert done.returncode == 1
    assert "no broker at tcp://127.0.0.1:1 or tcp://127.0.0.1:2" in done.stderr


def test_check_of_a_broker_that_is_not_there(endpoint: str) -> None:
    assert planaria("status", "--check", "--connect", endpoint).returncode == 2


def test_a_partition_that_is_not_there_is_told_at_once(broker: ServedBroker, client: Client) -> None:
    done = planaria("consume", "LOG", "--partition", "17", "--connect", broker.endpoint)
    assert done.returncode == 1
    assert "there is no 17" in done.stderr


def test_produce_without_input_tells_of_an_unknown_topic(broker: ServedBroker) -> None:
    done = planaria("produce", "NOPE", "--connect", broker.endpoint, given="")
    assert done.returncode == 1
    assert "NOPE" in done.stderr


def test_an_offset_outside_the_log_is_refused_unless_forced(broker: ServedBroker, client: Client) -> None:
    with client.consumer("g2", ["LOG"], auto_offset_reset="earliest") as consumer:
        assert consumer.poll(TIMEOUT_S)
    client.reset_offsets("g2", {("LOG", 0): 0})
    command = ("group", "reset", "g2", "--to", "20261128", "--connect", broker.endpoint)
    done = planaria(*command)
    assert done.returncode == 1
    assert "--force" in done.stderr
    assert client.group_offsets("g2") == {("LOG", 0): 0}
    assert planaria(*command, "--force").returncode == 0
    assert client.group_offsets("g2") == {("LOG", 0): 1}
    assert planaria("group", "reset", "g2", "--to", "24h", "--connect", broker.endpoint).returncode == 0
    assert client.group_offsets("g2") == {("LOG", 0): 0}

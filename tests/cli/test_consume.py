"""`planaria consume` against a running broker: formats, ends, and the offsets of a group."""

import io
import itertools
import json
import os
import signal
import threading
from typing import Any

import pytest

from command_line import Command, ServedBroker, planaria
from planaria import Consumer, Message

pytestmark = pytest.mark.processes


def lines(count: int, start: int = 0) -> str:
    return "".join(f"{number}\n" for number in range(start, start + count))


def consume(broker: ServedBroker, topic: str, *options: str) -> str:
    return broker.run("consume", topic, *options)


@pytest.fixture(scope="module")
def orders(broker: ServedBroker) -> str:
    broker.run("topic", "create", "ORDERS")
    broker.run(
        "produce", "ORDERS", "--format", "json", "--key-field", "id", "-H", "src=test", given='{"id": 1.10}\n'
    )
    broker.run("produce", "ORDERS", "--key-separator", ":", given="k:a value\n:\n")
    return "ORDERS"


def test_values(broker: ServedBroker, orders: str) -> None:
    assert consume(broker, orders, "--from-beginning", "-n", "3") == '{"id": 1.10}\na value\n\n'
    assert consume(broker, orders, "--from-beginning", "--timeout", "2") == '{"id": 1.10}\na value\n\n'


def test_json(broker: ServedBroker, orders: str) -> None:
    shown = consume(broker, orders, "--from-beginning", "-n", "3", "--format", "json")
    first, second, third = (json.loads(line) for line in shown.splitlines())
    assert first.pop("timestamp_ms") > 1_700_000_000_000
    assert first == {
        "topic": "ORDERS",
        "partition": 0,
        "offset": 0,
        "key": "1.1",
        "value": {"id": 1.1},
        "headers": {"content-type": "application/json", "src": "test"},
    }
    assert (second["offset"], second["key"], second["value"], second["headers"]) == (1, "k", "a value", {})
    assert (third["key"], third["value"]) == ("", "")


def test_full(broker: ServedBroker, orders: str) -> None:
    shown = consume(broker, orders, "--from-beginning", "-n", "2", "--format", "full").splitlines()
    assert shown[0].startswith("ORDERS/0@0 2")
    assert shown[0].endswith('Z key=1.1 content-type=application/json src=test  {"id": 1.10}')
    assert shown[1].endswith("Z key=k  a value")


def test_silence_before_count_fails(broker: ServedBroker, orders: str) -> None:
    done = planaria(
        *("consume", orders, "--from-beginning", "-n", "9", "--timeout", "2", "--connect", broker.endpoint)
    )
    assert (done.returncode, done.stdout.count("\n")) == (1, 3)
    assert done.stderr == "planaria: 3 of 9 messages were received, none in the last 2 s\n"


@pytest.mark.parametrize("options", [[], ["--group", "nobody"]])
def test_a_misspelled_topic(broker: ServedBroker, options: list[str]) -> None:
    done = planaria("consume", "ODRERS", *options, "--connect", broker.endpoint)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "planaria: there is no topic 'ODRERS'; \"planaria topic create ODRERS\" creates it (UNKNOWN_TOPIC)\n"
    )


def test_one_partition(broker: ServedBroker) -> None:
    broker.run("topic", "create", "PARTED", "--partitions", "3")
    for partition in ("0", "1", "2"):
        broker.run("produce", "PARTED", "--partition", partition, given=f"{partition}\n")
    options = ("--from-beginning", "--partition", "1", "--partition", "2", "--timeout", "2")
    assert sorted(consume(broker, "PARTED", *options).split()) == ["1", "2"]
    done = planaria("consume", "PARTED", "--partition", "7", "--connect", broker.endpoint)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


def test_a_group_goes_on_where_it_was(broker: ServedBroker) -> None:
    broker.run("topic", "create", "GOES-ON")
    broker.run("produce", "GOES-ON", given=lines(10))
    options = ("--group", "goes-on", "--from-beginning")
    assert consume(broker, "GOES-ON", *options, "-n", "4") == lines(4)
    assert lag(broker, "goes-on") == 6
    broker.run("kill", "partition/GOES-ON/0")
    broker.run("kill", "coordinator/goes-on")
    assert consume(broker, "GOES-ON", *options, "-n", "6") == lines(6, 4)
    found = broker.json("group", "describe", "goes-on")
    assert (found["state"], found["lag"], found["members"]) == ("empty", 0, [])
    (partition,) = found["partitions"]
    assert partition == {
        "topic": "GOES-ON",
        "partition": 0,
        "committed": 10,
        "log_end_offset": 10,
        "lag": 0,
        "member_id": None,
        "metadata": "",
    }


def test_ctrl_c_commits_what_was_printed(broker: ServedBroker) -> None:
    broker.run("topic", "create", "CTRL-C")
    broker.run("produce", "CTRL-C", given=lines(3))
    reading = Command(
        *("consume", "CTRL-C", "--group", "ctrl-c", "--from-beginning", "--connect", broker.endpoint)
    )
    try:
        assert [reading.line() for _ in range(3)] == ["0", "1", "2"]
        found = broker.json("group", "describe", "ctrl-c")
        assert [member["assignment"] for member in found["members"]] == [{"CTRL-C": [0]}]
        assert "ctrl-c" in broker.run("group", "describe", "ctrl-c")
        refused = planaria(
            "group", "reset", "ctrl-c", "--to", "earliest", "--topic", "CTRL-C", "--connect", broker.endpoint
        )
        assert refused.returncode == 1
        assert "stop its members first (GROUP_NOT_EMPTY)" in refused.stderr
        reading.interrupt()
        assert reading.finish() == (130, "", "")
    finally:
        reading.close()
    assert lag(broker, "ctrl-c") == 0
    assert broker.json("group", "describe", "ctrl-c")["members"] == []


@pytest.mark.parametrize("moment", ["printed", "waiting", "writing"])
def test_an_interrupt_commits_the_printed_messages_and_no_other(
    broker: ServedBroker, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    topic = f"INTERRUPTED-{moment}"
    broker.run("topic", "create", topic)
    broker.run("produce", topic, given=lines(3))
    poll, polls, flushes = Consumer.poll, itertools.count(), itertools.count()

    def interrupted(self: Consumer, *arguments: Any, **options: Any) -> list[Message]:
        is_second = next(polls) == 1
        if is_second and moment == "printed":
            signal.raise_signal(signal.SIGINT)
        if is_second and moment == "waiting":
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        return poll(self, *arguments, **options)

    class Interrupted(io.BytesIO):
        def flush(self) -> None:
            if moment == "writing" and self.getvalue() and next(flushes) == 0:
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Consumer, "poll", interrupted)
    monkeypatch.setattr(io, "BytesIO", Interrupted)
    arguments = ("consume", topic, "--group", topic, "--from-beginning", "--connect", broker.endpoint)
    assert planaria(*arguments)[:2] == (130, "0\n1\n2\n")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    monkeypatch.undo()
    committed = [] if moment == "writing" else [3]
    found = broker.json("group", "describe", topic)
    assert [partition["committed"] for partition in found["partitions"]] == committed


def test_a_service_manager_ends_it_in_order(broker: ServedBroker, orders: str) -> None:
    reading = Command(
        "consume", orders, "--group", "terminated", "--from-beginning", "--connect", broker.endpoint
    )
    try:
        assert [reading.line() for _ in range(3)][1] == "a value"
        reading.process.terminate()
        assert reading.finish() == (130, "", "")
    finally:
        reading.close()
    assert lag(broker, "terminated") == 0


def test_a_reader_that_has_seen_enough(broker: ServedBroker) -> None:
    broker.run("topic", "create", "PIPE")
    broker.run("produce", "PIPE", given=lines(200_000))
    reading = Command("consume", "PIPE", "--from-beginning", "--connect", broker.endpoint)
    try:
        assert reading.line() == "0"
        reading.hang_up()
        code, _, errors = reading.finish()
        assert (code, errors) == (0, "")
    finally:
        reading.close()


def test_reset(broker: ServedBroker) -> None:
    broker.run("topic", "create", "RESET", "--partitions", "2")
    broker.run("produce", "RESET", "--partition", "0", given=lines(5))
    broker.run("produce", "RESET", "--partition", "1", given=lines(2))
    consume(broker, "RESET", "--group", "reset", "--from-beginning", "-n", "7")

    def reset(*options: str) -> list[tuple[int, int]]:
        found = broker.json("group", "reset", "reset", *options)
        return [(move["from"], move["to"]) for move in found["partitions"]]

    assert reset("--to", "earliest", "--dry-run") == [(5, 0), (2, 0)]
    assert reset("--to", "3", "--topic", "RESET", "--force") == [(5, 3), (2, 2)]
    assert reset("--to", "2020-01-31T12:00") == [(3, 0), (2, 0)]
    assert reset("--to", "2099-01-01", "--topic", "RESET", "--partition", "1") == [(0, 2)]
    assert reset("--to", "latest") == [(0, 5), (2, 2)]
    shown = broker.run("group", "reset", "reset", "--to", "earliest", "--dry-run")
    assert shown.endswith("group reset would be reset in 2 partitions\n")
    refused = planaria(
        "group", "reset", "reset", "--to", "latest", "--topic", "NONE", "--connect", broker.endpoint
    )
    assert "UNKNOWN_TOPIC" in refused.stderr


def test_a_group_is_forgotten(broker: ServedBroker, orders: str) -> None:
    consume(broker, orders, "--group", "forgotten", "--from-beginning", "-n", "1")
    entry = {"group": "forgotten", "type": "consumer", "state": "empty", "paused": None}
    assert entry in broker.json("group", "list")["groups"]
    assert "forgotten" in broker.run("group", "list")
    assert broker.run("group", "delete", "forgotten", "--yes") == "group forgotten is deleted\n"
    assert entry not in broker.json("group", "list")["groups"]


def lag(broker: ServedBroker, group: str) -> Any:
    return broker.json("group", "describe", group)["lag"]

"""`planaria dlq` as a person types it."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from command_line import Done, ServedBroker, planaria
from planaria import Client
from planaria.supervisor.cli.letters import parse_position, parse_since


@pytest.fixture(scope="module")
def letters(broker: ServedBroker) -> str:
    """Return ORDERS.dlq with four letters from ORDERS."""
    with Client(broker.endpoint) as client:
        client.create_topic("ORDERS")
        client.create_topic("ORDERS.dlq")
        for number in range(4):
            told = {
                "topic": "ORDERS",
                "partition": "0",
                "offset": str(100 + number),
                "group": "billing",
                "failures": "6",
                "deliveries": "7",
                "first-failure": "1700000000000",
                "last-failure": "1700000031000",
                "reason": f"ValueError: order {number}" if number else "Timeout: the bank",
                "exception": "builtins.ValueError",
                "traceback": "Traceback (most recent call last):\n  in charge\n",
            }
            headers = {f"dead-letter-{name}": text for name, text in told.items()}
            client.publish("ORDERS.dlq", {"order": number}, key="k", headers=headers)
    return "ORDERS.dlq"


def test_list(broker: ServedBroker, letters: str) -> None:
    found = broker.json("dlq", "list", letters)
    assert found["letters"] == 4
    assert found["reasons"] == [
        {"reason": "ValueError: order N", "letters": 3},
        {"reason": "Timeout: the bank", "letters": 1},
    ]
    assert len(found["newest"]) == 4
    text = broker.run("dlq", "list", letters, "--reason", "timeout")
    assert "1 letter to be sent back" in text
    assert "ORDERS/0@100" in text


def test_show(broker: ServedBroker, letters: str) -> None:
    found = broker.json("dlq", "show", letters, "0:2")
    assert found["from"]["offset"] == 102
    assert found["message"]["value"] == {"order": 2}
    text = broker.run("dlq", "show", letters, "2")
    assert "failed     6 of 7 times within 31s, last at 2023-11-14 22:13:51Z" in text
    assert "in charge" in text
    done = planaria("dlq", "show", letters, "0:99", "--connect", broker.endpoint)
    assert (done.returncode, "has no letter at 99" in done.stderr) == (1, True)


def test_redrive_dry_then_some_then_the_rest(
    broker: ServedBroker, letters: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shop_of_cli.py").write_text(
        "def charge(message):\n    assert message.data['order'] != 1, 'still wrong'\n"
    )
    monkeypatch.chdir(tmp_path)
    arguments = ["dlq", "redrive", letters, "--dry-run", "--handler", "shop_of_cli:charge"]
    done = planaria(*arguments, "--connect", broker.endpoint)
    assert done.returncode == 1, done.stderr
    assert "0:0 passes" in done.stdout
    assert "0:1 fails: AssertionError: still wrong" in done.stdout
    assert "in charge" in done.stdout
    assert "4 letters, 3 would pass" in done.stdout
    found: Any = json.loads(
        planaria(*arguments, "--offset", "0:2", "--json", "--connect", broker.endpoint).stdout
    )
    assert [(row["offset"], row["passed"]) for row in found["letters"]] == [(2, True)]
    assert broker.json("dlq", "redrive", letters, "--offset", "0:2")["moved"] == 1
    assert "3 letters sent back" in broker.run("dlq", "redrive", letters, "--rate", "1000")
    assert "has 0 letters to be sent back" in broker.run("dlq", "list", letters)
    assert "has 4 letters" in broker.run("dlq", "list", letters, "--all")
    assert broker.json("topic", "describe", "ORDERS")["partitions"][0]["high_watermark"] == 4
    assert os.getcwd() == os.fspath(tmp_path)


def test_purge_wants_to_be_sure(broker: ServedBroker) -> None:
    with Client(broker.endpoint) as client:
        client.create_topic("OLD.dlq", 2)
        for number in range(5):
            client.publish("OLD.dlq", number, key=f"{number}", headers={"dead-letter-reason": "old"})
    done = planaria("dlq", "purge", "OLD.dlq", "--connect", broker.endpoint)
    assert (done.returncode, "5 letters of OLD.dlq would be deleted; confirm with --yes" in done.stderr) == (
        1,
        True,
    )
    assert "5 letters of OLD.dlq deleted" in broker.run("dlq", "purge", "OLD.dlq", "--yes")
    assert broker.json("dlq", "list", "OLD.dlq", "--all")["letters"] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["redrive", "T", "--handler", "a:b"],
        ["redrive", "T", "--dry-run", "--handler", "charge"],
        ["show", "T", "x:y"],
        ["redrive", "T", "--since", "yesterday"],
        ["redrive", "T", "--since", "17"],
        ["redrive", "T", "--limit", "0"],
    ],
)
def test_wrong_usage(arguments: list[str]) -> None:
    assert planaria("dlq", *arguments).returncode == 2


def test_times_and_places() -> None:
    assert parse_position("3:17") == (3, 17)
    assert parse_position("17") == (0, 17)
    assert parse_since("90m", 10_000_000) == 10_000_000 - 90 * 60_000
    assert parse_since("2026-01-31T12:00", 0) == 1_769_860_800_000


COMMANDS = [["list"], ["list", "--all"], ["show", "0"], ["redrive"], ["redrive", "--dry-run"], ["purge"]]


def dlq(broker: ServedBroker, topic: str, command: list[str], *options: str) -> Done:
    name, *rest = command
    return planaria("dlq", name, topic, *rest, *options, "--connect", broker.endpoint)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_messages_that_are_not_dead_letters_are_refused(broker: ServedBroker, command: list[str]) -> None:
    broker.run("topic", "create", "PLAIN", "--if-not-exists", "--partitions", "2")
    broker.run("produce", "PLAIN", given="a\nb\nc\n")
    before = broker.json("topic", "describe", "PLAIN")["partitions"]
    options = ["--yes"] if command == ["purge"] else []
    told = "planaria: PLAIN holds no dead letters: its messages are not dead letters\n"
    assert dlq(broker, "PLAIN", command, *options) == (1, "", told)
    after = broker.json("topic", "describe", "PLAIN")["partitions"]
    assert [each["log_start_offset"] for each in after] == [each["log_start_offset"] for each in before]
    assert "PLAIN.redriven" not in broker.run("topic", "list")


@pytest.mark.parametrize("command", [each for each in COMMANDS if each != ["show", "0"]], ids=" ".join)
def test_an_empty_topic_holds_no_dead_letters(broker: ServedBroker, command: list[str]) -> None:
    broker.run("topic", "create", "EMPTY.dlq", "--if-not-exists")
    assert dlq(broker, "EMPTY.dlq", command) == (0, "EMPTY.dlq holds no dead letters\n", "")
    assert dlq(broker, "EMPTY.dlq", command, "--json").returncode == 0


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_topic_that_does_not_exist(broker: ServedBroker, command: list[str]) -> None:
    done = dlq(broker, "NOPE.dlq", command)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("planaria: there is no topic 'NOPE.dlq'")
    assert done.stderr.count("\n") == 1

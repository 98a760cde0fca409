"""`planaria topic` and `planaria produce` against a running broker."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from command_line import Command, ServedBroker, planaria
from planaria.transport.client.accumulator import Accumulator

pytestmark = pytest.mark.processes


def test_a_topic_from_its_creation_to_its_end(broker: ServedBroker) -> None:
    assert (
        broker.run("topic", "create", "LIFE", "-p", "2", "--set", "retention_ms=3d")
        == "topic LIFE has 2 partitions\n"
    )
    assert {"topic": "LIFE", "partitions": 2} in broker.json("topic", "list")["topics"]
    altered = broker.json("topic", "alter", "LIFE", "--partitions", "3", "--set", "segment_bytes=1MiB")
    assert len(altered["partitions"]) == 3
    config = broker.json("topic", "describe", "LIFE")["config"]
    assert (config["retention_ms"], config["segment_bytes"]) == (3 * 86_400_000, 1 << 20)
    assert broker.run("topic", "delete", "LIFE", "--yes") == "topic LIFE is deleted\n"
    assert "LIFE" not in broker.run("topic", "list")


def test_what_is_not_said_is_as_the_broker_has_it(broker: ServedBroker) -> None:
    config = broker.json("topic", "create", "DEFAULTS")["config"]
    assert config["flush"] == "batch"
    assert broker.json("topic", "create", "DEFAULTS", "--if-not-exists")["config"] == config


def test_a_compacted_topic(broker: ServedBroker) -> None:
    settings = ["--set", "cleanup=compact,delete", "--set", "min_cleanable_ratio=0.25"]
    config = broker.json("topic", "create", "LATEST", *settings, "--set", "delete_retention_ms=2h")["config"]
    assert (config["cleanup"], config["min_cleanable_ratio"]) == ("compact,delete", 0.25)
    assert config["delete_retention_ms"] == 7_200_000


def test_tables(broker: ServedBroker) -> None:
    broker.run("topic", "create", "TABLES", "--partitions", "12")
    shown = broker.run("topic", "describe", "TABLES")
    assert re.search(r"retention_ms +7d\n", shown)
    assert re.search(r"max_message_bytes +1.0 MiB\n", shown)
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.count("online") == 12
    assert "TABLES" in broker.run("topic", "list")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["topic", "create", "EXISTS"], "--if-not-exists accepts that (TOPIC_EXISTS)"),
        (
            ["topic", "create", "EXISTS", "--if-not-exists", "--partitions", "3"],
            '1 partition, not 3; "planaria topic alter EXISTS --partitions 3" adds partitions (TOPIC_EXISTS)',
        ),
        (["consume", "EXISTS", "--partition", "4"], "topic 'EXISTS' has 1 partition: there is no 4"),
        (
            ["recover", "--catalog", "--data", "/proc"],
            "/proc is not the data directory of a broker: it has none",
        ),
        pytest.param(
            ["produce", "EXISTS", "--file", "/proc/self/mem"],
            "planaria: /proc/self/mem: Input/output error; acknowledged: 0 messages; continue from line 1",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the file"),
        ),
        (["topic", "describe", "NONE"], '"planaria topic list" shows all topics (UNKNOWN_TOPIC)'),
        (["topic", "delete", "NONE", "--yes"], '"planaria topic list" shows all topics (UNKNOWN_TOPIC)'),
        (["topic", "create", "no/slash"], "(INVALID_TOPIC)"),
        (["topic", "create", "A", "--set", "segment_bytes=1"], "(INVALID_"),
        (["produce", "NONE"], "(UNKNOWN_TOPIC)"),
        (["group", "describe", "none"], '"planaria group list" shows all groups (UNKNOWN_GROUP)'),
        (["kill", "partition/NONE/0"], '"planaria status" shows the addresses (UNKNOWN_ACTOR)'),
        (["revive", "nobody"], '"planaria status" shows the addresses (UNKNOWN_ACTOR)'),
    ],
)
def test_refusals_are_one_line(broker: ServedBroker, arguments: list[str], line: str) -> None:
    broker.run("topic", "create", "EXISTS", "--if-not-exists")
    where = [] if arguments[0] == "recover" else ["--connect", broker.endpoint]
    done = planaria(*arguments, *where, given="x\n")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith("planaria: ")
    assert done.stderr.endswith(line + "\n") or line in done.stderr
    assert done.stderr.count("\n") <= 2


def test_produce_lines(broker: ServedBroker) -> None:
    broker.run("topic", "create", "LINES")
    said = broker.run("produce", "LINES", given="a\nb\n\nlast without an end")
    assert said.startswith("4 messages to LINES in ")
    found = broker.json("produce", "LINES", given="x\n")
    assert (found["topic"], found["messages"], found["bytes"]) == ("LINES", 1, 2)
    assert broker.json("topic", "describe", "LINES")["partitions"][0]["high_watermark"] == 5


def test_produce_a_large_file_to_one_partition(broker: ServedBroker, tmp_path: Path) -> None:
    broker.run("topic", "create", "LARGE", "--partitions", "2")
    file = tmp_path / "lines.txt"
    file.write_text("".join(f"{number}:value {number}\n" for number in range(250_000)))
    found = broker.json("produce", "LARGE", "--file", str(file), "--partition", "1", "--key-separator", ":")
    assert (found["messages"], found["bytes"]) == (250_000, file.stat().st_size)
    ends = [
        partition["high_watermark"] for partition in broker.json("topic", "describe", "LARGE")["partitions"]
    ]
    assert ends == [0, 250_000]


def test_a_wrong_line_ends_it_and_says_which(broker: ServedBroker) -> None:
    broker.run("topic", "create", "WRONG")
    lines = json.dumps({"id": 1}) + "\n" + json.dumps({"no": 2}) + "\n" + json.dumps({"id": 3}) + "\n"
    done = planaria(
        *("produce", "WRONG", "--format", "json", "--key-field", "id", "--connect", broker.endpoint),
        given=lines,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr
        == "planaria: line 2: no field 'id' to take the key from; published before it: 1 message\n"
    )
    assert broker.json("topic", "describe", "WRONG")["partitions"][0]["high_watermark"] == 1


def test_ctrl_c_tells_what_was_acknowledged_and_where_to_go_on(broker: ServedBroker) -> None:
    broker.run("topic", "create", "INTERRUPTED", "--partitions", "3")
    publishing = Command("produce", "INTERRUPTED", "--connect", broker.endpoint, is_typed_into=True)
    try:
        given = publishing.process.stdin
        assert given is not None
        number = 0
        while _stored(broker, "INTERRUPTED") < 50_000:  # it is running, and more is in flight
            given.write(b"".join(b"%d\n" % each for each in range(number, number + 10_000)))
            number += 10_000
            given.flush()
        publishing.interrupt()
        code, output, errors = publishing.finish()
    finally:
        publishing.close()
    assert (code, output) == (130, "")
    told = re.fullmatch(r"acknowledged: ([0-9,]+) messages; continue from line ([0-9]+)\n", errors)
    assert told is not None, errors
    acknowledged, go_on_at = int(told[1].replace(",", "")), int(told[2])
    assert go_on_at == acknowledged + 1
    # A line whose publishing was interrupted is not counted, and may be stored.
    assert _stored(broker, "INTERRUPTED") - acknowledged in (0, 1)
    stored = broker.run("consume", "INTERRUPTED", "--from-beginning", "--timeout", "2").split()
    assert sorted(map(int, stored))[:acknowledged] == list(range(acknowledged))


def test_an_interrupt_within_a_line_leaves_that_line_to_be_sent_again(
    broker: ServedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.run("topic", "create", "WITHIN")
    publish = Accumulator.publish

    def interrupted(self: Accumulator, topic: str, value: bytes, *others: Any, **options: Any) -> Any:
        delivery = publish(self, topic, value, *others, **options)
        if value == b"c":
            raise KeyboardInterrupt
        return delivery

    monkeypatch.setattr(Accumulator, "publish", interrupted)
    done = planaria("produce", "WITHIN", "--connect", broker.endpoint, given="a\nb\nc\nd\n")
    assert done == (130, "", "acknowledged: 2 messages; continue from line 3\n")


def _stored(broker: ServedBroker, topic: str) -> int:
    partitions = broker.json("topic", "describe", topic)["partitions"]
    return sum(each["high_watermark"] for each in partitions)


def test_a_partition_that_is_not_there(broker: ServedBroker) -> None:
    broker.run("topic", "create", "SMALL")
    done = planaria("produce", "SMALL", "--partition", "7", "--connect", broker.endpoint, given="x\n")
    assert done.returncode == 1
    assert "UNKNOWN_PARTITION" in done.stderr


@pytest.mark.parametrize("kind", ["topic", "group"])
def test_what_cannot_be_undone_needs_consent_where_nobody_can_be_asked(
    broker: ServedBroker, kind: str
) -> None:
    broker.run("topic", "create", "PRECIOUS", "--if-not-exists")
    broker.run("group", "create", "PRECIOUS")
    done = planaria(kind, "delete", "PRECIOUS", "--connect", broker.endpoint)
    assert done.returncode == 1
    assert done.stderr.startswith(f"planaria: {kind} PRECIOUS with ")
    assert done.stderr.endswith(" would be deleted; confirm with --yes\n")
    assert broker.run(kind, "describe", "PRECIOUS")

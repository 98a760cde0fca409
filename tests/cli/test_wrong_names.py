"""A wrong option, topic, group, partition, actor or id, for every command: one line on standard error, nothing else."""

import json

import pytest

from command_line import ServedBroker, leaves, planaria

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def topic(broker: ServedBroker) -> str:
    broker.run("topic", "create", "ORDERS", "--partitions", "2")
    broker.run("produce", "ORDERS", given="a\nb\n")
    broker.run("consume", "ORDERS", "-g", "billing", "--from-beginning", "-n", "1")
    return "ORDERS"


@pytest.mark.parametrize("path", leaves(), ids=" ".join)
def test_an_unknown_option(path: tuple[str, ...]) -> None:
    done = planaria(*path, "--bogus")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"planaria {' '.join(path)}: No such option")
    assert done.stderr.count("\n") == 1


WRONG = [
    ("topic describe NOPE", 1, "UNKNOWN_TOPIC"),
    ("topic alter NOPE --partitions 3", 1, "UNKNOWN_TOPIC"),
    ("topic alter ORDERS --partitions 1", 1, "INVALID"),
    ("topic alter ORDERS --set flush=never", 1, "flush"),
    ("topic delete NOPE --yes", 1, "UNKNOWN_TOPIC"),
    ("topic create ORDERS --partitions 2", 1, "TOPIC_EXISTS"),
    ("topic create bad/name", 1, "INVALID"),
    ("topic create __mine", 1, "INVALID_TOPIC"),
    ("topic create MANY --partitions 20000", 1, "("),
    ("produce NOPE", 1, "UNKNOWN_TOPIC"),
    ("produce ORDERS --partition 7", 1, "UNKNOWN_PARTITION"),
    ("produce __offsets", 1, "FORBIDDEN"),
    ("consume NOPE", 1, "UNKNOWN_TOPIC"),
    ("consume NOPE --group billing", 1, "UNKNOWN_TOPIC"),
    ("consume ORDERS --partition 7", 1, "has 2 partitions"),
    ("consume ORDERS --group bad/name --timeout 1", 1, "group"),
    ("inflight NOPE", 1, "UNKNOWN_TOPIC"),
    ("find NOPE --key k", 1, "UNKNOWN_TOPIC"),
    ("trace id --topic NOPE", 1, "UNKNOWN_TOPIC"),
    ("inflight ORDERS --group nope", 1, "UNKNOWN_GROUP"),
    ("group describe nope", 1, "UNKNOWN_GROUP"),
    ("group delete nope --yes", 1, "UNKNOWN_GROUP"),
    ("group reset nope --to earliest", 1, "nope"),
    ("group reset billing --to earliest --topic NOPE", 1, "UNKNOWN_TOPIC"),
    ("group reset billing --to earliest --topic ORDERS --partition 7", 1, "ORDERS/7"),
    ("group reset billing --to 99", 1, "outside"),
    ("group create bad/name", 1, "group"),
    ("group create billing", 1, "("),
    ("group create jobs --dead-letter NOPE", 1, "UNKNOWN_TOPIC"),
    ("delayed list NOPE", 1, "UNKNOWN_TOPIC"),
    ("delayed cancel nope", 1, "nope"),
    ("dlq list NOPE", 1, "UNKNOWN_TOPIC"),
    ("dlq show NOPE 0", 1, "UNKNOWN_TOPIC"),
    ("dlq redrive NOPE", 1, "UNKNOWN_TOPIC"),
    ("dlq purge NOPE --yes", 1, "UNKNOWN_TOPIC"),
    ("quota remove nope", 1, "nope"),
    ("cluster status", 1, "start nodes with --node and --cluster"),
    ("cluster nodes --json", 1, "start nodes with --node and --cluster"),
    ("cluster drain nope", 1, "start nodes with --node and --cluster"),
    ("cluster rebalance", 2, "--plan"),
    ("cluster reassign ORDERS --replicas n1,n1", 2, "different nodes"),
    ("cluster elect ORDERS", 2, "such as ORDERS/0"),
    ("kill partition/NOPE/0", 1, "UNKNOWN_ACTOR"),
    ("kill supervisor", 1, "signal"),
    ("revive partition/NOPE/0", 1, "UNKNOWN_ACTOR"),
    ("revive supervisor", 1, "supervisor"),
]


@pytest.mark.parametrize(("line", "code", "told"), WRONG, ids=[line for line, _, _ in WRONG])
def test_a_wrong_name(broker: ServedBroker, topic: str, line: str, code: int, told: str) -> None:
    done = planaria(*line.split(), "--connect", broker.endpoint, given="a\n")
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert told in done.stderr
    assert done.stderr.startswith("planaria")
    assert done.stderr.count("\n") == 1
    assert "an error in Planaria" not in done.stderr


def test_what_is_refused_changes_nothing(broker: ServedBroker, topic: str) -> None:
    assert {each["topic"] for each in broker.json("topic", "list")["topics"]} == {topic}
    assert [each["group"] for each in broker.json("group", "list")["groups"]] == ["billing"]


def test_json_of_a_refusal_is_on_no_stream(broker: ServedBroker, topic: str) -> None:
    done = planaria("topic", "describe", "NOPE", "--json", "--connect", broker.endpoint)
    with pytest.raises(json.JSONDecodeError):
        json.loads(done.stdout)

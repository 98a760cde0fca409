"""Tables of every command on narrow and wide screens: no name is cut or broken."""

import io
import json
from collections.abc import Iterator

import pytest
from rich.console import Console

from command_line import ServedBroker, planaria
from patience import TIMEOUT_S
from planaria import Client
from planaria.supervisor.cli.tables import Listing

WIDTHS = [40, 60, 80, 120]
TOPIC = "ORDERS." + "of-a-customer." * 6 + "EU"
GROUP = "billing-" + "and-more-" * 8 + "end"
CLIENT = "reporting-" + "service-" * 9 + "a"
MEMBER = "worker-" + "on-a-machine-" * 5 + "7"
TOPICS = {"plain": TOPIC, "letters": f"{TOPIC}.dlq"}
REASON = "ValueError: the order " + " ".join(f"word{number}" for number in range(30))


@pytest.fixture(scope="module")
def filled(broker: ServedBroker) -> Iterator[ServedBroker]:
    """A broker with content for every command to show, all names long."""
    with Client(broker.endpoint, client_id=CLIENT) as client:
        client.create_topic(TOPIC, 2)
        client.create_topic(TOPICS["letters"])
        for number in range(3):
            client.publish(TOPIC, number, key=f"{number}")
        origin = {"topic": TOPIC, "partition": "0", "offset": "5", "group": GROUP, "reason": REASON}
        client.publish(TOPICS["letters"], "x", headers={f"dead-letter-{k}": v for k, v in origin.items()})
        client.publish(TOPIC, "later", key=GROUP, delay=3600, scheduled_id=f"{TOPIC}-17")
        client.set_quota(CLIENT, produce_bytes=1_000_000)
        with client.consumer("idle", [TOPIC], auto_offset_reset="earliest") as consumer:
            assert consumer.poll(TIMEOUT_S)
            consumer.commit()
        with (
            client.consumer(GROUP, [TOPIC], auto_offset_reset="earliest") as consumer,
            client.share_consumer(f"{GROUP}.share", TOPIC, member_id=MEMBER) as jobs,
            client.producer(transactional_id=f"{GROUP}.tx") as producer,
        ):
            transaction = producer.transaction()
            transaction.publish(TOPIC, b"x", partition=0)
            transaction.commit()
            assert consumer.poll(TIMEOUT_S)
            consumer.commit()
            assert jobs.poll(TIMEOUT_S)
            yield broker


@pytest.mark.processes
@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize(
    ("arguments", "whole"),
    [
        (["status"], [f"partition/{TOPIC}/0", f"partition/{TOPIC}/1", f"coordinator/{GROUP}", "gateway/0"]),
        (["topic", "list"], [TOPIC, TOPICS["letters"]]),
        (["topic", "describe", TOPIC], [TOPIC, "max_timestamp_ahead_ms", "online"]),
        (["group", "list"], [GROUP, f"{GROUP}.share", "consumer"]),
        (["group", "describe", GROUP], [GROUP, TOPIC, CLIENT]),
        (["group", "describe", f"{GROUP}.share"], [f"{GROUP}.share", TOPIC]),
        (["group", "reset", "idle", "--to", "earliest", "--topic", TOPIC, "--dry-run"], [TOPIC]),
        (["inflight", TOPIC], [f"{GROUP}.share", MEMBER]),
        (["dlq", "list", TOPICS["letters"]], [f"{TOPIC}/0@5", GROUP, *REASON.split()]),
        (["dlq", "show", TOPICS["letters"], "0"], [f"{TOPIC}/0@5", REASON]),
        (["delayed", "list"], [f"{TOPIC}-17", TOPIC, GROUP]),
        (["transaction", "list"], [f"{GROUP}.tx"]),
        (["quota", "list"], [CLIENT, "1,000,000"]),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else str(value),
)
def test_names_stay_whole(filled: ServedBroker, arguments: list[str], whole: list[str], columns: int) -> None:
    done = planaria(*arguments, "--connect", filled.endpoint, columns=columns)
    assert done.returncode == 0, done.stderr
    assert [name for name in whole if name not in done.stdout] == []
    assert "…" not in done.stdout


def rendered(listing: Listing, columns: int) -> str:
    console = Console(width=columns, file=io.StringIO(), markup=False, highlight=False)
    console.print(listing, soft_wrap=True)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def listing(name: str, reason: str = "") -> Listing:
    made = Listing("name", "size", "reason", numbers=["size"], prose=["reason"])
    made.add_row(name, "12", reason)
    return made


def test_rows_that_fit_are_a_table() -> None:
    lines = rendered(listing("ORDERS", "full"), 40).splitlines()
    assert lines[0].split() == ["name", "size", "reason"]
    assert lines[2].split() == ["ORDERS", "12", "full"]


def test_a_row_that_does_not_fit_is_a_block() -> None:
    name = "N" * 90
    assert rendered(listing(name, "two words"), 40) == f"{name}\n  size 12  reason two words\n"
    assert rendered(listing("N" * 38), 40) == "N" * 38 + "\n  size 12\n"


def test_prose_is_wrapped_at_its_words() -> None:
    words = [f"word{number}" for number in range(40)]
    shown = rendered(listing("ORDERS", " ".join(words)), 60)
    assert max(map(len, shown.splitlines())) <= 60
    assert [word for word in words if word not in shown.split()] == []


def test_a_row_whose_first_cell_is_a_number_names_it() -> None:
    made = Listing("partition", "state", numbers=["partition"])
    made.add_row("3", "S" * 50)
    assert rendered(made, 40) == "partition 3\n  state " + "S" * 50 + "\n"


@pytest.mark.processes
def test_json_does_not_depend_on_the_screen(filled: ServedBroker) -> None:
    done = planaria("topic", "list", "--json", "--connect", filled.endpoint, columns=20)
    assert TOPIC in [each["topic"] for each in json.loads(done.stdout)["topics"]]

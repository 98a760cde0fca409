"""The objects that programs hold show what docs/programs.md lists and nothing else; a value's details go by keyword."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import planaria
from planaria.transport.client import Client
from planaria.transport.context import Context

PROGRAMS = Path(__file__).parents[2] / "docs" / "programs.md"
ROW = re.compile(r"^\| `(\w+)` \| (.*) \|$", re.MULTILINE)
OBJECTS = [
    "Broker",
    "Client",
    "Consumer",
    "Context",
    "Delivery",
    "Message",
    "Producer",
    "ShareConsumer",
    "ShareMessage",
    "Subscription",
    "Transaction",
    "TransactionalProducer",
]
SET_BY_THE_CONSTRUCTOR = {"client", "endpoint", "addresses"}


def documented() -> dict[str, set[str]]:
    _, _, section = PROGRAMS.read_text().partition("## The objects and their methods")
    table, _, _ = section.partition("\n## ")
    return {name: set(re.findall(r"`(\w+)`", names)) for name, names in ROW.findall(table)}


@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_shows_what_is_documented(name: str) -> None:
    shown = {each for each in dir(getattr(planaria, name)) if not each.startswith("_")}
    assert shown == documented()[name] - SET_BY_THE_CONSTRUCTOR


def test_instances_show_no_more_than_their_classes(client: Client) -> None:
    with (
        client.producer() as producer,
        client.consumer("g", "T") as consumer,
        client.share_consumer("s", "T") as share,
    ):
        for item in (client, producer, consumer, share):
            shown = {each for each in dir(item) if not each.startswith("_")}
            assert shown == documented()[type(item).__name__]


@pytest.mark.parametrize("owner", [planaria.Client, planaria.Producer, planaria.Transaction, Context])
def test_all_but_topic_and_value_go_by_keyword(owner: Any) -> None:
    parameters = list(inspect.signature(owner.publish).parameters.values())[1:]
    assert [each.name for each in parameters if each.kind is not each.KEYWORD_ONLY] == ["topic", "value"]


def test_a_key_by_position_is_refused(client: Client) -> None:
    with client.producer() as producer:
        for publish in (client.publish, producer.publish):
            with pytest.raises(TypeError):
                publish("T", b"value", "key")  # type: ignore[misc]

"""Objects that programs hold show the names in docs/programs.md and no others; a value's details go by keyword."""

import inspect
import re
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from msgspec import Struct

import planaria
from planaria.transport.client.admin import Admin
from planaria.transport.client.client import Client
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
    "Table",
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


def test_an_argument_that_does_not_exist_is_refused_without_a_value_too(client: Client) -> None:
    with client.producer() as producer:
        for publish in (client.publish, producer.publish):
            with pytest.raises(TypeError, match="priorty"):
                publish("T", b"value", priorty=None)  # type: ignore[call-arg]


def test_client_and_broker_share_one_administration() -> None:
    shared = [name for name in dir(Admin) if not name.startswith("_")]
    assert len(shared) > 20
    own = [name for name in shared if getattr(planaria.Broker, name) is not getattr(planaria.Client, name)]
    assert own == ["create_topic"], "declares a topic: if_not_exists is True"


def test_administrative_calls_return_exported_types() -> None:
    returned = {
        name: get_type_hints(getattr(Admin, name))["return"]
        for name in dir(Admin)
        if not name.startswith("_")
    }
    assert returned["describe_topic"] is planaria.TopicDescription
    structs = {each for hint in returned.values() for each in structs_of(hint)}
    assert len(structs) > 8
    assert {each for each in structs if each.__name__ not in planaria.__all__} == set()


def structs_of(hint: Any) -> set[type]:
    """Return the structs in a type, and those in their fields."""
    found = set() if not isinstance(hint, type) or not issubclass(hint, Struct) else {hint}
    inner = [*get_args(hint), *(each for kind in found for each in get_type_hints(kind).values())]
    return found.union(*(structs_of(each) for each in inner))


def test_every_public_method_is_documented() -> None:
    missing = [
        f"{name}.{member}"
        for name in OBJECTS
        for member in documented()[name] - SET_BY_THE_CONSTRUCTOR
        if not inspect.getdoc(getattr(getattr(planaria, name), member))
        and not inspect.ismemberdescriptor(getattr(getattr(planaria, name), member))
    ]
    assert missing == []


def test_every_administrative_call_says_what_it_raises_and_has_an_example() -> None:
    for name in (name for name in dir(Admin) if not name.startswith("_")):
        text = inspect.getdoc(getattr(Admin, name)) or ""
        assert "Raises" in text, name
        assert re.search(rf"^    .*\.{name}\(", text, re.MULTILINE), name

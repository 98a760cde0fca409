"""The number of actors stays within the machine's capacity."""

import pytest

from controller_driver import ControllerDriver
from planaria.actors.controller.catalog import Catalog
from planaria.transport.addresses import DELAYED_TOPIC, Address
from planaria.transport.machine import PeerUp
from planaria.transport.protocol.control import EnsureGroup, EnsureInternalActors
from planaria.transport.protocol.errors import ErrorBody
from planaria.transport.protocol.message import Done, Request
from planaria.transport.protocol.topics import AlterTopic, CreateTopic, TopicConfig

LIMIT = "descriptors, 256 a process"


def with_partitions(number: int, max_actors: int) -> ControllerDriver:
    catalog = Catalog(catalog_id="c").with_topic("A", number, TopicConfig(), 0)
    return ControllerDriver(catalog, max_actors=max_actors, actors_limit=LIMIT)


@pytest.mark.parametrize(
    "request_",
    [
        CreateTopic(topic="B", partitions=9),
        AlterTopic(topic="A", partitions=14),
        EnsureGroup(group="g"),  # with the four partitions of all groups' offsets
        EnsureInternalActors(topic=DELAYED_TOPIC),  # two partitions, two schedulers
    ],
    ids=lambda request: type(request).__name__,
)
def test_what_does_not_fit_is_refused_and_names_the_limit(request_: Request) -> None:
    controller = with_partitions(5, max_actors=10)
    refusal = controller.answer(request_)
    assert isinstance(refusal, ErrorBody)
    assert (refusal.code, refusal.retriable) == ("LIMIT_REACHED", False)
    assert "there are 7" in refusal.message
    assert "allow 10" in refusal.message
    assert LIMIT in refusal.message
    assert controller.saved == []


def test_the_last_place_is_given_and_none_after_it() -> None:
    controller = with_partitions(5, max_actors=10)
    controller.ask(CreateTopic(topic="B", partitions=3))
    assert "partition/B/2" in controller.specs
    assert controller.answer(CreateTopic(topic="C", partitions=1)).code == "LIMIT_REACHED"


def test_hosted_subscribers_take_room() -> None:
    controller = with_partitions(5, max_actors=8)
    controller.give(PeerUp(address=Address.parse("subscriber/g/1"), incarnation=1, endpoint=None))
    assert controller.answer(CreateTopic(topic="B", partitions=1)).code == "LIMIT_REACHED"


def test_what_exists_is_served_and_ordered_however_small_the_machine_has_become() -> None:
    catalog = Catalog(catalog_id="c", groups={"g": 0}).with_topic("A", 20, TopicConfig(), 0)
    controller = ControllerDriver(catalog, max_actors=3, actors_limit=LIMIT)
    controller.load()
    controller.run()
    assert "partition/A/19" in controller.specs
    assert isinstance(controller.answer(EnsureGroup(group="g")), Done)
    assert not isinstance(controller.answer(AlterTopic(topic="A", partitions=20)), ErrorBody)

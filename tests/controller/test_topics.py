"""Creating, altering, describing and deleting topics, with the machine alone."""

import pytest

from controller_driver import ControllerDriver
from planaria.actors.controller.catalog import Catalog
from planaria.actors.controller.room import MAX_PARTITIONS
from planaria.transport.machine import StopRequested
from planaria.transport.protocol.control import EnsureGroup
from planaria.transport.protocol.errors import ErrorBody
from planaria.transport.protocol.message import Done
from planaria.transport.protocol.topics import (
    AlterTopic,
    ConfigurePartition,
    CreateTopic,
    DeleteTopic,
    DescribeTopic,
    DescribeTopicReply,
    ListTopics,
    TopicConfig,
    TopicConfigChange,
)


@pytest.fixture
def controller() -> ControllerDriver:
    return ControllerDriver()


def create(topic: str = "ORDERS", partitions: int = 2, **options: object) -> CreateTopic:
    return CreateTopic(topic=topic, partitions=partitions, **options)  # type: ignore[arg-type]


def test_created_topic_is_described_once_its_partitions_are_up(controller: ControllerDriver) -> None:
    controller.comes_up = False
    number = controller.ask(create())
    assert sorted(controller.specs) == ["partition/ORDERS/0", "partition/ORDERS/1"]
    controller.bring_up("partition/ORDERS/1")
    assert number not in controller.replies
    controller.bring_up("partition/ORDERS/0")
    reply = controller.replies[number]
    assert isinstance(reply, DescribeTopicReply)
    assert [(each.partition, each.online, each.high_watermark) for each in reply.partitions] == [
        (0, True, 7),
        (1, True, 7),
    ]
    assert controller.timers == []


def test_a_partition_that_stays_down_is_described_after_a_while(controller: ControllerDriver) -> None:
    controller.comes_up = False
    number = controller.ask(create())
    controller.bring_up("partition/ORDERS/0")
    controller.up["partition/ORDERS/1"] = 1
    controller.bring_down("partition/ORDERS/1", "no room", quarantined=True)
    assert number not in controller.replies
    controller.advance(15_000)
    offline = controller.replies[number].partitions[1]
    assert (offline.online, offline.reason) == (False, "quarantined: no room")


def test_nothing_is_ordered_or_told_before_it_is_durable(controller: ControllerDriver) -> None:
    controller.is_save_held = True
    number = controller.ask(create())
    assert (controller.specs, controller.replies) == ({}, {})
    assert controller.answer(ListTopics()).topics == []
    controller.is_save_held = False
    controller.run()
    assert number in controller.replies


def test_no_room_voids_what_was_decided(controller: ControllerDriver) -> None:
    controller.is_full = True
    first, second = controller.send(create("A")), controller.send(create("B"))
    controller.run()
    assert [controller.replies[each].code for each in (first, second)] == ["STORAGE_FULL", "STORAGE_FULL"]
    assert controller.specs == {}
    controller.is_full = False
    assert isinstance(controller.answer(create("A")), DescribeTopicReply)
    assert [each.topic for each in controller.answer(ListTopics()).topics] == ["A"]


def test_decisions_of_a_turn_share_a_save(controller: ControllerDriver) -> None:
    for topic in ("A", "B", "C"):
        controller.send(create(topic))
    controller.run()
    assert len(controller.saved) == 1
    assert sorted(controller.saved[0].topics) == ["A", "B", "C"]


def test_specs_say_what_a_partition_needs(controller: ControllerDriver) -> None:
    reply = controller.answer(create(partitions=1))
    spec = controller.specs["partition/ORDERS/0"]
    assert spec.start == "planaria.actors.partition.process:main"
    assert spec.arguments["directory"] == "topics/ORDERS/0"
    assert spec.arguments["topic_id"] == reply.topic_id
    assert spec.arguments["config"]["flush"] == "batch"


def test_configuration_is_the_brokers_where_the_request_is_silent() -> None:
    controller = ControllerDriver(topic_defaults=TopicConfig(retention_ms=5_000, segment_bytes=2_048))
    config = controller.answer(create(config=TopicConfigChange(segment_bytes=4_096))).config
    assert (config.retention_ms, config.segment_bytes) == (5_000, 4_096)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "ä", "x" * 201, "a\n", "__offsets", "__x"])
def test_bad_names_are_refused(controller: ControllerDriver, name: str) -> None:
    reply = controller.answer(create(name))
    assert isinstance(reply, ErrorBody)
    assert reply.code == "INVALID_TOPIC"
    assert reply.message.startswith("topic:")


@pytest.mark.parametrize("name", ["a", ".hidden", "...", "A-b_c.9", "x" * 200])
def test_good_names_are_taken(controller: ControllerDriver, name: str) -> None:
    assert controller.answer(create(name)).topic == name


def test_an_existing_topic(controller: ControllerDriver) -> None:
    first = controller.answer(create())
    assert controller.answer(create()).code == "TOPIC_EXISTS"
    again = controller.answer(create(partitions=9, if_not_exists=True))
    assert (again.topic_id, len(again.partitions)) == (first.topic_id, 2)


def test_existing_is_told_only_when_it_is_durable(controller: ControllerDriver) -> None:
    controller.is_save_held = True
    controller.ask(create())
    number = controller.ask(create(if_not_exists=True))
    assert number not in controller.replies
    controller.is_save_held = False
    controller.run()
    assert isinstance(controller.replies[number], DescribeTopicReply)


def test_partitions_grow(controller: ControllerDriver) -> None:
    controller.ask(create())
    reply = controller.answer(AlterTopic(topic="ORDERS", partitions=3))
    assert len(reply.partitions) == 3
    assert "partition/ORDERS/2" in controller.specs


def test_partitions_never_shrink(controller: ControllerDriver) -> None:
    controller.ask(create())
    reply = controller.answer(AlterTopic(topic="ORDERS", partitions=1))
    assert reply.code == "INVALID_CONFIG"
    assert "cannot be reduced" in reply.message
    assert controller.machine.catalog.topics["ORDERS"].partitions == 2


def test_a_changed_configuration_reaches_specs_and_running_partitions(controller: ControllerDriver) -> None:
    controller.ask(create())
    config = controller.answer(
        AlterTopic(topic="ORDERS", config=TopicConfigChange(retention_ms=9_000))
    ).config
    assert config.retention_ms == 9_000
    assert {spec.arguments["config"]["retention_ms"] for spec in controller.specs.values()} == {9_000}
    assert [cast.address for cast in controller.casts] == ["partition/ORDERS/0", "partition/ORDERS/1"]
    assert {cast.request for cast in controller.casts} == {ConfigurePartition(config=config)}


def test_a_partition_that_was_starting_hears_of_the_change_when_it_is_up(
    controller: ControllerDriver,
) -> None:
    controller.ask(create(partitions=1))
    controller.bring_down("partition/ORDERS/0")
    controller.ask(AlterTopic(topic="ORDERS", config=TopicConfigChange(retention_ms=9_000)))
    assert controller.casts == []
    controller.bring_up("partition/ORDERS/0")
    assert [cast.address for cast in controller.casts] == ["partition/ORDERS/0"]


def test_delete_stops_removes_and_forgets(controller: ControllerDriver) -> None:
    topic_id = controller.answer(create()).topic_id
    assert isinstance(controller.answer(DeleteTopic(topic="ORDERS")), Done)
    assert controller.specs == {}
    assert [(each.topic, each.topic_id) for each in controller.removed] == [("ORDERS", topic_id)]
    assert (controller.machine.catalog.topics, controller.machine.catalog.removing) == ({}, {})
    assert controller.answer(create()).topic_id != topic_id


def test_files_go_only_after_every_partition_has_stopped(controller: ControllerDriver) -> None:
    controller.ask(create())
    controller.refuses_orders = True
    number = controller.ask(DeleteTopic(topic="ORDERS"))
    controller.advance(5_000)
    assert (controller.removed, number in controller.replies) == ([], False)
    reply = controller.answer(create())
    assert (reply.code, reply.retriable) == ("TOPIC_EXISTS", True)
    controller.refuses_orders = False
    controller.advance(1_000)
    assert [each.topic for each in controller.removed] == ["ORDERS"]
    assert isinstance(controller.replies[number], Done)


def test_a_deletion_that_was_interrupted_goes_on(controller: ControllerDriver) -> None:
    controller.ask(create())
    controller.refuses_orders = True
    controller.ask(DeleteTopic(topic="ORDERS"))
    successor = ControllerDriver(controller.saved[-1])
    successor.load()
    assert [each.topic for each in successor.removed] == ["ORDERS"]
    assert successor.saved[-1].removing == {}


def test_who_waits_for_a_topic_hears_of_its_deletion(controller: ControllerDriver) -> None:
    controller.comes_up = False
    number = controller.ask(create())
    controller.ask(DeleteTopic(topic="ORDERS"))
    assert controller.replies[number].code == "UNKNOWN_TOPIC"


def test_no_room_to_note_a_removal_keeps_nobody_waiting(controller: ControllerDriver) -> None:
    controller.ask(create())
    controller.is_save_held = True
    number = controller.ask(DeleteTopic(topic="ORDERS"))
    controller.is_save_held = False
    controller.refuses_orders = True
    controller.run()
    controller.is_full, controller.refuses_orders = True, False
    controller.advance(600)
    assert isinstance(controller.replies[number], Done)
    controller.is_full = False
    controller.advance(1_000)
    assert controller.machine.catalog.removing == {}


@pytest.mark.parametrize(
    "request_", [AlterTopic(topic="X"), DeleteTopic(topic="X"), DescribeTopic(topic="X" * 5_000)]
)
def test_unknown_topics(controller: ControllerDriver, request_: AlterTopic) -> None:
    reply = controller.answer(request_)
    assert reply.code == "UNKNOWN_TOPIC"
    assert len(reply.message) < 400


def test_description_right_after_a_start_waits_for_the_directory(controller: ControllerDriver) -> None:
    controller.ask(create(partitions=1))
    successor = ControllerDriver(controller.saved[-1])
    successor.comes_up = False
    successor.load()
    number = successor.ask(DescribeTopic(topic="ORDERS"))
    assert number not in successor.replies
    successor.bring_up("partition/ORDERS/0")
    assert successor.replies[number].partitions[0].online
    successor.bring_down("partition/ORDERS/0")
    assert successor.answer(DescribeTopic(topic="ORDERS")).partitions[0].reason == "killed by SIGKILL"


def test_everything_in_the_catalog_is_ordered_at_the_start(controller: ControllerDriver) -> None:
    controller.ask(create("A"))
    controller.ask(create("B", 1))
    successor = ControllerDriver(controller.saved[-1])
    successor.load()
    assert sorted(successor.specs) == ["partition/A/0", "partition/A/1", "partition/B/0"]


def test_a_refused_order_is_given_again() -> None:
    controller = ControllerDriver()
    controller.refuses_orders = True
    number = controller.ask(create())
    controller.advance(3_000)
    assert controller.specs == {}
    controller.refuses_orders = False
    controller.advance(1_000)
    assert isinstance(controller.replies[number], DescribeTopicReply)
    assert controller.timers == [], "an order that is fulfilled is not given again"


def test_stop(controller: ControllerDriver) -> None:
    controller.give(StopRequested(controller.now + 1_000))
    assert controller.stopped


def test_topic_ids_differ_between_catalogs() -> None:
    ids = {
        ControllerDriver(Catalog(catalog_id=catalog_id)).answer(create(topic)).topic_id
        for catalog_id in ("a", "b")
        for topic in ("X", "Y")
    }
    assert len(ids) == 2, "the first topic of a catalog has the same id whatever its name"


def test_partitions_of_all_topics_together_are_bounded() -> None:
    catalog = Catalog(catalog_id="c").with_topic("A", MAX_PARTITIONS - 1, TopicConfig(), 0)
    controller = ControllerDriver(catalog)
    refusal = controller.answer(create("B", 2))
    assert (refusal.code, refusal.message.startswith("partitions:")) == ("LIMIT_REACHED", True)
    assert controller.answer(AlterTopic(topic="A", partitions=MAX_PARTITIONS + 1)).code == "LIMIT_REACHED"
    controller.ask(create("B", 1))
    assert "partition/B/0" in controller.specs


def configured(controller: ControllerDriver) -> list[tuple[str, int]]:
    return [
        (cast.address, cast.request.config.retention_ms)
        for cast in controller.casts
        if isinstance(cast.request, ConfigurePartition)
    ]


def test_a_controller_after_one_that_died_configures_what_runs(controller: ControllerDriver) -> None:
    """The change was durable, and the partitions had not been told."""
    controller.ask(create("ORDERS", 2))
    controller.ask(AlterTopic(topic="ORDERS", config=TopicConfigChange(retention_ms=5)))
    successor = ControllerDriver(controller.saved[-1], incarnation=2)
    successor.comes_up = False
    successor.load()
    assert successor.specs["partition/ORDERS/0"].arguments["config"]["retention_ms"] == 5
    for address in ("partition/ORDERS/0", "partition/ORDERS/1"):
        successor.bring_up(address)
    assert configured(successor) == [("partition/ORDERS/0", 5), ("partition/ORDERS/1", 5)]


def test_the_first_controller_of_a_broker_configures_nothing_twice(controller: ControllerDriver) -> None:
    controller.ask(create("ORDERS", 2))
    first = ControllerDriver(controller.saved[-1])
    first.load()
    assert configured(first) == []


def test_of_an_internal_topic_the_minimum_of_replicas_in_sync_can_be_changed_and_nothing_else(
    controller: ControllerDriver,
) -> None:
    controller.answer(EnsureGroup(group="g"))
    for request in (
        AlterTopic(topic="__offsets", partitions=8),
        AlterTopic(topic="__offsets", config=TopicConfigChange(retention_ms=1, min_in_sync_replicas=1)),
    ):
        assert controller.answer(request).code == "FORBIDDEN"
    changed = controller.answer(
        AlterTopic(topic="__offsets", config=TopicConfigChange(min_in_sync_replicas=1))
    )
    assert isinstance(changed, DescribeTopicReply)
    assert changed.config.min_in_sync_replicas == 1

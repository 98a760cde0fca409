"""Groups, producer ids and watches, with the machine alone."""

from zlib import crc32

import pytest

from controller_driver import ControllerDriver
from planaria.actors.controller.catalog import Catalog
from planaria.actors.controller.room import MAX_GROUPS
from planaria.transport.addresses import Address
from planaria.transport.machine import PeerDown
from planaria.transport.producer_ids import IDS_PER_ERA, era_after, era_of, producer_id_of
from planaria.transport.protocol.control import EnsureGroup, PeersAsleep
from planaria.transport.protocol.data import InitProducer
from planaria.transport.protocol.errors import ErrorBody
from planaria.transport.protocol.groups import DeleteGroup, ListGroups
from planaria.transport.protocol.message import Done
from planaria.transport.protocol.topics import (
    AlterTopic,
    CreateTopic,
    DeleteTopic,
    ListTopics,
    TopicConfig,
    TopicConfigChange,
    WatchCatalog,
)

SOME_DAY_MS = 1_900_000_000_000


@pytest.fixture
def controller() -> ControllerDriver:
    return ControllerDriver()


def test_the_first_group_brings_the_offsets_topic(controller: ControllerDriver) -> None:
    assert isinstance(controller.answer(EnsureGroup(group="billing")), Done)
    spec = controller.specs["coordinator/billing"]
    assert spec.start == "planaria.actors.coordinator.process:main"
    assert not spec.directory, "it watches the actors that it calls"
    assert spec.arguments == {
        "group": "billing",
        "offsets_topic": "__offsets",
        "offsets_partition": crc32(b"billing") % 4,
        "idle_ms": 0,
        "offsets_retention_ms": -1,
        "disconnect_grace_ms": 0,
    }
    config = controller.specs["partition/__offsets/3"].arguments["config"]
    assert (config["retention_ms"], config["segment_bytes"], config["flush"]) == (
        -1,
        16 * 1024 * 1024,
        "batch",
    )
    assert controller.answer(ListTopics()).topics == []
    assert [each.topic for each in controller.answer(ListTopics(internal=True)).topics] == ["__offsets"]


@pytest.mark.parametrize(("dead_letter", "code"), [("DEAD", "UNKNOWN_TOPIC"), ("__offsets", "INVALID_TOPIC")])
def test_a_group_whose_configuration_would_be_refused_is_not_created(
    controller: ControllerDriver, dead_letter: str, code: str
) -> None:
    order = EnsureGroup(group="g", dead_letter=dead_letter)
    assert controller.answer(order).code == code
    assert controller.answer(ListGroups()).groups == []
    controller.ask(CreateTopic(topic="DEAD"))
    assert isinstance(controller.answer(EnsureGroup(group="g", dead_letter="DEAD")), Done)
    assert isinstance(controller.answer(order), Done), "the coordinator of a group that exists decides"


def test_the_number_of_offsets_partitions_counts_when_the_topic_is_created() -> None:
    controller = ControllerDriver(offsets_partitions=2)
    controller.ask(EnsureGroup(group="a"))
    successor = ControllerDriver(controller.saved[-1], offsets_partitions=64)
    successor.ask(EnsureGroup(group="b"))
    assert successor.specs["coordinator/b"].arguments["offsets_partition"] == crc32(b"b") % 2
    assert successor.machine.catalog.topics["__offsets"].partitions == 2


def test_ensuring_twice_saves_once(controller: ControllerDriver) -> None:
    controller.is_save_held = True
    first, second = controller.ask(EnsureGroup(group="a")), controller.ask(EnsureGroup(group="a"))
    assert controller.replies == {}
    controller.is_save_held = False
    controller.run()
    controller.ask(EnsureGroup(group="a"))
    assert [type(controller.replies[each]) for each in (first, second)] == [Done, Done]
    assert len(controller.saved) == 1
    assert controller.answer(ListGroups()).groups == ["a"]


def test_a_group_is_not_created_by_those_who_only_look(controller: ControllerDriver) -> None:
    assert controller.answer(EnsureGroup(group="a", create=False)).code == "UNKNOWN_GROUP"
    controller.ask(EnsureGroup(group="a"))
    assert isinstance(controller.answer(EnsureGroup(group="a", create=False)), Done)


@pytest.mark.parametrize("name", ["", "..", "a/b", "x" * 201, "\u0000"])
def test_bad_group_names_are_refused(controller: ControllerDriver, name: str) -> None:
    reply = controller.answer(EnsureGroup(group=name))
    assert reply.code == "INVALID_GROUP"
    assert reply.message.startswith("group:")


def test_groups_are_bounded() -> None:
    groups = {f"g{number}": 0 for number in range(MAX_GROUPS)}
    controller = ControllerDriver(Catalog(catalog_id="c", groups=groups))
    assert controller.answer(EnsureGroup(group="one-more")).code == "LIMIT_REACHED"
    assert isinstance(controller.answer(EnsureGroup(group="g7")), Done)


def test_no_room_for_a_group(controller: ControllerDriver) -> None:
    controller.is_full = True
    assert controller.answer(EnsureGroup(group="a")).code == "STORAGE_FULL"
    assert controller.specs == {}


def test_known_groups_are_ordered_at_the_start_after_their_offsets(controller: ControllerDriver) -> None:
    controller.ask(CreateTopic(topic="A"))
    controller.ask(EnsureGroup(group="g"))
    successor = ControllerDriver(controller.saved[-1])
    successor.load()
    ordered = list(successor.specs)
    assert ordered[:4] == [f"partition/__offsets/{partition}" for partition in range(4)]
    assert ordered[-1] == "coordinator/g"


def test_delete_asks_the_coordinator_and_then_stops_it(controller: ControllerDriver) -> None:
    controller.ask(EnsureGroup(group="a"))
    assert isinstance(controller.answer(DeleteGroup(group="a")), Done)
    assert "coordinator/a" not in controller.specs
    assert controller.answer(ListGroups()).groups == []
    assert controller.answer(DeleteGroup(group="a")).code == "UNKNOWN_GROUP"
    assert isinstance(controller.answer(EnsureGroup(group="a")), Done)
    assert "coordinator/a" in controller.specs


def test_a_coordinator_that_refuses_keeps_its_group(controller: ControllerDriver) -> None:
    controller.ask(EnsureGroup(group="a"))
    controller.forgets = ErrorBody("GROUP_NOT_EMPTY", "group a has 2 members")
    assert controller.answer(DeleteGroup(group="a")).code == "GROUP_NOT_EMPTY"
    assert controller.answer(ListGroups()).groups == ["a"]
    controller.forgets = None
    assert isinstance(controller.answer(DeleteGroup(group="a")), Done)


def test_a_group_being_deleted_is_neither_ensured_nor_deleted_again(controller: ControllerDriver) -> None:
    controller.ask(EnsureGroup(group="a"))
    controller.refuses_orders = True
    number = controller.ask(DeleteGroup(group="a"))
    for request in (EnsureGroup(group="a"), DeleteGroup(group="a")):
        reply = controller.answer(request)
        assert (reply.code, reply.retriable) == ("ACTOR_UNAVAILABLE", True)
    controller.refuses_orders = False
    controller.advance(600)
    assert isinstance(controller.replies[number], Done)


def test_no_room_to_forget_a_group(controller: ControllerDriver) -> None:
    controller.ask(EnsureGroup(group="a"))
    controller.is_full = True
    assert controller.answer(DeleteGroup(group="a")).code == "STORAGE_FULL"
    assert controller.answer(ListGroups()).groups == ["a"]
    controller.is_full = False
    assert isinstance(controller.answer(DeleteGroup(group="a")), Done)


def test_the_offsets_topic_is_nobodys_to_change(controller: ControllerDriver) -> None:
    controller.ask(EnsureGroup(group="a"))
    for request in (AlterTopic(topic="__offsets", partitions=9), DeleteTopic(topic="__offsets")):
        assert controller.answer(request).code == "FORBIDDEN"


def test_producer_ids_never_repeat_over_crashes() -> None:
    catalog, given = None, []
    for count in (3, IDS_PER_ERA + 5, 1):
        controller = ControllerDriver(catalog)
        given += [controller.answer(InitProducer()).producer_id for _ in range(count)]
        catalog = controller.saved[-1]
    assert len(set(given)) == len(given)
    assert given[0] >= 0


def test_no_identity_repeats_when_an_older_catalog_is_restored() -> None:
    """The restored catalog is a backup from before the ids below and the topic."""
    controller = ControllerDriver()
    controller.now = SOME_DAY_MS
    controller.answer(InitProducer())
    backup = controller.saved[-1]
    lost = [controller.answer(InitProducer()).producer_id for _ in range(2 * IDS_PER_ERA)]
    lost_topic = controller.answer(CreateTopic(topic="A", partitions=1)).topic_id

    restored = ControllerDriver(backup)
    restored.now = controller.now + 60_000
    given = [restored.answer(InitProducer()).producer_id for _ in range(2 * IDS_PER_ERA)]
    assert not set(given) & set(lost)
    assert restored.answer(CreateTopic(topic="A", partitions=1)).topic_id != lost_topic


def test_an_era_that_a_partition_knows_is_passed_over_even_when_the_clock_went_back() -> None:
    controller = ControllerDriver()
    controller.now = SOME_DAY_MS
    controller.eras["partition/A/0"] = era_after(0, SOME_DAY_MS) + 5
    before = controller.answer(InitProducer()).producer_id
    controller.ask(CreateTopic(topic="A", partitions=1))
    after = controller.answer(InitProducer()).producer_id
    assert era_of(before) == era_after(0, SOME_DAY_MS)
    assert era_of(after) == era_after(0, SOME_DAY_MS) + 6


def test_what_a_partition_knows_of_the_era_at_hand_is_no_doubt(controller: ControllerDriver) -> None:
    first = controller.answer(InitProducer()).producer_id
    controller.eras["partition/A/0"] = era_of(first) or 0
    controller.ask(CreateTopic(topic="A", partitions=1))
    assert controller.answer(InitProducer()).producer_id == first + 1


def test_an_era_costs_one_save(controller: ControllerDriver) -> None:
    numbers = [controller.ask(InitProducer())]
    numbers += [controller.send(InitProducer()) for _ in range(IDS_PER_ERA - 1)]
    controller.run()
    assert len({controller.replies[number].producer_id for number in numbers}) == IDS_PER_ERA
    assert len(controller.saved) == 1


def test_ids_wait_for_their_era_to_be_durable(controller: ControllerDriver) -> None:
    controller.is_save_held = True
    number = controller.ask(InitProducer())
    assert controller.replies == {}
    controller.is_full, controller.is_save_held = True, False
    controller.run()
    assert controller.replies[number].code == "STORAGE_FULL"
    controller.is_full = False
    assert controller.answer(InitProducer()).producer_id == producer_id_of(1, 0)


def test_waiting_producers_are_bounded(controller: ControllerDriver) -> None:
    controller.is_save_held = True
    numbers = [controller.ask(InitProducer()) for _ in range(1_001)]
    assert controller.replies[numbers[-1]].code == "OVERLOADED"
    controller.is_save_held = False
    controller.run()
    assert len(controller.replies) == 1_001


def test_a_watch_is_parked_until_a_topic_changes(controller: ControllerDriver) -> None:
    version = controller.answer(WatchCatalog()).version
    number = controller.ask(WatchCatalog(after_version=version, max_wait_ms=10_000))
    controller.ask(InitProducer())
    assert number not in controller.replies, "producer ids are nobody's news"
    controller.ask(CreateTopic(topic="A", partitions=3))
    assert [(each.topic, each.partitions) for each in controller.replies[number].topics] == [("A", 3)]
    assert controller.replies[number].version > version
    assert controller.timers == []


def test_a_watch_ends_with_its_time(controller: ControllerDriver) -> None:
    version = controller.answer(WatchCatalog()).version
    number = controller.ask(WatchCatalog(after_version=version, max_wait_ms=500))
    controller.advance(500)
    assert (controller.replies[number].version, controller.replies[number].topics) == (version, [])


def test_a_version_of_another_life_is_answered_at_once(controller: ControllerDriver) -> None:
    assert controller.answer(WatchCatalog(after_version=77, max_wait_ms=60_000)).version == 0


def test_only_durable_topics_are_news(controller: ControllerDriver) -> None:
    number = controller.ask(WatchCatalog(after_version=0, max_wait_ms=10_000))
    controller.is_full = True
    controller.ask(CreateTopic(topic="A"))
    assert number not in controller.replies


def test_a_topic_created_anew_has_another_id(controller: ControllerDriver) -> None:
    ids = []
    for _ in range(2):
        controller.ask(CreateTopic(topic="A"))
        ids += [each.topic_id for each in controller.answer(WatchCatalog()).topics]
        controller.ask(DeleteTopic(topic="A"))
    assert len(set(ids)) == 2


def test_watchers_see_internal_topics_and_limits(controller: ControllerDriver) -> None:
    controller.ask(EnsureGroup(group="g"))
    controller.ask(CreateTopic(topic="A", partitions=2, config=TopicConfigChange(max_message_bytes=99)))
    reply = controller.answer(WatchCatalog())
    assert [(each.topic, each.partitions) for each in reply.topics] == [("A", 2), ("__offsets", 4)]
    assert reply.topics[0].max_message_bytes == 99


def test_an_offsets_topic_from_before_it_was_compacted_is_brought_up_to_date(
    controller: ControllerDriver,
) -> None:
    controller.ask(EnsureGroup(group="g"))
    catalog = controller.machine.catalog
    old = catalog.with_topic_changed("__offsets", 4, TopicConfig(retention_ms=-1))
    successor = ControllerDriver(old)
    successor.load()
    successor.run()
    assert successor.machine.catalog.topics["__offsets"].config.cleanup == "compact"
    config = successor.specs["partition/__offsets/0"].arguments["config"]
    assert (config["cleanup"], config["retention_ms"]) == ("compact", -1)
    third = ControllerDriver(successor.saved[-1])
    third.load()
    third.run()
    assert not third.saved


def with_groups(**options: object) -> ControllerDriver:
    """Two groups, of which one was asleep when the broker ended."""
    before = ControllerDriver()
    before.ask(EnsureGroup(group="a"))
    before.ask(EnsureGroup(group="b"))
    before.ask(CreateTopic(topic="T", partitions=1))
    after = ControllerDriver(
        before.saved[-1], asleep={"coordinator/b": None, "coordinator/gone": None}, **options
    )
    after.load()
    return after


def test_who_slept_before_is_not_started() -> None:
    controller = with_groups()
    assert controller.asleep == {"coordinator/b": None}
    assert "coordinator/a" in controller.up


def test_groups_are_woken_when_a_topic_begins_to_ask_for_them() -> None:
    controller = with_groups()
    controller.give(PeerDown(address=Address.parse("coordinator/b"), incarnation=0, reason="", asleep=True))
    controller.ask(AlterTopic(topic="T", config=TopicConfigChange(retention_ms=5_000)))
    assert controller.woken == []
    controller.ask(AlterTopic(topic="T", config=TopicConfigChange(max_backlog_messages=5)))
    assert controller.woken == ["coordinator/b"]


def test_a_group_that_sleeps_takes_no_room() -> None:
    controller = with_groups(max_actors=9)
    assert controller.answer(EnsureGroup(group="c")).code == "LIMIT_REACHED"
    controller.give(PeerDown(address=Address.parse("coordinator/b"), incarnation=0, reason="", asleep=True))
    assert isinstance(controller.answer(EnsureGroup(group="c")), Done)


def test_who_has_to_be_woken_is_woken_after_a_restart() -> None:
    controller = with_groups()
    woken = ControllerDriver(
        controller.machine.catalog, asleep={"coordinator/a": controller.now + 5, "coordinator/b": 7}
    )
    woken.load()
    assert woken.asleep == {"coordinator/a": 5, "coordinator/b": 0}, "one of them is late"


@pytest.mark.parametrize("is_tracked", [True, False])
def test_a_controller_after_one_that_died_wakes_the_groups_that_have_to_report(is_tracked: bool) -> None:
    """The topic tracks groups by a change that was durable when the controller before died."""
    controller = with_groups()
    controller.ask(CreateTopic(topic="ORDERS", partitions=1))
    change = TopicConfigChange(retain_until_consumed=is_tracked, retention_ms=7)
    controller.ask(AlterTopic(topic="ORDERS", config=change))
    successor = ControllerDriver(controller.saved[-1], incarnation=2)
    successor.load()
    successor.asleep["coordinator/a"] = None
    successor.give(PeersAsleep(addresses=[Address.parse("coordinator/a")]))
    assert successor.woken == (["coordinator/a"] if is_tracked else [])

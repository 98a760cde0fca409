"""The controller over a store whose outcomes a test decides: refused, unknown, late, and changes by others."""

from collections.abc import Callable

import pytest

from controller_driver import ControllerDriver
from planaria.actors.controller.catalog import Catalog
from planaria.actors.metadata.entries import Entries
from planaria.actors.metadata.store import (
    Applied,
    Change,
    Changed,
    Delete,
    Entry,
    Propose,
    Put,
    Rejected,
    State,
    StoreEvent,
    Unknown,
)
from planaria.transport.protocol.control import EnsureGroup, EnsureInternalActors
from planaria.transport.protocol.data import InitProducer
from planaria.transport.protocol.errors import ErrorBody
from planaria.transport.protocol.quotas import ListQuotas
from planaria.transport.protocol.topics import (
    AlterTopic,
    CreateTopic,
    ListTopics,
    TopicConfig,
    TopicConfigChange,
    WatchCatalog,
)


class HeldStore:
    """Applies a proposal when the test says so."""

    descriptor = None

    def __init__(self) -> None:
        self.entries = Entries()
        self.proposals: list[Propose] = []
        self._events: list[StoreEvent] = []

    def load(self, progress: Callable[[], None]) -> State:
        return self.entries.state()

    def propose(self, proposal: Propose) -> None:
        self.proposals.append(proposal)

    def settle(self) -> list[StoreEvent]:
        events, self._events = self._events, []
        return events

    def alarms(self) -> tuple[str, ...]:
        return ()

    def close(self) -> None:
        pass

    def tell(self, *events: StoreEvent) -> None:
        self._events += events

    def apply(self, tells: bool = True) -> None:
        """Apply the oldest proposal, and report the change; with `tells` the outcome as well."""
        events = self.entries.decide(self.proposals.pop(0))
        self.tell(*(event for event in events if tells or isinstance(event, Changed)))

    def change(self, *changes: Change) -> None:
        """Let another controller make a change."""
        self.entries.apply(self.entries.revision + 1, changes)
        self.tell(Changed(self.entries.revision, changes))


@pytest.fixture
def store() -> HeldStore:
    return HeldStore()


@pytest.fixture
def controller(store: HeldStore) -> ControllerDriver:
    driver = ControllerDriver(store=store)
    driver.load()
    return driver


def topic_value(topic: str, partitions: int = 1) -> bytes:
    catalog = Catalog(catalog_id="another").with_topic(topic, partitions, TopicConfig(), 0)
    return catalog.values()[f"topics/{topic}"]


def topics_of(controller: ControllerDriver) -> list[str]:
    return [summary.topic for summary in controller.answer(ListTopics()).topics]


def test_nothing_is_visible_before_it_is_applied(controller: ControllerDriver, store: HeldStore) -> None:
    number = controller.ask(CreateTopic(topic="A"))
    assert (number in controller.replies, controller.specs, topics_of(controller)) == (False, {}, [])
    store.apply()
    controller.run()
    assert controller.replies[number].topic == "A"
    assert set(controller.specs) == {"partition/A/0"}


def test_one_proposal_is_in_flight_and_the_next_has_all_that_was_decided_meanwhile(
    controller: ControllerDriver, store: HeldStore
) -> None:
    controller.ask(CreateTopic(topic="A"))
    controller.ask(CreateTopic(topic="B"))
    controller.ask(InitProducer())
    (first,) = store.proposals
    store.apply()
    controller.run()
    (second,) = store.proposals
    assert [change.key for change in first.changes] == ["id", "topics/A"]
    assert [change.key for change in second.changes] == ["topics/B", "producer_ids"]
    assert {guard.revision for guard in second.guards} == {0}
    store.apply()
    controller.run()
    assert topics_of(controller) == ["A", "B"]


def test_a_refusal_drops_all_that_was_built_on_it(controller: ControllerDriver, store: HeldStore) -> None:
    numbers = [controller.ask(CreateTopic(topic="A")), controller.ask(EnsureGroup(group="g"))]
    store.tell(Rejected(store.proposals.pop().number, 7, {}))
    controller.run()
    errors = [controller.replies[number] for number in numbers]
    assert all(isinstance(error, ErrorBody) and error.retriable for error in errors)
    assert (controller.specs, topics_of(controller), store.proposals) == ({}, [], [])
    controller.ask(CreateTopic(topic="A"))
    assert [change.key for change in store.proposals[0].changes] == ["id", "topics/A"]


def test_an_unknown_outcome_is_told_and_acted_upon_when_it_shows(
    controller: ControllerDriver, store: HeldStore
) -> None:
    number = controller.ask(CreateTopic(topic="A"))
    proposal = store.proposals[0]
    store.tell(Unknown(proposal.number))
    controller.run()
    assert (controller.replies[number].code, controller.specs) == ("TIMED_OUT", {})
    store.apply(tells=False)
    controller.run()
    assert set(controller.specs) == {"partition/A/0"}


def test_changes_by_another_controller_are_followed(controller: ControllerDriver, store: HeldStore) -> None:
    watch = controller.ask(WatchCatalog(after_version=0, max_wait_ms=60_000))
    store.change(
        Put("topics/A", topic_value("A", 2)),
        Put("topics/__delayed", topic_value("__delayed")),
        Put("topics/__offsets", topic_value("__offsets")),
        Put("groups/g", b'{"offsets_partition":0}'),
        Put("quotas/c", b'{"fetch_bytes":5}'),
    )
    controller.run()
    assert {"partition/A/0", "partition/A/1", "coordinator/g", "scheduler/0"} <= set(controller.specs)
    assert len(controller.replies[watch].topics) == 3
    assert controller.answer(ListQuotas()).quotas["c"].fetch_bytes == 5
    store.change(Delete("topics/A"), Put("removing/A", topic_value("A", 2)), Delete("groups/g"))
    controller.run()
    assert set(controller.specs) == {"partition/__delayed/0", "partition/__offsets/0", "scheduler/0"}


def test_a_decision_in_flight_stands_on_top_of_a_change_by_another(
    controller: ControllerDriver, store: HeldStore
) -> None:
    controller.ask(CreateTopic(topic="A"))
    store.change(Put("topics/B", topic_value("B")))
    controller.run()
    assert controller.answer(CreateTopic(topic="B")).code == "TOPIC_EXISTS"
    store.apply()
    controller.run()
    controller.ask(EnsureInternalActors(topic="__delayed"))
    store.apply()
    controller.run()
    assert topics_of(controller) == ["A", "B"]


def test_a_whole_state_replaces_all_that_was_known(controller: ControllerDriver, store: HeldStore) -> None:
    controller.ask(CreateTopic(topic="A"))
    store.apply()
    controller.run()
    version = controller.answer(WatchCatalog()).version
    watch = controller.ask(WatchCatalog(after_version=version, max_wait_ms=60_000))
    # Restored from a backup: the revision goes back.
    store.tell(
        State(1, {"id": Entry(b'{"catalog_id":"x"}', 1, 1), "topics/B": Entry(topic_value("B"), 1, 1)})
    )
    controller.run()
    assert topics_of(controller) == ["B"]
    assert controller.replies[watch].version > version
    assert set(controller.specs) == {"partition/B/0"}


def test_an_outcome_that_comes_later_than_its_change_is_no_second_start(
    controller: ControllerDriver, store: HeldStore
) -> None:
    number = controller.ask(CreateTopic(topic="A"))
    proposal = store.proposals[0]
    store.apply(tells=False)
    controller.run()
    assert number not in controller.replies
    controller.ask(CreateTopic(topic="B"))
    store.tell(Applied(proposal.number, store.entries.revision))
    controller.run()
    assert controller.replies[number].topic == "A"
    (following,) = store.proposals
    assert [change.key for change in following.changes] == ["topics/B"]


def test_a_decision_that_waits_is_dropped_when_another_changes_its_key(
    controller: ControllerDriver, store: HeldStore
) -> None:
    """Its guards are taken when it is proposed, and would fit the state that it does not know."""
    controller.ask(CreateTopic(topic="A"))
    store.apply()
    controller.run()
    controller.ask(CreateTopic(topic="B"))
    number = controller.ask(AlterTopic(topic="A", config=TopicConfigChange(retention_ms=1)))
    store.change(Put("topics/A", topic_value("A", 5)))
    controller.run()
    assert controller.replies[number].retriable
    store.apply()
    controller.run()
    assert store.proposals == []
    assert {"partition/A/4", "partition/B/0"} <= set(controller.specs)


def test_the_same_change_by_another_is_acted_upon_when_our_own_is_refused(
    controller: ControllerDriver, store: HeldStore
) -> None:
    controller.ask(CreateTopic(topic="A"))
    store.apply()
    controller.run()
    number = controller.ask(EnsureGroup(group="g"))
    store.change(*store.proposals[0].changes)
    controller.run()
    store.tell(Rejected(store.proposals[0].number, store.entries.revision, {}))
    controller.run()
    assert controller.replies[number].retriable
    assert "coordinator/g" in controller.specs

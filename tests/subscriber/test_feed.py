"""The feed: its events about partitions that are new, or whose logs were truncated, and the order of its work."""

import select
from collections.abc import Iterator
from typing import Any

import pytest

from planaria.actors.subscriber.committing import PlainCommits
from planaria.actors.subscriber.effects import (
    Commit,
    Committed,
    ConsumerStarted,
    Damage,
    DamageFound,
    EndPoll,
    GroupLeft,
    HandOver,
    Leave,
    OwnEvent,
    PartitionsLost,
    PausePartition,
    Poll,
    ReadDamage,
    RecordsPolled,
    ResumePartition,
    Revoking,
    Rewind,
)
from planaria.actors.subscriber.feed import Feed
from planaria.actors.subscriber.member import OnChange
from planaria.actors.subscriber.progress import Ahead
from planaria.actors.subscriber.tasks import Tasks
from planaria.actors.subscriber.threads import Callback, Inbox
from planaria.transport.addresses import TopicPartition
from planaria.transport.aio.loops import Bridge, Flag
from planaria.transport.client.consuming import RunCallback
from planaria.transport.client.errors import CorruptData
from planaria.transport.lineage import lineage_of
from planaria.transport.protocol.groups import PartitionOffset
from subscriber_script import FakeMessage, messages

NOTHING = RecordsPolled([])
P, Q = TopicPartition("A", 0), TopicPartition("A", 1)


class FakeConsumer:
    """A consumer whose polls wait until the test has given them something: records, an error, or a change."""

    def __init__(self, bridge: Bridge, on_change: OnChange) -> None:
        self.on_change = on_change
        self.found: list[Any] = []
        self.has_found = Flag(bridge)
        self.may_commit = Flag(bridge)
        self.may_commit.set_here()
        self.origins: dict[Any, tuple[str, int]] = {P: ("t1", 0), Q: ("t1", 0)}
        self.owned = [P, Q]
        self.metadata = ""
        self.steps: list[tuple[Any, ...]] = []

    async def __aenter__(self) -> None:
        self.steps.append(("join",))

    async def poll(self, limit: object, most: int) -> list[FakeMessage]:
        assert limit is None
        while not self.found:
            self.has_found.clear()
            await self.has_found.wait()
        found = self.found.pop(0)
        if isinstance(found, Exception):
            raise found
        if isinstance(found, RunCallback):
            await self.on_change(found)
            return []
        return found  # type: ignore[no-any-return]

    def give(self, *found: Any) -> None:
        self.found += found
        self.has_found.set_here()

    def end_poll(self) -> None:
        self.give([])

    def origin(self, tp: Any) -> tuple[str, int]:
        return self.origins[tp]

    async def offsets_committed(self, tps: Any) -> list[PartitionOffset]:
        return [PartitionOffset(*tp, 4, self.metadata) for tp in tps]

    async def beginning_of(self, tp: Any) -> int:
        return 9

    async def commit(self, offsets: Any, metadata: Any) -> None:
        await self.may_commit.wait()
        self.steps.append(("commit", offsets))

    async def close(self, *, leave_group: bool) -> None:
        self.steps.append(("leave", leave_group))

    def assignment(self) -> list[Any]:
        return self.owned

    def seek(self, *at: Any) -> None:
        self.steps.append(("seek", *at))

    def pause(self, *tps: Any) -> None:
        self.steps.append(("pause", *tps))

    def resume(self, *tps: Any) -> None:
        self.steps.append(("resume", *tps))


class Desk:
    """A feed and the turns of its loop."""

    def __init__(self) -> None:
        self.inbox = Inbox()
        self.tasks = Tasks(self.inbox)
        bridge = Bridge(self.tasks, lambda gate: gate.open())
        self.events: list[OwnEvent] = []
        self.consumer: FakeConsumer

        def consumer_of(on_change: OnChange) -> Any:
            self.consumer = FakeConsumer(bridge, on_change)
            return self.consumer

        self.feed = Feed(consumer_of, 100, bridge, self.events.append, PlainCommits())
        self.tasks.start(self.feed.run())
        self.perform()
        assert self.taken() == [ConsumerStarted()]

    def perform(self, *effects: Any) -> None:
        for effect in effects:
            self.feed.perform(effect)
        self.tasks.run()

    def give(self, *found: Any) -> None:
        self.consumer.give(*found)
        self.tasks.run()

    def taken(self) -> list[Any]:
        taken = self.events[:]
        self.events.clear()
        return taken

    def poll(self, *found: FakeMessage) -> list[Any]:
        """Return the machine's events, up to the poll's end."""
        self.perform(Poll())
        assert self.taken() == []
        self.give(list(found))
        return self.taken()


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.inbox.close()


def test_a_partition_that_goes_back_by_itself_is_lost_and_begins_anew(desk: Desk) -> None:
    """These offsets now belong to other records than the machine holds."""
    desk.consumer.metadata = "done ahead (epoch 1): 2-3"
    lineage, told = lineage_of("t1", 0), Ahead(((6, 8),), 1)
    [first] = desk.poll(*messages(*P, 4, 5, 6), *messages(*Q, 4))
    assert first.lineages == {P: lineage, Q: lineage}
    assert first.ahead == {P: told, Q: told}
    [second] = desk.poll(*messages(*P, 7), *messages(*Q, 5))
    assert (second.lineages, second.ahead) == ({}, {})
    lost, third = desk.poll(*messages(*P, 6, 7), *messages(*Q, 6))
    assert lost == PartitionsLost([P])
    assert (third.lineages, third.ahead) == ({P: lineage}, {P: told})
    [fourth] = desk.poll(*messages(*P, 8))
    assert fourth.lineages == {}


def test_a_partition_that_was_told_to_go_back_begins_anew_and_is_not_lost(desk: Desk) -> None:
    desk.poll(*messages(*P, 4, 5, 6))
    desk.perform(Rewind({P: 4}))
    [polled] = desk.poll(*messages(*P, 4, 5))
    assert polled.lineages == {P: lineage_of("t1", 0)}
    assert desk.consumer.steps[1:] == [("seek", *P, 4)]


def test_orders_are_performed_one_after_another_and_an_end_of_the_poll_at_once(desk: Desk) -> None:
    desk.consumer.may_commit.clear()
    desk.perform(Commit({P: 3}), Poll())
    desk.give(messages(*P, 4))
    assert desk.taken() == [], "the poll comes after the commit"
    desk.consumer.may_commit.set_here()
    desk.perform()
    committed, polled = desk.taken()
    assert committed == Committed({P: 3})
    assert [each.offset for each in polled.records] == [4]
    desk.perform(Poll())
    assert desk.taken() == [], "a poll waits as long as there is nothing"
    desk.perform(EndPoll())
    assert desk.taken() == [NOTHING]


def test_partitions_pause_and_resume_while_a_poll_is_out(desk: Desk) -> None:
    desk.perform(Poll(), PausePartition(P), ResumePartition(P))
    assert desk.consumer.steps[1:] == [("pause", P), ("resume", P)]


def test_a_revocation_waits_for_the_machine_and_commits_for_the_last_time(desk: Desk) -> None:
    desk.perform(Poll())
    desk.give(RunCallback("revoked", [P]))
    assert desk.taken() == [Revoking([P])]
    desk.perform(EndPoll())
    assert desk.taken() == [], "also the end of the poll waits for it"
    desk.perform(HandOver({P: 7}))
    assert desk.consumer.steps[1:] == [("commit", {P: 7})]
    assert desk.taken() == [NOTHING]


def test_damage_is_reported_once_and_read_again_when_that_is_ordered(desk: Desk) -> None:
    error = CorruptData(*P, 5, "segment 0 is damaged")
    damage = Damage(*P, 5, None, str(error))
    for expected in ([DamageFound((damage,)), RecordsPolled(())], [RecordsPolled(())]):
        desk.perform(Poll())
        desk.give(error)
        assert desk.taken() == expected
    desk.perform(ReadDamage())
    assert desk.consumer.steps[3:] == [("seek", *P, 9), ("resume", P)]
    assert desk.poll(*messages(*P, 9))[0] == DamageFound(())


def test_after_it_has_left_it_touches_the_consumer_no_more(desk: Desk) -> None:
    desk.perform(Leave({Q: 2}, keeps_place=True))
    assert desk.taken() == [GroupLeft()]
    desk.perform(ResumePartition(P), PausePartition(Q))
    assert desk.consumer.steps[1:] == [("commit", {Q: 2}), ("leave", False)]


def test_a_callback_of_the_clients_thread_wakes_the_loop() -> None:
    inbox = Inbox()
    tasks = Tasks(inbox)
    signal, steps = tasks.signal(), []

    async def task() -> None:
        await signal.wait()
        steps.append("woken")

    tasks.start(task())
    tasks.run()
    assert not steps
    tasks.call_soon(signal.set)
    readable, _, _ = select.select([inbox.fileno()], [], [], 10)
    assert readable
    for event in inbox.take():
        assert isinstance(event, Callback)
        event.call()
    tasks.run()
    assert steps == ["woken"]
    inbox.close()


def test_an_error_of_a_task_leaves_the_turn() -> None:
    inbox = Inbox()
    tasks = Tasks(inbox)

    async def task() -> None:
        raise ZeroDivisionError

    tasks.start(task())
    with pytest.raises(ZeroDivisionError):
        tasks.run()
    inbox.close()

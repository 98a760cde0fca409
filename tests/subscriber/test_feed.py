"""The group's member: its events about partitions that are new, or whose logs were truncated."""

import select
from collections.abc import Iterator
from typing import Any

import pytest

from planaria.actors.subscriber.committing import PlainCommits
from planaria.actors.subscriber.consumer_thread import ConsumerThread
from planaria.actors.subscriber.effects import ConsumerStarted, PartitionsLost, Poll, RecordsPolled, Rewind
from planaria.actors.subscriber.progress import Ahead
from planaria.actors.subscriber.threads import EventQueue
from planaria.transport.lineage import lineage_of
from planaria.transport.protocol.groups import PartitionOffset
from subscriber_script import FakeMessage, messages

P, Q = ("A", 0), ("A", 1)


class FakeConsumer:
    def __init__(self) -> None:
        self.found: list[list[FakeMessage]] = []
        self.origins: dict[Any, tuple[str, int]] = {P: ("t1", 0), Q: ("t1", 0)}
        self.metadata = ""
        self.sought: list[tuple[str, int, int]] = []

    def poll(self, *_: Any) -> list[FakeMessage]:
        return self.found.pop(0)

    def _origin(self, tp: Any) -> tuple[str, int]:
        return self.origins[tp]

    def _committed_offsets(self, tps: Any) -> list[PartitionOffset]:
        return [PartitionOffset(*tp, 4, self.metadata) for tp in tps]

    def assignment(self) -> list[Any]:
        return [P, Q]

    def seek(self, *at: Any) -> None:
        self.sought.append(at)


class Desk:
    def __init__(self, inbox: EventQueue) -> None:
        self.inbox = inbox
        self.consumer = FakeConsumer()
        self.consumer_thread = ConsumerThread(lambda *_: self.consumer, 100, inbox, PlainCommits())  # type: ignore[arg-type,return-value]
        self.consumer_thread.open()
        assert self.heard() == [ConsumerStarted()]

    def heard(self) -> list[Any]:
        readable, _, _ = select.select([self.inbox.fileno()], [], [], 10)
        assert readable, "nothing was posted"
        return self.inbox.take()

    def poll(self, *found: FakeMessage) -> list[Any]:
        """Return the machine's events, up to the poll's end."""
        self.consumer.found.append(list(found))
        self.consumer_thread.perform(Poll())
        events = self.heard()
        while not isinstance(events[-1], RecordsPolled):
            events += self.heard()
        return events


@pytest.fixture
def desk() -> Iterator[Desk]:
    inbox = EventQueue()
    yield Desk(inbox)
    inbox.close()


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
    desk.consumer_thread.perform(Rewind({P: 4}))
    [polled] = desk.poll(*messages(*P, 4, 5))
    assert polled.lineages == {P: lineage_of("t1", 0)}
    assert desk.consumer.sought == [(*P, 4)]

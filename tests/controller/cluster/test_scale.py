"""A thousand nodes and a hundred thousand partitions on paper: what each event costs the machine of one controller.

    pytest tests/controller/cluster/test_scale.py -m chaos -s

The machine is the product's own (`actors/controller/clustered.py`); the store answers at once, and no process runs. Times
are those of the processor. The ordinary run counts calls in place of them: an event costs as much in a cluster of twice
the size, as far as it concerns as many partitions.
"""

import sys
import time
from collections.abc import Callable
from itertools import count
from typing import Any

import msgspec
import pytest

from planaria.actors.controller.catalog import TopicEntry, catalog_of
from planaria.actors.controller.cluster.records import Leader, Member, NodeSession, PartitionRecord
from planaria.actors.controller.clustered import ClusteredController, FollowerCommands
from planaria.actors.controller.effects import Loaded
from planaria.actors.controller.keys import ClusterTick
from planaria.actors.controller.machine import ControllerMachine
from planaria.actors.metadata.store import (
    Applied,
    Change,
    Changed,
    Delete,
    Entry,
    Propose,
    Put,
    Session,
    State,
)
from planaria.transport.machine import Received, Sender, TimerFired
from planaria.transport.monitors import monitors_of
from planaria.transport.protocol.links import LinkReport, LinkReports, PeerState
from planaria.transport.protocol.topics import TopicConfig
from planaria.transport.request_context import OWN

REPLICAS = 3
PARTITIONS_OF_A_TOPIC = 100
TICK_MS = 100
SAMPLE = 10


def node_name(number: int) -> str:
    return f"n{number:04}"


def session_of(number: int) -> NodeSession:
    name = node_name(number)
    return NodeSession(
        node=name,
        data_id=f"disk-{name}",
        start_id=f"start-{name}",
        endpoint=f"tcp://{name}.example.com:5570",
        peer_endpoint=f"tcp://{name}.example.com:5571",
    )


def record_of(number: int, nodes: int, topic: str) -> PartitionRecord:
    replicas = [(number + step) % nodes for step in range(REPLICAS)]
    members = tuple(Member(node_name(each), f"disk-{node_name(each)}") for each in replicas)
    return PartitionRecord(
        topic_id=f"id-{topic}",
        replicas=tuple(member.node for member in members),
        leader=members[0].node,
        leader_epoch=3,
        claim=f"start-{members[0].node}/1",
        in_sync=members,
    )


class Paper:
    """A cluster whose state is a table, and the controller of one of its nodes."""

    def __init__(self, nodes: int, partitions: int, leading: int = 0) -> None:
        self.node_count, self.partition_count = nodes, partitions
        self.now = 1_000_000
        self.revision = 9
        values: dict[str, Any] = {f"nodes/{node_name(each)}": session_of(each) for each in range(nodes)}
        values["controller"] = Leader(node_name(leading), f"start-{node_name(leading)}")
        config = TopicConfig(replication_factor=REPLICAS, min_in_sync_replicas=2)
        for first in range(0, partitions, PARTITIONS_OF_A_TOPIC):
            topic = f"TOPIC-{first // PARTITIONS_OF_A_TOPIC}"
            values[f"topics/{topic}"] = TopicEntry(
                topic=topic, topic_id=f"id-{topic}", partitions=PARTITIONS_OF_A_TOPIC, config=config
            )
            for number in range(PARTITIONS_OF_A_TOPIC):
                values[f"partitions/{topic}/{number}"] = record_of(first + number, nodes, topic)
        self.entries = {key: Entry(msgspec.json.encode(value), 9, 9) for key, value in values.items()}
        self.monitors = monitors_of([node_name(each) for each in range(nodes)])

    @property
    def size_bytes(self) -> int:
        return sum(len(key) + len(entry.value) for key, entry in self.entries.items())

    def begin(self, number: int) -> int:
        """Start the controller of a node; return the number of messages that it has for its supervisor."""
        state = State(self.revision, dict(self.entries))
        numbers, commands = count(1), FollowerCommands()
        machine = ControllerMachine(catalog_of(state, "id"), numbers=numbers, commands=commands)
        self.controller = ClusteredController(machine, commands, session_of(number), state, numbers)
        effects = self.controller.handle(Loaded(), self.now)
        effects += self.controller.handle(Session(1, self.now + 5_000), self.now)
        return len(effects) + self.settle(effects)

    def handle(self, event: Any) -> int:
        """Handle an event and everything that follows from it; return the number of writes to the store."""
        return self.settle(self.controller.handle(event, self.now))

    def settle(self, effects: list[Any]) -> int:
        """Apply each proposal; return their number."""
        writes = 0
        while proposals := [effect for effect in effects if isinstance(effect, Propose)]:
            effects = []
            for proposal in proposals:
                writes += 1
                self.revision += 1
                changed = Changed(self.revision, proposal.changes)
                effects += self.controller.handle(changed, self.now)
                effects += self.controller.handle(Applied(proposal.number, self.revision), self.now)
        return writes

    def tick(self) -> int:
        self.now += TICK_MS
        return self.handle(TimerFired(ClusterTick()))

    def lose(self, number: int) -> int:
        """Report that the connections to a node are lost, as its monitors do; return the writes that follow."""
        lost = node_name(number)
        reports = tuple(
            LinkReport(
                monitor,
                tuple(
                    PeerState(other, other != lost, 60 if other == lost else 0)
                    for other, watching in self.monitors.items()
                    if monitor in watching
                ),
            )
            for monitor in self.monitors[lost]
        )
        self.now += TICK_MS
        request = LinkReports(reports=reports)
        return self.handle(Received(Sender((b"link",), None), request, context=OWN))

    def change(self, *changes: Change) -> int:
        """Let another proposer change the store; return the writes that follow."""
        self.revision += 1
        return self.handle(Changed(self.revision, changes))

    def leave(self, number: int) -> int:
        """End the session of a node."""
        return self.change(Delete(f"nodes/{node_name(number)}"))

    def join(self, number: int) -> int:
        return self.change(Put(f"nodes/{node_name(number)}", msgspec.json.encode(session_of(number)), True))

    def claim(self, key: str) -> int:
        """Change the record of one partition, as the controller of its leader does when a process begins to lead."""
        found = msgspec.json.decode(self.entries[key].value, type=PartitionRecord)
        claimed = msgspec.structs.replace(found, leader_epoch=found.leader_epoch + 1)
        return self.change(Put(key, msgspec.json.encode(claimed)))


def timed(act: Callable[[], Any]) -> tuple[float, Any]:
    """Return the processor time in milliseconds, and the result."""
    began = time.process_time()
    found = act()
    return (time.process_time() - began) * 1_000, found


def measure(nodes: int, partitions: int, show: Callable[[str], None]) -> None:
    paper = Paper(nodes, partitions)
    show(f"{nodes:,} nodes, {partitions:,} partitions, {REPLICAS} replicas")
    show(f"metadata: {paper.size_bytes / 1e6:.1f} MB, {paper.size_bytes / partitions:.0f} bytes a partition")
    took, _ = timed(lambda: paper.begin(0))
    show(f"start of a controller, the state already read: {took:,.0f} ms")
    ticks = min(timed(paper.tick)[0] for _ in range(10))
    show(f"a tick with nothing to do, 10 a second: {ticks:.2f} ms")
    took, _ = timed(lambda: paper.claim("partitions/TOPIC-0/0"))
    show(f"a change of one partition: {took:.2f} ms")
    took, writes = timed(lambda: paper.lose(7))
    show(f"failover of a node, of {partitions // nodes} partitions: {took:,.0f} ms, {writes} writes")
    took, _ = timed(lambda: paper.leave(7))
    show(f"the end of its session: {took:,.0f} ms")
    took, _ = timed(lambda: paper.join(7))
    show(f"its return: {took:,.0f} ms")
    paper = Paper(nodes, partitions, leading=1)
    neighbour = int(paper.monitors[node_name(1)][0][1:])
    paper.begin(neighbour)
    for _ in range(10):  # a node that has just started is not suspected
        paper.tick()
    took, writes = timed(lambda: paper.lose(1))
    show(f"failover of the leading controller's node, its takeover included: {took:,.0f} ms, {writes} writes")

    measure_restart(nodes, partitions, show)


def measure_restart(nodes: int, partitions: int, show: Callable[[str], None]) -> None:
    """All nodes come back one after the other, then each leader claims its partition; some of each stand for all."""
    paper = Paper(nodes, partitions)
    keys = [key for key in paper.entries if key.startswith("partitions/")]
    for number in range(1, nodes):
        del paper.entries[f"nodes/{node_name(number)}"]
    took_first, _ = timed(lambda: paper.begin(0))
    took_join, _ = timed(lambda: [paper.join(number) for number in range(1, SAMPLE + 1)])
    took_claim, _ = timed(lambda: [paper.claim(key) for key in keys[: 100 * SAMPLE]])
    each_join, each_claim = took_join / SAMPLE, took_claim / (100 * SAMPLE)
    all_s = (took_first + each_join * nodes + each_claim * partitions) / 1_000
    show(
        f"restart of everything: {all_s:.0f} s: the start, {each_join:.1f} ms a node, {each_claim:.3f} ms a partition"
    )


def calls_of(act: Callable[[], Any]) -> int:
    """Return the number of calls in an action."""
    calls = 0

    def note(_: Any, event: str, __: Any) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        act()
    finally:
        sys.setprofile(before)
    return calls


EVENTS: dict[str, Callable[[Paper], Any]] = {
    "a tick with nothing to do": Paper.tick,
    "a change of one partition": lambda paper: paper.claim("partitions/TOPIC-0/0"),
}


@pytest.mark.parametrize("name", EVENTS)
def test_the_cost_of_an_event_does_not_grow_with_the_cluster(name: str) -> None:
    counts = []
    for nodes in (10, 20):
        paper = Paper(nodes, 100 * nodes)
        paper.begin(0)
        for _ in range(10):
            paper.tick()
        counts.append(calls_of(lambda paper=paper: EVENTS[name](paper)))
    small, large = counts
    assert large < small + 100, counts


@pytest.mark.chaos
def test_a_thousand_nodes_and_a_hundred_thousand_partitions() -> None:
    measure(1_000, 100_000, print)

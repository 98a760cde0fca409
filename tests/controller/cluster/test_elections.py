"""A next leader has every committed record, whatever the interleaving of elections, proposals and acknowledgements.

The model at the end keeps logs as lists of (epoch, number), commits by the rule of the leader (every member of the
in-sync set, of the larger one while a change of it may be applied), and checks each record that any process commits.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planaria.actors.controller.catalog import Catalog
from planaria.actors.controller.cluster import elections
from planaria.actors.controller.cluster.messages import files_to_make
from planaria.actors.controller.cluster.records import Member, NodeSession, PartitionRecord
from planaria.transport.protocol.topics import TopicConfig

A, B, C = Member("a", "disk-a"), Member("b", "disk-b"), Member("c", "disk-c")
ALIVE = {"a": "disk-a", "b": "disk-b", "c": "disk-c"}


def record(
    in_sync: tuple[Member, ...] = (A, B, C), eligible: tuple[Member, ...] = (), leader: str = "a"
) -> PartitionRecord:
    return PartitionRecord(
        replicas=("a", "b", "c"), leader=leader, leader_epoch=7, in_sync=in_sync, eligible=eligible
    )


def without(*nodes: str) -> dict[str, str]:
    return {node: data_id for node, data_id in ALIVE.items() if node not in nodes}


@pytest.mark.parametrize(
    ("before", "live", "leader", "in_sync", "eligible"),
    [
        (record(), without("a"), "b", (B, C), ()),
        (record(), without("a", "b"), "c", (C,), (A, B)),
        (record((A,), (B,)), without("a"), "b", (B,), (A,)),
        (record((A,), (C, B)), without("a"), "b", (B,), (C, A)),
        (record((A, C)), without("a"), "c", (C,), (A,)),
        (record((A, B)), {**ALIVE, "a": "new disk"}, "b", (B,), (A,)),
    ],
    ids=["in order", "below the minimum", "eligible", "eligible in order", "not in sync", "wiped disk"],
)
def test_the_successor_of_a_dead_leader(
    before: PartitionRecord,
    live: dict[str, str],
    leader: str,
    in_sync: tuple[Member, ...],
    eligible: tuple[Member, ...],
) -> None:
    after = elections.successor(before, live, 2)
    assert after is not None
    assert (after.leader, after.leader_epoch) == (leader, 8)
    assert (after.in_sync, after.eligible) == (in_sync, eligible)


@pytest.mark.parametrize(("first_epoch", "minimum"), [(0, 2), (1, 2), (0, 1)])
def test_nodes_make_the_files_of_a_new_partition_whose_leader_died_before_it_committed(
    first_epoch: int, minimum: int
) -> None:
    """Until the first set has reached its minimum, nothing is committed: a log that is missing misses nothing."""
    created = msgspec.structs.replace(
        record((A,), (B, C)), leader_epoch=first_epoch, topic_id="t1", is_new=True
    )
    after = elections.successor(created, without("a"), minimum)
    assert after is not None
    assert (after.leader, after.leader_epoch, after.in_sync, after.eligible) == (
        "b",
        first_epoch + 1,
        (B,),
        (C, A),
    )
    own = NodeSession(node="b", data_id=B.data_id, start_id="s", endpoint="", peer_endpoint="")
    entry = Catalog(catalog_id="test").with_topic("T", 1, TopicConfig(), 0).topics["T"]
    assert files_to_make(after, own, entry, 0)
    claimed = elections.claimed(after, "s/1")
    assert files_to_make(claimed, own, entry, 0)
    # Its leader commits alone from now on, or the set has changed.
    assert not files_to_make(msgspec.structs.replace(claimed, eligible=()), own, entry, 0)
    assert not files_to_make(msgspec.structs.replace(claimed, is_new=False), own, entry, 0)


def test_a_partition_without_members_alive_stays_offline() -> None:
    assert elections.successor(record((A, B)), without("a", "b"), 2) is None
    assert elections.successor(record((A,)), {**ALIVE, "a": "new disk"}, 1) is None


def test_an_operator_may_force_any_replica() -> None:
    after = elections.forced(record((A, B)), without("a", "b"), "c")
    assert (after.leader, after.leader_epoch, after.in_sync, after.eligible) == ("c", 8, (C,), ())
    assert after.unclean_epochs == (8,)
    assert elections.forced(after, without("a", "c"), "b").unclean_epochs == (8, 9)


def test_each_process_that_leads_has_an_epoch_of_its_own() -> None:
    first = elections.claimed(record((A, B)), "start/1")
    second = elections.claimed(first, "start/2")
    assert [(each.leader, each.leader_epoch, each.claim) for each in (first, second)] == [
        ("a", 8, "start/1"),
        ("a", 9, "start/2"),
    ]
    assert second.in_sync == (A, B)
    after = elections.successor(second, without("a"), 2)
    assert after is not None
    assert after.claim == ""


def test_a_leader_is_handed_over_only_to_a_member_in_sync() -> None:
    after = elections.handed_over(record((A, C)), ALIVE, 2, avoid={"a"})
    assert after is not None
    assert (after.leader, after.in_sync) == ("c", (A, C))
    assert elections.handed_over(record((A,), (B, C)), ALIVE, 2, avoid={"a"}) is None


def test_the_preferred_leader_returns_only_when_it_is_in_sync() -> None:
    after = elections.preferred(record((B, A), leader="b"), ALIVE, 2)
    assert after is not None
    assert after.leader == "a"
    assert elections.preferred(record((B, C), leader="b"), ALIVE, 2) is None
    assert elections.preferred(record(), ALIVE, 2) is None


# -- the model


@dataclass
class Replica:
    member: Member
    log: list[tuple[int, int]] = field(default_factory=list)
    epoch: int = 0
    """The highest leader epoch it has been given."""
    durable: int = 0
    """Records that a crash leaves."""
    leads: PartitionRecord | None = None
    """The record under which it leads, as far as it knows."""
    revision: int = 0
    pending: PartitionRecord | None = None
    """A proposal that may have been applied."""
    reported: dict[str, int] = field(default_factory=dict)
    high_watermark: int = 0
    is_up: bool = True


class Model:
    """Three replicas and the store, driven by random steps."""

    def __init__(self, seed: int, minimum: int, rules: Callable[..., PartitionRecord | None]) -> None:
        self.random = Random(seed)
        self.minimum = minimum
        self.successor = rules
        self.replicas = {member.node: Replica(member) for member in (A, B, C)}
        self.record = record(leader="a")
        self.revision = 1
        self.committed: list[tuple[int, int]] = []
        self.number = 0
        self._lead(self.replicas["a"])

    def run(self, steps: int) -> None:
        actions = [
            *[self.append] * 4,
            *[self.fetch] * 8,
            *[self.commit] * 4,
            self.propose,
            self.learn,
            self.learn,
            self.elect,
            self.crash,
            self.start,
            self.start,
        ]
        for _ in range(steps):
            self.random.choice(actions)()

    def append(self) -> None:
        replica = self._leader()
        if replica is not None and replica.leads is not None:
            self.number += 1
            replica.log.append((replica.leads.leader_epoch, self.number))

    def fetch(self) -> None:
        """One follower fetches: it is cut where its log differs, copies one record, and reports its end."""
        follower, leader = self._pick(), self._leader()
        if leader is None or leader is follower or leader.leads is None or follower.leads is not None:
            return
        if not follower.is_up or follower.epoch > leader.leads.leader_epoch:
            return
        follower.epoch = leader.leads.leader_epoch
        same = 0
        while same < min(len(follower.log), len(leader.log)) and follower.log[same] == leader.log[same]:
            same += 1
        if same < len(follower.log):
            del follower.log[same:]
            follower.durable = min(follower.durable, same)
        elif same < len(leader.log):
            follower.log.append(leader.log[same])
        follower.durable = leader.reported[follower.member.node] = len(follower.log)

    def commit(self) -> None:
        leader = self._leader()
        if leader is None or leader.leads is None:
            return
        leader.durable = leader.reported[leader.member.node] = len(leader.log)
        sets = [leader.leads] + ([leader.pending] if leader.pending is not None else [])
        if any(self.is_frozen(known) for known in sets):
            return
        members = {member.node for known in sets for member in known.in_sync}
        end = min(leader.reported.get(node, 0) for node in members)
        if end <= leader.high_watermark:
            return
        leader.high_watermark = end
        common = min(end, len(self.committed))
        assert leader.log[:common] == self.committed[:common], "a committed record was replaced"
        if end > len(self.committed):
            self.committed = leader.log[:end]

    def is_frozen(self, known: PartitionRecord) -> bool:
        """Return True if nothing may be committed. While members are eligible, they must miss nothing."""
        return len(known.in_sync) < self.minimum or bool(known.eligible)

    def propose(self) -> None:
        """The leader changes the in-sync set; it may never learn that it was applied."""
        leader = self._leader()
        if leader is None or leader.leads is None or leader.pending is not None:
            return
        members = set(leader.leads.in_sync)
        node = self._pick()
        if node.member in members and node is not leader:
            members.remove(node.member)
        elif leader.reported.get(node.member.node, 0) >= max(
            leader.high_watermark, self._epoch_start(leader)
        ):
            members.add(node.member)
        in_sync = tuple(sorted(members, key=lambda member: member.node))
        gone = [member for member in leader.leads.in_sync if member not in members]
        leader.pending = msgspec.structs.replace(
            leader.leads,
            in_sync=in_sync,
            eligible=elections.still_eligible(in_sync, [*leader.leads.eligible, *gone], self.minimum),
        )
        if self.random.random() < 0.7:
            self._write(leader.pending, leader.revision)

    def learn(self) -> None:
        """A node reads the store."""
        replica = self._pick()
        if not replica.is_up:
            return
        if self.record.leader == replica.member.node:
            if replica.leads is not None and replica.leads.leader_epoch == self.record.leader_epoch:
                replica.leads, replica.revision, replica.pending = self.record, self.revision, None
            elif self._write(elections.claimed(self.record, str(self.revision)), self.revision):
                self._lead(replica)
        elif replica.epoch < self.record.leader_epoch:
            replica.leads = None
            replica.epoch = self.record.leader_epoch

    def elect(self) -> None:
        """The controller takes any replicas for dead, rightly or not."""
        live = {
            node: replica.member.data_id
            for node, replica in self.replicas.items()
            if replica.is_up and self.random.random() < 0.8
        }
        if self.record.leader not in live:
            following = self.successor(self.record, live, self.minimum)
            if following is not None:
                self._write(following, self.revision)

    def crash(self) -> None:
        replica = self._pick()
        replica.is_up = False
        replica.leads = replica.pending = None
        del replica.log[max(len(replica.log) - self.random.randrange(3), replica.durable) :]

    def start(self) -> None:
        self._pick().is_up = True

    def _lead(self, replica: Replica) -> None:
        assert replica.log[: len(self.committed)] == self.committed, "the leader lacks a committed record"
        replica.leads, replica.revision, replica.pending = self.record, self.revision, None
        replica.epoch = self.record.leader_epoch
        replica.reported = {}
        replica.high_watermark = 0

    def _write(self, following: PartitionRecord, revision: int) -> bool:
        if revision != self.revision:
            return False
        self.record = following
        self.revision += 1
        return True

    def _epoch_start(self, leader: Replica) -> int:
        assert leader.leads is not None
        epoch = leader.leads.leader_epoch
        return next((at for at, entry in enumerate(leader.log) if entry[0] == epoch), len(leader.log))

    def _leader(self) -> Replica | None:
        leading = [
            replica for replica in self.replicas.values() if replica.is_up and replica.leads is not None
        ]
        return self.random.choice(leading) if leading else None

    def _pick(self) -> Replica:
        return self.random.choice(list(self.replicas.values()))


@given(seed=st.integers(0, 2**32), minimum=st.integers(1, 3))
def test_every_leader_has_every_committed_record(seed: int, minimum: int) -> None:
    Model(seed, minimum, elections.successor).run(400)


def _any_live_replica(before: PartitionRecord, live: dict[str, str], minimum: int) -> PartitionRecord | None:
    node = next((node for node in before.replicas if node in live), None)
    return None if node is None else elections.forced(before, live, node)


def _search(rules: Callable[..., PartitionRecord | None]) -> None:
    for seed in range(400):
        Model(seed, 1, rules).run(400)


def test_the_model_finds_elections_out_of_replicas_that_are_not_in_sync() -> None:
    with pytest.raises(AssertionError, match="committed record"):
        _search(_any_live_replica)


def test_the_model_finds_members_that_stay_eligible_while_records_are_committed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(elections, "still_eligible", lambda _, candidates, __: tuple(candidates))
    monkeypatch.setattr(Model, "is_frozen", lambda model, known: len(known.in_sync) < model.minimum)
    with pytest.raises(AssertionError, match="committed record"):
        _search(elections.successor)

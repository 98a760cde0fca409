"""The leading controller's changes: the most urgent first, bounded, and the same for every controller."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from planaria.actors.controller.cluster.deciding import (
    CHANGES_AT_ONCE,
    PREFERRED_AT_ONCE,
    RELIEF_MS,
    STEADY_MS,
    Change,
    ClusterView,
    LeaderDecisions,
    Versioned,
    would_fall_below,
)
from planaria.actors.controller.cluster.reassignment import begun
from planaria.actors.controller.cluster.records import Member, NodeSession, NodeSettings, PartitionRecord
from planaria.transport.addresses import TopicPartition

NOW = 10_000_000


def member(node: str) -> Member:
    return Member(node, f"disk-{node}")


def session(node: str, start_id: str = "1") -> NodeSession:
    return NodeSession(node=node, data_id=f"disk-{node}", start_id=start_id, endpoint="", peer_endpoint="")


def record(replicas: str, leader: str, in_sync: str, eligible: str = "") -> PartitionRecord:
    return PartitionRecord(
        replicas=tuple(replicas),
        leader=leader,
        leader_epoch=3,
        in_sync=tuple(map(member, in_sync)),
        eligible=tuple(map(member, eligible)),
    )


class Cluster:
    def __init__(self, *records: PartitionRecord, nodes: str = "abc") -> None:
        self.partitions = {
            TopicPartition("T", number): Versioned(entry, number + 10) for number, entry in enumerate(records)
        }
        self.sessions = {node: session(node) for node in nodes}
        self.settings: dict[str, NodeSettings] = {}
        self.decisions = LeaderDecisions()
        self.decide(NOW)

    @property
    def view(self) -> ClusterView:
        return ClusterView(self.partitions, self.sessions, self.settings, lambda _: 2)

    def decide(self, now: int = NOW, suspected: str = "") -> list[Change]:
        return self.decisions.decide(self.view, suspected, now)

    def apply(self, changes: list[Change]) -> None:
        for change in changes:
            assert self.partitions[change.partition].revision == change.revision
            self.partitions[change.partition] = Versioned(change.record, change.revision + 100)

    def record(self, number: int = 0) -> PartitionRecord:
        return self.partitions[TopicPartition("T", number)].record


def test_a_steady_cluster_changes_nothing() -> None:
    assert Cluster(record("abc", "a", "abc"), record("bca", "b", "ab")).decide(NOW + STEADY_MS) == []


def test_partitions_of_a_lost_node_are_decided_at_once_and_first() -> None:
    entries = [record("abc", "b", "ab"), *[record("abc", "a", "abc")] * 3]
    cluster = Cluster(*entries)
    cluster.settings["b"] = NodeSettings(is_draining=True)
    changes = cluster.decide(suspected="a")
    assert [change.partition.partition for change in changes] == [1, 2, 3]
    assert {change.record.leader for change in changes} == {"b"}
    assert [change.revision for change in changes] == [11, 12, 13]


def test_a_change_is_bounded_and_the_rest_follows() -> None:
    cluster = Cluster(*[record("abc", "a", "abc")] * (CHANGES_AT_ONCE + 5))
    del cluster.sessions["a"]
    cluster.apply(cluster.decide())
    assert len(cluster.decide()) == 5


def test_a_leader_with_a_new_disk_is_replaced() -> None:
    cluster = Cluster(record("abc", "a", "abc"))
    cluster.sessions["a"] = msgspec.structs.replace(cluster.sessions["a"], data_id="new disk")
    [change] = cluster.decide()
    assert change.record.leader == "b"


def test_a_draining_node_gives_its_leaders_away_and_gets_none_back() -> None:
    cluster = Cluster(record("abc", "a", "abc"), record("abc", "a", "a"))
    cluster.settings["a"] = NodeSettings(is_draining=True)
    cluster.apply(cluster.decide())
    assert cluster.record(0).leader == "b"
    assert cluster.record(1).leader == "a", "no other member has its records"
    assert cluster.decide(NOW + 10 * STEADY_MS) == []


def test_preferred_leaders_return_to_a_steady_node_some_at_a_time() -> None:
    cluster = Cluster(*[record("abc", "b", "abc")] * (PREFERRED_AT_ONCE + 2))
    assert cluster.decide(NOW + STEADY_MS - 1) == []
    changes = cluster.decide(NOW + STEADY_MS)
    assert len(changes) == PREFERRED_AT_ONCE
    assert {change.record.leader for change in changes} == {"a"}
    cluster.sessions = {**cluster.sessions, "a": session("a", start_id="2")}
    assert cluster.decide(NOW + STEADY_MS) == []


def test_no_leader_returns_to_a_node_that_still_catches_up() -> None:
    behind = [record("abc", "b", "bc")] * 2
    cluster = Cluster(*behind, *[record("abc", "b", "abc")] * 20)
    assert cluster.decide(NOW + STEADY_MS) == []
    cluster.partitions[TopicPartition("T", 0)] = Versioned(record("abc", "b", "abc"), 99)
    assert cluster.decide(NOW + STEADY_MS) != []


def test_a_reassignment_ends_on_the_new_replicas_led_by_one_of_them() -> None:
    cluster = Cluster(begun(record("abc", "a", "abc"), "dbc"), nodes="abcd")
    assert cluster.record().replicas == ("a", "b", "c", "d")
    assert cluster.decide() == []
    caught_up = msgspec.structs.replace(cluster.record(), in_sync=tuple(map(member, "abcd")))
    cluster.partitions[TopicPartition("T", 0)] = Versioned(caught_up, 50)
    cluster.apply(cluster.decide())
    assert cluster.record().leader in "bcd"
    cluster.apply(cluster.decide())
    done = cluster.record()
    assert (done.replicas, done.target) == (("d", "b", "c"), ())
    assert done.in_sync_nodes == set("bcd")
    assert cluster.decide() == []


def test_a_reassignment_whose_new_replica_dies_waits() -> None:
    cluster = Cluster(begun(record("abc", "a", "abc"), "dbc"), nodes="abc")
    assert cluster.decide() == []
    cluster.partitions[TopicPartition("T", 0)] = Versioned(begun(cluster.record(), "abc"), 60)
    cluster.apply(cluster.decide())
    assert cluster.record().replicas == ("a", "b", "c")


def test_a_reassignment_to_a_draining_node_ends_and_is_led_by_another_new_one() -> None:
    caught_up = msgspec.structs.replace(
        begun(record("c", "c", "c"), "ab"), in_sync=tuple(map(member, "abc")), eligible=()
    )
    cluster = Cluster(caught_up)
    cluster.settings["a"] = NodeSettings(is_draining=True)
    for _ in range(2):
        cluster.apply(cluster.decide())
    assert (cluster.record().replicas, cluster.record().target) == (("a", "b"), ())
    assert cluster.record().leader == "b"
    assert cluster.decide(NOW + STEADY_MS) == []


def test_a_reassignment_to_nothing_but_a_draining_node_ends_there() -> None:
    cluster = Cluster(
        msgspec.structs.replace(begun(record("c", "c", "c"), "a"), in_sync=(member("c"), member("a")))
    )
    cluster.settings["a"] = NodeSettings(is_draining=True)
    for _ in range(2):
        cluster.apply(cluster.decide())
    assert (cluster.record().replicas, cluster.record().leader) == (("a",), "a")
    assert cluster.decide(NOW + STEADY_MS) == []


def test_a_node_whose_stop_would_break_the_minimum_is_named_with_its_partitions() -> None:
    cluster = Cluster(record("abc", "a", "abc"), record("abc", "a", "ab"), record("a", "a", "a"))
    assert would_fall_below("a", cluster.view, ()) == [TopicPartition("T", 1), TopicPartition("T", 2)]
    assert would_fall_below("c", cluster.view, ()) == []
    assert would_fall_below("c", cluster.view, ("b",)) == [TopicPartition("T", 0)]


@given(
    seed=st.lists(
        st.tuples(
            st.permutations("abcd"),
            st.integers(1, 4),
            st.integers(0, 3),
            st.lists(st.sampled_from("abcd"), max_size=3, unique=True),
        ),
        min_size=1,
        max_size=6,
    ),
    live=st.sets(st.sampled_from("abcd"), min_size=1),
    draining=st.sets(st.sampled_from("abcd")),
)
def test_decisions_end_and_keep_the_invariants(
    seed: list[tuple[list[str], int, int, list[str]]], live: set[str], draining: set[str]
) -> None:
    entries = []
    for nodes, in_sync, leader, target in seed:
        first = record("".join(nodes[:3]), nodes[0], nodes[0])
        replicas = "".join(begun(first, target).replicas if target else first.replicas)
        members = replicas[:in_sync]
        entry = record(replicas, members[min(leader, len(members) - 1)], members)
        entries.append(msgspec.structs.replace(entry, target=tuple(target)))
    cluster = Cluster(*entries, nodes="".join(sorted(live)))
    cluster.settings = {node: NodeSettings(is_draining=True) for node in draining}
    for _ in range(20):
        changes = cluster.decide(NOW + STEADY_MS)
        if not changes:
            break
        for change in changes:
            before = cluster.partitions[change.partition].record
            is_end_of_a_move = before.is_reassigned and not change.record.is_reassigned
            assert change.record.leader_epoch > before.leader_epoch or is_end_of_a_move
            assert change.record.leader in live
            assert {*change.record.in_sync, *change.record.eligible} <= {*before.in_sync, *before.eligible}
        cluster.apply(changes)
    else:
        raise AssertionError("the decisions do not end")
    for number in range(len(entries)):
        entry = cluster.record(number)
        assert entry.leader in live or not entry.in_sync_nodes & live


def test_a_preferred_leader_whose_disk_was_slow_returns_later() -> None:
    relieved = msgspec.structs.replace(record("abc", "b", "abc"), relieved="a", relieved_ms=NOW)
    cluster = Cluster(relieved, msgspec.structs.replace(relieved, relieved="c"))
    [change] = cluster.decide(NOW + RELIEF_MS - 1)
    assert change.partition.partition == 1, "another node's disk was"
    cluster.apply([change])
    [change] = cluster.decide(NOW + RELIEF_MS)
    assert change.record.leader == "a"

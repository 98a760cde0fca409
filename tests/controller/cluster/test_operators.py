"""Operators' requests: the write that each requires, one line for each that is refused, and the report."""

from collections.abc import Iterable

import msgspec
import pytest

from controller_driver import ControllerDriver
from planaria.actors.controller.catalog import Catalog, entry_of
from planaria.actors.controller.cluster.assignments import RequiredTopic, Writes
from planaria.actors.controller.cluster.deciding import Versioned
from planaria.actors.controller.cluster.mirror import Mirror, settings_key
from planaria.actors.controller.cluster.operators import (
    Situation,
    candidates,
    changed_node,
    elected,
    planned,
    reassigned,
    status,
)
from planaria.actors.controller.cluster.records import Member, NodeSession, NodeSettings, PartitionRecord
from planaria.actors.controller.cluster.unclean import LogEnd
from planaria.actors.metadata.store import ABSENT, Delete, Put
from planaria.transport.addresses import TopicPartition
from planaria.transport.protocol.cluster import (
    ChangeNode,
    ClusterStatus,
    ElectLeader,
    NodeAction,
    PartitionMove,
    PlanRebalance,
    ReassignPartitions,
)
from planaria.transport.protocol.errors import ProtocolError
from planaria.transport.protocol.message import Request
from planaria.transport.protocol.topics import TopicConfig

T0 = TopicPartition("T", 0)
UNCLEAN = ElectLeader(topic="T", partition=0, unclean=True)


def member(node: str) -> Member:
    return Member(node, f"disk-{node}")


def situation(
    replicas: str = "abc",
    leader: str = "a",
    in_sync: str = "abc",
    eligible: str = "",
    *,
    nodes: Iterable[str] = "abcd",
    suspected: Iterable[str] = "",
    settings: dict[str, NodeSettings] | None = None,
    minimum: int = 2,
    target: str = "",
) -> Situation:
    mirror = Mirror()
    record = PartitionRecord(
        topic_id="id",
        replicas=tuple(replicas),
        target=tuple(target),
        leader=leader,
        leader_epoch=3,
        in_sync=tuple(map(member, in_sync)),
        eligible=tuple(map(member, eligible)),
    )
    mirror.partitions = {T0: Versioned(record, 10)}
    for node in nodes:
        mirror.sessions[node] = NodeSession(
            node=node, data_id=f"disk-{node}", start_id="1", endpoint=f"tcp://{node}", peer_endpoint=""
        )
    mirror.settings = settings or {}
    mirror.settings_revisions = dict.fromkeys(mirror.settings, 20)
    return Situation(mirror, frozenset(suspected), {"T": RequiredTopic("id", 1, len(replicas), minimum)})


def written(writes: Writes) -> PartitionRecord:
    [(change, guard)] = writes
    assert isinstance(change, Put)
    assert (change.key, guard.key, guard.revision) == ("partitions/T/0", "partitions/T/0", 10)
    return msgspec.json.decode(change.value, type=PartitionRecord)


@pytest.mark.parametrize(
    ("action", "present", "after"),
    [
        ("cordon", None, NodeSettings(is_cordoned=True)),
        ("drain", NodeSettings(is_cordoned=True), NodeSettings(is_cordoned=True, is_draining=True)),
        ("undrain", NodeSettings(is_cordoned=True, is_draining=True), NodeSettings(is_cordoned=True)),
        ("leave", None, NodeSettings(is_leaving=True)),
    ],
)
def test_an_instruction_is_one_guarded_write(
    action: NodeAction, present: NodeSettings | None, after: NodeSettings
) -> None:
    at = situation(settings={} if present is None else {"a": present})
    [(change, guard)] = changed_node(at, ChangeNode(node="a", action=action))
    assert isinstance(change, Put)
    assert msgspec.json.decode(change.value, type=NodeSettings) == after
    assert (change.key, guard.key) == (settings_key("a"), settings_key("a"))
    assert guard.revision == (ABSENT if present is None else 20)


def test_a_node_without_instructions_has_no_entry_and_a_repetition_writes_nothing() -> None:
    cordoned = situation(settings={"a": NodeSettings(is_cordoned=True, is_leaving=True)})
    [(change, _)] = changed_node(cordoned, ChangeNode(node="a", action="uncordon"))
    assert change == Delete(settings_key("a"))
    assert changed_node(cordoned, ChangeNode(node="a", action="cordon")) == []
    assert changed_node(situation(), ChangeNode(node="a", action="uncordon")) == []


def test_a_node_that_is_down_is_known_by_its_replicas() -> None:
    assert changed_node(situation(nodes="bcd"), ChangeNode(node="a", action="leave")) != []


REFUSED = [
    (situation(), ChangeNode(node="x", action="drain"), "UNKNOWN_NODE", "there are a, b, c, d"),
    (situation(in_sync="ab"), ChangeNode(node="a", action="drain"), "UNSAFE_CHANGE", "T/0 would be below"),
    (situation("a", "a", "a", minimum=1), ChangeNode(node="a", action="drain"), "UNSAFE_CHANGE", "T/0"),
    (situation(nodes="abc"), ChangeNode(node="a", action="leave"), "UNSAFE_CHANGE", "only 2 nodes"),
    (
        situation(settings={"b": NodeSettings(is_draining=True)}),
        ChangeNode(node="a", action="drain"),
        "UNSAFE_CHANGE",
        "T/0 would be below",
    ),
]


@pytest.mark.parametrize(("at", "request_", "code", "says"), REFUSED)
def test_an_instruction_that_cannot_work_is_refused_unless_forced(
    at: Situation, request_: ChangeNode, code: str, says: str
) -> None:
    with pytest.raises(ProtocolError, match=says) as refusal:
        changed_node(at, request_)
    assert (refusal.value.code, refusal.value.retriable) == (code, False)
    if code == "UNSAFE_CHANGE":
        assert changed_node(at, msgspec.structs.replace(request_, force=True)) != []


def move(replicas: str, topic: str = "T", partition: int = 0) -> ReassignPartitions:
    return ReassignPartitions(
        moves=[PartitionMove(topic=topic, partition=partition, replicas=list(replicas))]
    )


def test_a_reassignment_begins_once_and_can_be_withdrawn() -> None:
    record = written(reassigned(situation(), move("bcd")))
    assert (record.replicas, record.target) == (("a", "b", "c", "d"), ("b", "c", "d"))
    begun = situation("abcd", target="bcd")
    assert reassigned(begun, move("bcd")) == []
    assert written(reassigned(begun, move("abc"))).target == ("a", "b", "c")
    assert reassigned(situation(), move("abc")) == []


@pytest.mark.parametrize(
    ("request_", "code", "says"),
    [
        (move("abx"), "UNKNOWN_NODE", "no node 'x'"),
        (move("ab", topic="U"), "UNKNOWN_TOPIC", "no topic 'U'"),
        (move("ab", partition=1), "UNKNOWN_PARTITION", "partitions 0 to 0"),
        (move("aa"), "INVALID_REQUEST", "twice"),
        (move("a"), "UNSAFE_CHANGE", "min_in_sync_replicas 2"),
        (move("abd"), "UNSAFE_CHANGE", "'d' is leaving"),
        (ReassignPartitions(moves=[*move("abc").moves, *move("ab").moves]), "INVALID_REQUEST", "twice"),
    ],
)
def test_a_wrong_move_is_refused(request_: ReassignPartitions, code: str, says: str) -> None:
    with pytest.raises(ProtocolError, match=says) as refusal:
        reassigned(situation(settings={"d": NodeSettings(is_leaving=True)}), request_)
    assert refusal.value.code == code


def elect(at: Situation, *, unclean: bool = False) -> Writes:
    return elected(at, ElectLeader(topic="T", partition=0, unclean=unclean))


def test_the_factor_of_a_topic_follows_once_all_its_partitions_have_another_number_of_replicas() -> None:
    at = situation()
    at.mirror.partitions[TopicPartition("T", 1)] = at.mirror.partitions[T0]
    config = TopicConfig(replication_factor=3, min_in_sync_replicas=2)
    created = Catalog(catalog_id="id").with_topic("T", 2, config, 0)
    catalog = Catalog(catalog_id="id").applied(7, created.changes)
    topics = {"T": RequiredTopic("id", 2, 3, 2)}
    at = msgspec.structs.replace(at, topics=topics, catalog=catalog)
    moves = [PartitionMove(topic="T", partition=number, replicas=["a", "b"]) for number in (0, 1)]
    [_] = reassigned(at, ReassignPartitions(moves=moves[:1]))
    *_, (change, guard) = reassigned(at, ReassignPartitions(moves=moves))
    assert isinstance(change, Put)
    assert (change.key, guard.key, guard.revision) == ("topics/T", "topics/T", 7)
    assert entry_of(change).config == msgspec.structs.replace(config, replication_factor=2)


def test_the_preferred_replica_is_elected_if_it_is_in_sync() -> None:
    record = written(elect(situation(leader="b")))
    assert (record.leader, record.leader_epoch) == ("a", 4)
    assert elect(situation(leader="a")) == []
    with pytest.raises(ProtocolError, match="'a' is not in sync"):
        elect(situation(leader="b", in_sync="bc"))


def test_an_unclean_leader_is_elected_only_if_no_other_replica_can_lead() -> None:
    offline = situation(in_sync="a", nodes="bcd")
    with pytest.raises(ProtocolError, match="start the node a, or elect an unclean leader"):
        elect(offline)
    with pytest.raises(ProtocolError, match="no live replica of T/0 has answered yet"):
        elect(offline, unclean=True)
    for about_to_be_led in (
        situation(in_sync="ab", nodes="bcd"),
        situation(in_sync="a", eligible="b", nodes="bcd"),
    ):
        assert candidates(about_to_be_led, UNCLEAN) == ["b"]
        with pytest.raises(ProtocolError, match="on node 'b' does not answer"):
            elect(about_to_be_led, unclean=True)
        assert elected(about_to_be_led, UNCLEAN, {"b": LogEnd(3, 100)}) == []
    assert candidates(offline, UNCLEAN) == ["b", "c"]
    with pytest.raises(ProtocolError, match="start one of a, b, c"):
        candidates(situation(in_sync="a", nodes="d"), UNCLEAN)


def test_a_leader_that_does_not_answer_an_unclean_election_is_not_said_to_lead() -> None:
    led = situation(in_sync="a")
    assert candidates(led, UNCLEAN) == ["a"]
    with pytest.raises(ProtocolError, match="on node 'a' does not answer") as refusal:
        elected(led, UNCLEAN, {})
    assert refusal.value.retriable
    assert elected(led, UNCLEAN, {"a": LogEnd(3, 100)}) == []
    assert candidates(led, ElectLeader(topic="T", partition=0)) == []


def test_a_repeated_unclean_election_finds_its_leader_and_changes_nothing() -> None:
    """The answer to the first order was lost. The preferred replica, "a", is not there."""
    made = situation(leader="b", in_sync="b", nodes="bcd")
    assert candidates(made, UNCLEAN) == ["b"]
    assert elected(made, UNCLEAN, {"b": LogEnd(3, 90)}) == []
    with pytest.raises(ProtocolError, match="'a' is not in sync"):
        elect(made)


def test_a_leader_that_is_quarantined_here_is_passed_over_by_an_unclean_election() -> None:
    """Its node lives, so its session does not end. Another node does not know that it is quarantined."""
    led = situation(in_sync="a", nodes="abc")
    here = msgspec.structs.replace(led, node="a", quarantined=frozenset({T0}))
    assert candidates(here, UNCLEAN) == ["b", "c"]
    record = written(elected(here, UNCLEAN, {"b": LogEnd(3, 90)}))
    assert (record.leader, record.unclean_epochs) == ("b", (4,))
    there = msgspec.structs.replace(here, node="b")
    with pytest.raises(ProtocolError, match="quarantined, revive it, or give the order at that node"):
        elected(there, UNCLEAN, {})
    assert elect(here) == []


@pytest.mark.parametrize(
    ("b", "c", "leader"),
    [
        (LogEnd(3, 90), LogEnd(3, 100), "c"),
        (LogEnd(3, 90), LogEnd(2, 100), "b"),
        (LogEnd(3, 90), None, "b"),
    ],
)
def test_the_live_replica_with_the_longest_log_is_elected_and_the_record_says_so(
    b: LogEnd, c: LogEnd | None, leader: str
) -> None:
    ends = {"b": b} if c is None else {"b": b, "c": c}
    offline = situation(in_sync="a", nodes="bcd")
    record = written(elected(offline, UNCLEAN, ends))
    assert (record.leader, record.leader_epoch, record.in_sync) == (leader, 4, (member(leader),))
    assert record.unclean_epochs == (4,)
    offline.mirror.partitions[T0] = Versioned(record, 11)
    [report] = status(offline, cluster="", node="b", leading=None, unplaced="").partitions
    assert report.unclean_epochs == [4]


def test_a_replica_that_has_answered_and_whose_node_has_died_since_is_not_elected() -> None:
    ends = {"b": LogEnd(3, 90), "c": LogEnd(3, 100)}
    record = written(elected(situation(in_sync="a", nodes="bd"), UNCLEAN, ends))
    assert record.leader == "b"
    with pytest.raises(ProtocolError, match="no live replica of T/0 has answered yet"):
        elected(situation(in_sync="a", nodes="d"), UNCLEAN, ends)


def test_a_plan_uses_no_node_that_is_cordoned_or_suspected() -> None:
    def nodes_of(at: Situation) -> set[str]:
        return {node for each in planned(at) for node in each.replicas}

    crowded = situation("ab", in_sync="ab")
    crowded.mirror.partitions[TopicPartition("T", 1)] = crowded.mirror.partitions[T0]
    assert nodes_of(crowded) >= {"c", "d"}
    limited = Situation(crowded.mirror, frozenset("c"), crowded.topics)
    limited.mirror.settings["d"] = NodeSettings(is_cordoned=True)
    assert nodes_of(limited) <= {"a", "b"}


def test_while_the_store_does_not_answer_no_node_is_reported_as_one_that_may_stop() -> None:
    known = situation(nodes="ab")
    silent = msgspec.structs.replace(known, is_in_session=False)
    reasons = {
        report.node: report.stop_refusal
        for report in status(silent, cluster="", node="b", leading=None, unplaced="").nodes
    }
    assert reasons == {
        "a": "unknown, because the metadata store does not answer b",
        "b": "the metadata store does not answer, so nothing can be moved",
        "c": "",
    }


def test_the_report_shows_nodes_and_partitions_as_they_are() -> None:
    at = situation(in_sync="ab", nodes="bc", suspected="c", settings={"b": NodeSettings(is_draining=True)})
    reply = status(at, cluster="prod", node="b", leading="b", unplaced="no room")
    assert (reply.cluster, reply.node, reply.leading, reply.unplaced) == ("prod", "b", "b", "no room")
    assert [(each.node, each.state, each.leaders, each.under_replicated) for each in reply.nodes] == [
        ("a", "down", 0, 1),
        ("b", "alive", 0, 0),
        ("c", "suspected", 0, 1),
    ]
    assert [each.draining for each in reply.nodes] == [False, True, False]
    [report] = reply.partitions
    assert (report.leader, report.offline, report.in_sync, report.under_replicated) == (
        None,
        True,
        ["b"],
        True,
    )
    [report] = status(situation(), cluster="", node="b", leading=None, unplaced="").partitions
    assert (report.leader, report.offline, report.under_replicated) == ("a", False, False)


@pytest.mark.parametrize("request_", [ClusterStatus(), ChangeNode(node="a", action="drain"), PlanRebalance()])
def test_a_broker_that_is_no_cluster_says_so(request_: Request) -> None:
    controller = ControllerDriver()
    refusal = controller.replies[controller.ask(request_)]
    assert (refusal.code, refusal.retriable) == ("INVALID_REQUEST", False)
    assert "start nodes with --node and --cluster" in refusal.message

"""A node's controller that starts again while its node's actors run on, and one whose store has lost keys."""

from itertools import count
from typing import Any

import msgspec

from planaria.actors.controller.catalog import GroupEntry, TopicEntry, catalog_of
from planaria.actors.controller.cluster.led_here import FollowerCommands
from planaria.actors.controller.cluster.records import Leader, Member, NodeSession, PartitionRecord
from planaria.actors.controller.clustered import ClusteredController
from planaria.actors.controller.effects import Loaded, MakeReplica, RemoveReplica
from planaria.actors.controller.machine import ControllerMachine
from planaria.actors.metadata.store import Changed, Delete, Entry, Propose, Put, Session, State
from planaria.transport.addresses import Address, link_address
from planaria.transport.machine import Answered, Call, Cast, Failed, PeerDown, PeerUp, Received, Sender
from planaria.transport.protocol.cluster import ElectLeader
from planaria.transport.protocol.control import Locate, StartChild, StopChild
from planaria.transport.protocol.errors import ErrorBody, ErrorCode
from planaria.transport.protocol.message import Done
from planaria.transport.protocol.replication import Follow, Lead, LogEndReply, ReportLogEnd, RoleReply
from planaria.transport.protocol.topics import ConfigurePartition, TopicConfig

GROUP = Address.parse("coordinator/g")
REPLICA = Address.parse("replica/__offsets/0")
OPERATOR = Sender((b"operator",), 1)
STOP = StopChild(address=REPLICA)
OWN = NodeSession(node="a", data_id="disk-a", start_id="start-a", endpoint="", peer_endpoint="")
OTHER = NodeSession(node="b", data_id="disk-b", start_id="start-b", endpoint="", peer_endpoint="")


def state(record: PartitionRecord | None, revision: int = 9) -> State:
    values: dict[str, Any] = {
        "nodes/a": OWN,
        "nodes/b": OTHER,
        "controller": Leader("b", "start-b"),
        "topics/__offsets": TopicEntry(topic="__offsets", topic_id="t", partitions=1, config=TopicConfig()),
        "groups/g": GroupEntry(0),
    }
    if record is not None:
        values["partitions/__offsets/0"] = record
    entries = {key: Entry(msgspec.json.encode(value), revision, revision) for key, value in values.items()}
    return State(revision, entries)


def record(leader: NodeSession, claim: str, leader_epoch: int = 5) -> PartitionRecord:
    in_sync = (Member("a", "disk-a"), Member("b", "disk-b"))
    return PartitionRecord(
        topic_id="t",
        replicas=("a", "b"),
        leader=leader.node,
        leader_epoch=leader_epoch,
        claim=claim,
        in_sync=in_sync,
    )


def started(first: State) -> tuple[ClusteredController, list[Any]]:
    """Return a controller that has just started, and its effects."""
    numbers, commands = count(1), FollowerCommands()
    machine = ControllerMachine(catalog_of(first, "id"), numbers=numbers, commands=commands)
    controller = ClusteredController(machine, commands, OWN, first, numbers)
    return controller, controller.handle(Loaded(), 0)


def requests(effects: list[Any], kind: type) -> list[Any]:
    return [
        effect.request for effect in effects if isinstance(effect, Call) and isinstance(effect.request, kind)
    ]


def test_a_controller_that_starts_again_stops_the_followers_of_a_leader_that_has_moved() -> None:
    _, effects = started(state(record(OTHER, "start-b/1")))
    assert [request.address for request in requests(effects, StopChild)] == [GROUP]


def test_a_controller_that_starts_again_lets_the_followers_of_its_leader_run() -> None:
    controller, effects = started(state(record(OWN, "start-a/1")))
    assert requests(effects, StopChild) == []
    effects = controller.handle(PeerUp(address=REPLICA, incarnation=1, endpoint="ipc://r"), 1)
    [role] = [effect for effect in effects if isinstance(effect, Call) and isinstance(effect.request, Lead)]
    reply = RoleReply(role="leader", leader_epoch=5, revision=9, highest_leader_epoch=5)
    effects = controller.handle(Answered(role.key, reply), 2)
    [start] = requests(effects, StartChild)
    assert start.spec.address == GROUP
    assert start.spec.arguments["is_replaceable"]


def test_a_controller_that_starts_again_replaces_the_locations_of_the_earlier_one() -> None:
    _, effects = started(state(record(OWN, "")))
    [locate] = requests(effects, Locate)
    located = {location.address: location.target for location in locate.locations}
    assert located == {Address.parse("partition/__offsets/0"): None, GROUP: None}


def test_a_leader_that_is_replaced_on_its_node_is_reported_as_another_process() -> None:
    controller, effects = started(state(record(OTHER, "start-b/1")))
    [before] = requests(effects, Locate)
    again = Put("partitions/__offsets/0", msgspec.json.encode(record(OTHER, "start-b/2", leader_epoch=6)))
    [after] = requests(controller.handle(Changed(10, (again,)), 1), Locate)
    for first, second in zip(before.locations, after.locations, strict=True):
        assert msgspec.structs.replace(first, version=6) == second != first


def test_the_files_of_a_replica_stay_when_a_whole_state_lacks_its_record() -> None:
    controller, _ = started(state(record(OTHER, "start-b/1")))
    effects = controller.handle(state(None, 3), 1)
    [stop] = [effect for effect in effects if isinstance(effect, Call) and effect.request == STOP]
    effects = controller.handle(Answered(stop.key, Done()), 2)
    assert not any(isinstance(effect, RemoveReplica) for effect in effects)


def test_a_new_controller_finds_by_its_replica_that_the_store_is_an_old_copy() -> None:
    controller, _ = started(state(record(OWN, "start-a/1")))
    effects = controller.handle(PeerUp(address=REPLICA, incarnation=1, endpoint="ipc://r"), 1)
    [role] = [effect for effect in effects if isinstance(effect, Call) and isinstance(effect.request, Lead)]
    known = RoleReply(role="leader", leader_epoch=5, revision=20, highest_leader_epoch=5)
    [write] = [
        effect for effect in controller.handle(Answered(role.key, known), 2) if isinstance(effect, Propose)
    ]
    [change] = write.changes
    assert isinstance(change, Put)
    raised = msgspec.json.decode(change.value, type=PartitionRecord)
    assert (raised.leader_epoch, raised.claim) == (6, "start-a/1")


def test_a_replica_has_the_present_configuration_once_it_is_up() -> None:
    """A cast while it was starting was lost; it may have been started with the older one."""
    controller, _ = started(state(record(OTHER, "start-b/1")))
    synced = TopicEntry(
        topic="__offsets", topic_id="t", partitions=1, config=TopicConfig(flush="interval:1s")
    )
    controller.handle(Changed(10, (Put("topics/__offsets", msgspec.json.encode(synced)),)), 1)
    effects = controller.handle(PeerUp(address=REPLICA, incarnation=1, endpoint="ipc://r"), 2)
    configured, role = [effect for effect in effects if effect.address == REPLICA]
    assert configured == Cast(REPLICA, ConfigurePartition(config=synced.config))
    assert isinstance(role.request, Follow)


def test_replicas_learn_of_a_configuration_that_changed_while_the_store_was_not_watched() -> None:
    first = state(record(OTHER, "start-b/1"))
    controller, _ = started(first)
    controller.handle(PeerUp(address=REPLICA, incarnation=1, endpoint="ipc://r"), 1)
    later = state(record(OTHER, "start-b/1"), 20)
    assert not [effect for effect in controller.handle(later, 2) if isinstance(effect, Cast)]
    changed = TopicEntry(topic="__offsets", topic_id="t", partitions=1, config=TopicConfig(flush="os"))
    value = Entry(msgspec.json.encode(changed), 30, 30)
    latest = State(30, {**later.entries, "topics/__offsets": value})
    effects = controller.handle(latest, 3)
    [configured] = [effect for effect in effects if isinstance(effect, Cast)]
    assert configured == Cast(REPLICA, ConfigurePartition(config=changed.config))
    [start] = [request for request in requests(effects, StartChild) if request.spec.address == REPLICA]
    assert start.spec.arguments["config"]["flush"] == "os"


def test_a_topic_created_again_is_started_once_the_earlier_process_has_ended() -> None:
    controller, _ = started(state(record(OTHER, "start-b/1")))
    again = TopicEntry(topic="__offsets", topic_id="t2", partitions=1, config=TopicConfig())
    created = Put("topics/__offsets", msgspec.json.encode(again))
    effects = controller.handle(Changed(10, (Delete("partitions/__offsets/0"), created)), 1)
    [stop] = [effect for effect in effects if isinstance(effect, Call) and effect.request == STOP]
    placed = msgspec.structs.replace(record(OTHER, ""), topic_id="t2")
    put_again = Put("partitions/__offsets/0", msgspec.json.encode(placed))
    effects = controller.handle(Changed(11, (put_again,)), 2)
    assert requests(effects, StartChild) == []
    assert not any(isinstance(effect, MakeReplica) for effect in effects)
    removed, *_, start = controller.handle(Answered(stop.key, Done()), 3)
    assert isinstance(removed, RemoveReplica)
    assert isinstance(start.request, StartChild)
    assert start.request.spec.address == REPLICA
    assert controller.handle(Answered(start.key, Done()), 4) == []


def test_a_start_whose_session_is_replaced_by_a_copy_of_its_directory_does_not_take_it_back() -> None:
    controller, _ = started(state(record(OTHER, "start-b/1")))
    assert controller.cluster.is_registered
    controller.handle(Session(1, None), 1)
    copy = Put("nodes/a", msgspec.json.encode(msgspec.structs.replace(OWN, start_id="start-c")))
    effects = controller.handle(Changed(10, (copy,)), 2)
    assert not any(isinstance(effect, Propose) for effect in effects)
    assert controller.cluster.rival is not None
    again, _ = started(state(record(OTHER, "start-b/1")))
    again.cluster.mirror.apply(Changed(10, (copy,)))
    again.cluster._was_registered = False
    assert again.cluster.rival is None, "a node that has started again takes the session of the start before"


def test_an_unclean_election_asks_every_live_replica_through_the_links() -> None:
    """The replica here answers, the other node's does not, and the order is carried out on what is known."""
    third = msgspec.structs.replace(OTHER, node="c", data_id="disk-c", start_id="start-c")
    offline = msgspec.structs.replace(
        record(third, ""), replicas=("a", "b", "c"), in_sync=(Member("c", "disk-c"),)
    )
    controller, _ = started(state(offline))
    order = ElectLeader(topic="__offsets", partition=0, unclean=True)
    asked = controller.handle(Received(OPERATOR, order), 1)
    local, remote = asked
    assert (local.address, type(local.request)) == (REPLICA, ReportLogEnd)
    assert (remote.address, remote.request.node, remote.request.address) == (link_address("a"), "b", REPLICA)
    assert controller.handle(Answered(local.key, LogEndReply(last_epoch=4, log_end_offset=7)), 2) == []
    error = ErrorBody(ErrorCode.TIMED_OUT, "", True)
    [write] = controller.handle(Failed(remote.key, error), 3)
    assert isinstance(write, Propose)
    [change] = write.changes
    assert isinstance(change, Put)
    elected = msgspec.json.decode(change.value, type=PartitionRecord)
    assert (elected.leader, elected.unclean_epochs) == ("a", (6,))


def test_every_role_of_a_leader_names_the_nodes_that_are_down() -> None:
    """Also that of a process which starts when the node is down already: no report was made to it."""
    controller, effects = started(state(record(OWN, "start-a/1")))

    def downs(effects: list[Any]) -> list[tuple[str, ...]]:
        return [request.down for request in requests(effects, Lead)]

    effects = controller.handle(PeerUp(address=REPLICA, incarnation=1, endpoint="ipc://r"), 1)
    assert downs(effects) == [()]
    effects = controller.handle(Changed(10, (Delete("nodes/b"),)), 2)
    assert downs(effects) == [("b",)]
    controller.handle(PeerDown(address=REPLICA, incarnation=1, reason="killed"), 3)
    controller.handle(PeerUp(address=REPLICA, incarnation=2, endpoint="ipc://r"), 4)
    claimed = msgspec.json.encode(record(OWN, "start-a/2", leader_epoch=6))
    effects = controller.handle(Changed(11, (Put("partitions/__offsets/0", claimed),)), 5)
    assert downs(effects) == [("b",)]
    effects = controller.handle(Changed(12, (Put("nodes/b", msgspec.json.encode(OTHER)),)), 6)
    assert downs(effects) == [()]

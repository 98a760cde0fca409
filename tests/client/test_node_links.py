"""A client's requests for a partition go to the node that leads it, or through its gateway to there, and never overtake
each other."""

import pytest
from msgspec import UNSET, UnsetType

from exchange_driver import DOOR, Wire
from planaria.transport.calls.events import Disconnected, Resolved, Wanted
from planaria.transport.protocol.data import ListOffsets, ListOffsetsReply
from planaria.transport.protocol.errors import ErrorCode
from planaria.transport.protocol.groups import CommitOffsets, CommitOffsetsReply
from planaria.transport.protocol.session import (
    Hello,
    HelloReply,
    Metadata,
    MetadataReply,
    Node,
    PartitionMetadata,
    TopicMetadata,
)
from planaria.transport.protocol.topics import ListTopics, ListTopicsReply

B, C = "tcp://10.0.0.2:5570", "tcp://10.0.0.3:5570"
NAMED = "tcp://node-b:5570"


def led_by(
    wire: Wire, node: str | UnsetType, version: int = 1, endpoint: str = B, *, dead: str | None = None
) -> None:
    """Answer the newest request for metadata, which does not name a node that is dead."""
    *_, request = wire.take(Metadata)
    partition = PartitionMetadata(partition=0, online=True, incarnation=version, node=node)
    topic = TopicMetadata(topic="T", topic_id="T", max_message_bytes=1, partitions=[partition])
    nodes = [node for node in (Node("a", DOOR), Node("b", endpoint), Node("c", C)) if node.node != dead]
    wire.answer(request, MetadataReply(version=version, instance_id="i", topics=[topic], nodes=nodes))


def welcome(wire: Wire) -> None:
    """Answer the greeting of another node."""
    (hello,) = wire.take(Hello)
    wire.answer(hello, HelloReply(version=1, server="s", instance_id="j", run_directory="/b"))


def answer(wire: Wire) -> bytes:
    """Answer the one request; return the route on which it was sent."""
    (sent,) = wire.take(ListOffsets)
    wire.answer(sent, ListOffsetsReply(offset=1, timestamp_ms=None))
    return sent.route


@pytest.fixture
def wire() -> Wire:
    """A client of node a; node b leads the partition."""
    found = Wire(is_local=False)
    found.greet()
    found.feed(Wanted("T"))
    led_by(found, "b")
    return found


@pytest.fixture
def direct(wire: Wire) -> Wire:
    """The same, after a first request."""
    wire.ask()
    assert answer(wire) == wire.routes[DOOR]
    welcome(wire)
    return wire


@pytest.fixture
def looking_up() -> Wire:
    """The same as `wire`, but node b has a host name, which is being looked up."""
    wire = Wire(is_local=False)
    wire.greet()
    wire.feed(Wanted("T"))
    led_by(wire, "b", endpoint=NAMED)
    wire.ask()
    answer(wire)
    assert wire.lookups == [NAMED]
    return wire


def test_requests_go_to_the_leaders_node_once_it_has_greeted(direct: Wire) -> None:
    direct.ask()
    (sent,) = direct.take(ListOffsets)
    assert sent.route == direct.routes[B]
    assert sent.request.greeted is True  # type: ignore[union-attr]


def test_no_request_overtakes_an_earlier_one_that_goes_through_the_gateway(wire: Wire) -> None:
    wire.ask("first")
    welcome(wire)
    (first,) = wire.take(ListOffsets)
    wire.ask("second")
    (second,) = wire.take(ListOffsets)
    assert first.route == second.route == wire.routes[DOOR]
    for sent in (first, second):
        wire.answer(sent, ListOffsetsReply(offset=1, timestamp_ms=None))
    wire.ask("third")
    assert answer(wire) == wire.routes[B]


def test_requests_on_a_lost_connection_go_through_the_gateway_at_once(direct: Wire) -> None:
    direct.ask()
    assert len(direct.take(ListOffsets)) == 1
    direct.feed(Disconnected(B))
    assert answer(direct) == direct.routes[DOOR]
    direct.ask()
    assert answer(direct) == direct.routes[DOOR]  # not connected again yet
    direct.now += 1_000
    direct.ask()
    answer(direct)
    welcome(direct)
    direct.ask()
    assert answer(direct) == direct.routes[B]


def test_requests_in_flight_together_leave_a_lost_connection_together(direct: Wire) -> None:
    """The first to be sent again must not wait for the others on the connection that is gone."""
    for key in ("first", "second", "third"):
        direct.ask(key)
    assert {sent.route for sent in direct.take(ListOffsets)} == {direct.routes[B]}
    direct.feed(Disconnected(B))
    sent = direct.take(ListOffsets)
    assert [each.route for each in sent] == 3 * [direct.routes[DOOR]]
    serials = [direct.serial(attempt=each.attempt) for each in sent]
    assert serials == sorted(serials)


def test_requests_in_flight_at_a_node_survive_that_it_becomes_the_gateway(direct: Wire) -> None:
    for key in ("first", "second"):
        direct.ask(key)
    assert len(direct.take(ListOffsets)) == 2
    direct.feed(Disconnected(DOOR))
    assert direct.take(ListOffsets) == []  # until the node has answered the greeting
    welcome(direct)
    led_by(direct, UNSET)
    assert [each.route for each in direct.take(ListOffsets)] == 2 * [direct.routes[B]]


@pytest.mark.parametrize("leader", ["c", UNSET], ids=["a third node", "the gateway's node"])
def test_requests_to_a_node_that_leads_no_more_are_sent_again(direct: Wire, leader: str | UnsetType) -> None:
    direct.ask()
    (sent,) = direct.take(ListOffsets)
    assert sent.route == direct.routes[B]
    led_by(direct, leader, version=2)
    assert answer(direct) == direct.routes[DOOR]
    assert len(direct.take(Hello)) == (leader == "c")


def test_a_refusal_by_a_replica_that_does_not_lead_asks_for_the_leader(direct: Wire) -> None:
    direct.ask()
    (sent,) = direct.take(ListOffsets)
    direct.take(Metadata)
    direct.refuse(sent, ErrorCode.NOT_LEADER)
    assert [request.request.max_wait_ms for request in direct.take(Metadata)] == [0]  # type: ignore[union-attr]


def test_a_refusal_at_the_leaders_node_keeps_no_later_request_from_it(direct: Wire) -> None:
    """Its new leader may answer a moment later, and this client's own node has nothing new to say then."""
    direct.ask()
    (sent,) = direct.take(ListOffsets)
    direct.refuse(sent, ErrorCode.PARTITION_OFFLINE)
    direct.ask()
    assert answer(direct) == direct.routes[B]


@pytest.mark.parametrize("is_silent", [False, True])
def test_a_node_that_cannot_be_reached_is_no_obstacle(wire: Wire, is_silent: bool) -> None:
    wire.ask()
    answer(wire)
    if is_silent:
        wire.fire(wire.serial(key=("node_hello", 1)))
    else:
        wire.feed(Disconnected(B, is_refused=True))
    assert B not in wire.routes
    wire.ask()
    assert answer(wire) == wire.routes[DOOR]


def test_a_node_with_a_host_name_is_looked_up(looking_up: Wire) -> None:
    looking_up.feed(Resolved((B,), endpoint=NAMED))
    welcome(looking_up)
    looking_up.ask()
    assert answer(looking_up) == looking_up.routes[B]


def test_a_client_whose_node_dies_takes_over_the_connection_to_another(direct: Wire) -> None:
    """Both would lead to the same endpoint."""
    direct.feed(Disconnected(DOOR))
    assert B in direct.routes
    direct.greet("j")
    direct.feed(Wanted("T"))
    led_by(direct, UNSET)
    direct.ask()
    assert answer(direct) == direct.routes[B]


def commit(wire: Wire) -> bytes:
    """Commit for the group; return the route on which the request was sent."""
    wire.ask_group()
    (sent,) = wire.take(CommitOffsets)
    wire.answer(sent, CommitOffsetsReply())
    return sent.route


@pytest.fixture
def grouped() -> Wire:
    """A client of node a; the coordinator of its group is on node b."""
    wire = Wire(is_local=False)
    wire.greet(nodes=[Node("a", DOOR), Node("b", B)])
    assert commit(wire) == wire.routes[DOOR]
    (metadata,) = wire.take(Metadata)
    assert metadata.request.groups == ["g"]  # type: ignore[union-attr]
    wire.name_coordinator(metadata, None, "b")
    return wire


def test_requests_of_a_group_go_to_the_node_of_its_coordinator(grouped: Wire) -> None:
    assert commit(grouped) == grouped.routes[DOOR]
    welcome(grouped)
    assert commit(grouped) == grouped.routes[B]
    assert grouped.take(Metadata) == []
    grouped.feed(Disconnected(B))
    assert commit(grouped) == grouped.routes[DOOR]


def test_no_commit_overtakes_an_earlier_one_to_a_coordinator_that_moves(grouped: Wire) -> None:
    commit(grouped)
    welcome(grouped)
    grouped.ask_group()
    (first,) = grouped.take(CommitOffsets)
    grouped.fire("refresh")
    (metadata,) = grouped.take(Metadata)
    grouped.name_coordinator(metadata, None)
    grouped.ask_group()
    (second,) = grouped.take(CommitOffsets)
    assert first.route == second.route == grouped.routes[B]
    for sent in (first, second):
        grouped.answer(sent, CommitOffsetsReply())
    assert commit(grouped) == grouped.routes[DOOR]


def test_a_request_goes_to_a_node_that_it_names_if_the_client_is_connected_to_that(direct: Wire) -> None:
    direct.ask_gateway(node="c")
    direct.ask_gateway(node="b")
    elsewhere, straight = direct.take(ListTopics)
    assert (elsewhere.route, straight.route) == (direct.routes[DOOR], direct.routes[B])
    assert direct.take(Hello) == []


@pytest.mark.parametrize(("node", "endpoint"), [("a", "ipc://ACTOR.1"), ("b", DOOR)])
def test_the_endpoint_of_a_process_is_used_if_it_is_on_the_gateways_node(node: str, endpoint: str) -> None:
    """A process of another node may be on this machine, too; but its connection would outlive the death of that node."""
    wire = Wire()
    wire.greet(nodes=[Node("a", DOOR), Node("b", B)])
    wire.ask_gateway(endpoint="ipc://ACTOR.1", node=node)
    (sent,) = wire.take(ListTopics)
    assert sent.route == wire.routes[endpoint]


def test_requests_to_a_node_that_is_taken_for_dead_are_sent_again(direct: Wire) -> None:
    """It may be frozen: nothing else would end the wait for its answers. They name no partition."""
    direct.ask_gateway(node="b")
    (sent,) = direct.take(ListTopics)
    assert sent.route == direct.routes[B]
    direct.fire("refresh")
    led_by(direct, "c", version=2, dead="b")
    (again,) = direct.take(ListTopics)
    assert again.route == direct.routes[DOOR]
    direct.ask_gateway(node="b")
    (later,) = direct.take(ListTopics)
    assert later.route == direct.routes[DOOR]


def test_requests_of_a_group_leave_a_node_that_is_taken_for_dead(grouped: Wire) -> None:
    commit(grouped)
    welcome(grouped)
    grouped.ask_group()
    grouped.ask_group()
    assert [sent.route for sent in grouped.take(CommitOffsets)] == 2 * [grouped.routes[B]]
    grouped.fire("refresh")
    (metadata,) = grouped.take(Metadata)
    grouped.name_coordinator(metadata, None, "a", nodes=[Node("a", DOOR)])
    assert [sent.route for sent in grouped.take(CommitOffsets)] == 2 * [grouped.routes[DOOR]]


@pytest.fixture
def led_by_c() -> Wire:
    """A client of node a, with an open connection to node c, which leads the partition."""
    wire = Wire(is_local=False)
    wire.greet(nodes=[Node("a", DOOR), Node("b", B), Node("c", C)])
    wire.feed(Wanted("T"))
    led_by(wire, "c")
    wire.ask()
    assert answer(wire) == wire.routes[DOOR]
    welcome(wire)
    return wire


@pytest.mark.parametrize("leader", [UNSET, "a"], ids=["the gateway's node", "a third node"])
def test_requests_leave_a_node_that_leads_no_more_although_the_gateway_has_changed(
    led_by_c: Wire, leader: str | UnsetType
) -> None:
    """What the gateway before had said is forgotten with it. Nobody else reports that the leader has been replaced."""
    led_by_c.ask()
    (sent,) = led_by_c.take(ListOffsets)
    assert sent.route == led_by_c.routes[C]
    led_by_c.feed(Disconnected(DOOR))
    led_by_c.greet("j")
    led_by(led_by_c, leader)
    assert answer(led_by_c) == led_by_c.routes[B]


def test_requests_stay_at_the_node_that_leads_when_the_gateway_changes(led_by_c: Wire) -> None:
    led_by_c.ask()
    (sent,) = led_by_c.take(ListOffsets)
    led_by_c.feed(Disconnected(DOOR))
    led_by_c.greet("j")
    led_by(led_by_c, "c")
    assert led_by_c.take(ListOffsets) == []
    led_by_c.answer(sent, ListOffsetsReply(offset=1, timestamp_ms=None))
    assert len(led_by_c.owner.heard) == 2


def stop_gateway(wire: Wire) -> None:
    """The gateway refuses the polls at once; it answers the requests that it has before it ends."""
    for metadata in wire.take(Metadata):
        wire.refuse(metadata, ErrorCode.SHUTTING_DOWN)


def test_a_gateway_that_stops_is_left_before_it_has_ended(led_by_c: Wire) -> None:
    led_by_c.ask_gateway()
    (refused,) = led_by_c.take(ListTopics)
    led_by_c.refuse(refused, ErrorCode.SHUTTING_DOWN)
    stop_gateway(led_by_c)
    assert DOOR not in led_by_c.routes
    led_by_c.fire(led_by_c.timer("retry"))
    led_by_c.greet("j")
    (sent,) = led_by_c.take(ListTopics)
    assert sent.route == led_by_c.routes[B]


def test_a_gateway_that_stops_still_answers_what_must_not_be_repeated(led_by_c: Wire) -> None:
    led_by_c.ask_gateway(is_retried=False)
    led_by_c.fire("refresh")
    stop_gateway(led_by_c)
    assert DOOR in led_by_c.routes
    (sent,) = led_by_c.take(ListTopics)
    led_by_c.answer(sent, ListTopicsReply(topics=[]))
    led_by_c.fire("refresh")
    stop_gateway(led_by_c)
    assert DOOR not in led_by_c.routes


def test_the_only_gateway_is_not_left() -> None:
    wire = Wire(is_local=False)
    wire.greet()
    wire.feed(Wanted("T"))
    stop_gateway(wire)
    assert DOOR in wire.routes


def test_a_gateway_that_stops_before_it_is_greeted_is_left_for_the_next(led_by_c: Wire) -> None:
    led_by_c.feed(Disconnected(DOOR))
    (hello,) = led_by_c.take(Hello)
    assert hello.route == led_by_c.routes[B]
    led_by_c.refuse(hello, ErrorCode.SHUTTING_DOWN)
    (hello,) = led_by_c.take(Hello)
    assert hello.route == led_by_c.routes[C]


def test_the_lookup_of_a_node_that_has_moved_meanwhile_leaves_the_gateway_alone(looking_up: Wire) -> None:
    looking_up.fire("refresh")
    led_by(looking_up, "b", version=2, endpoint=B)
    looking_up.feed(Resolved((C,), endpoint=NAMED))
    assert C not in looking_up.routes
    looking_up.ask_gateway()
    assert [sent.route for sent in looking_up.take(ListTopics)] == [looking_up.routes[DOOR]]

"""A relay reaches the actor of another node as it was made, and its reply comes back as it is."""

import msgspec
import pytest

from linked_nodes import LinkedNodes
from planaria.actors.link import relays
from planaria.transport.addresses import Address
from planaria.transport.machine import Call, Cast, Disconnected, Failed, Received, Sender
from planaria.transport.protocol.errors import ErrorBody
from planaria.transport.protocol.links import Forward, Relay
from planaria.transport.protocol.session import Cancel
from planaria.transport.request_context import RequestContext

HEADER = b'{"op":"fetch","id":7}'
TO_B = Relay(node="b", address=Address.parse("partition/T/0"), timeout_ms=3_000)


@pytest.fixture
def world() -> LinkedNodes:
    return LinkedNodes("a", "b", "c")


def test_header_payload_and_reply_are_passed_on_unread(world: LinkedNodes) -> None:
    context = RequestContext(principal="ann", connection=b"x")
    sender = world.nodes["a"].ask(TO_B, HEADER, b"batch", context=context)
    [call] = world.nodes["b"].received
    assert isinstance(call, Call)
    assert (call.address, call.request, list(call.payload)) == ("partition/T/0", HEADER, [b"batch"])
    assert call.timeout_ms == 3_000
    assert call.context == context
    [reply] = world.nodes["a"].replies
    assert (reply.to, reply.body, reply.payload) == (sender, b"answer of b", (b"payload",))


def test_a_request_of_an_actor_arrives_without_a_context(world: LinkedNodes) -> None:
    world.nodes["a"].ask(TO_B, HEADER)
    [call] = world.nodes["b"].received
    assert call.context is None


def test_a_cast_is_passed_on_and_not_answered(world: LinkedNodes) -> None:
    world.nodes["a"].ask(msgspec.structs.replace(TO_B, is_cast=True), HEADER, b"x")
    [cast] = world.nodes["b"].received
    assert isinstance(cast, Cast)
    assert (cast.address, cast.request, list(cast.payload)) == ("partition/T/0", HEADER, [b"x"])
    assert world.nodes["a"].replies == []


@pytest.mark.parametrize(
    ("relay", "header"),
    [(Relay(node="nowhere", address="x"), HEADER), (Relay(node="c", address="x"), HEADER)],
    ids=["unknown", "without a session"],
)
def test_a_relay_to_a_node_that_does_not_run_is_refused(
    world: LinkedNodes, relay: Relay, header: bytes
) -> None:
    world.publish("c")
    world.nodes["a"].ask(relay, header)
    [reply] = world.nodes["a"].replies
    assert isinstance(reply.body, ErrorBody)
    assert (reply.body.code, reply.body.retriable) == ("ACTOR_UNAVAILABLE", True)


def test_a_relay_that_reaches_the_wrong_node_goes_no_further(world: LinkedNodes) -> None:
    """An endpoint may belong to another node by now."""
    relay = Forward(node="c", address=Address.parse("partition/T/0"))
    sender = Sender((b"somebody", b"1"), None)
    world.nodes["b"].event(Received(sender, relay, (HEADER,)))
    [reply] = world.nodes["b"].replies
    assert isinstance(reply.body, ErrorBody)
    assert reply.body.message == "this is node 'b', not 'c'"
    assert world.nodes["c"].received == []


@pytest.mark.parametrize("address", ["controller", "supervisor", "gateway/0", "subscriber/G/0", "link/b"])
def test_other_nodes_reach_replicas_and_those_that_follow_leaders_alone(
    world: LinkedNodes, address: str
) -> None:
    request = Forward(node="b", address=Address.parse(address))
    world.nodes["b"].event(Received(Sender((b"somebody", b"1"), None), request, (HEADER,)))
    [reply] = world.nodes["b"].replies
    assert isinstance(reply.body, ErrorBody)
    assert reply.body.code == "FORBIDDEN"
    assert world.nodes["b"].received == []


def test_a_relay_without_a_header_is_refused(world: LinkedNodes) -> None:
    world.nodes["a"].event(Received(Sender((b"actor", b"1"), None), TO_B))
    [reply] = world.nodes["a"].replies
    assert isinstance(reply.body, ErrorBody)
    assert reply.body.code == "INVALID_REQUEST"


def test_a_relay_fails_when_the_other_node_dies(world: LinkedNodes) -> None:
    world.answer = None
    world.nodes["a"].ask(TO_B, HEADER)
    world.kill("b")
    [reply] = world.nodes["a"].replies
    assert isinstance(reply.body, ErrorBody)
    assert reply.body.retriable


@pytest.mark.parametrize(
    ("header", "is_json"),
    [(HEADER, True), (b"\x82\xa2op\xa5fetch\xa2id\x07", False)],
    ids=["json", "msgpack"],
)
def test_a_refusal_has_the_id_and_the_encoding_of_the_relayed_request(
    world: LinkedNodes, header: bytes, is_json: bool
) -> None:
    """The gateway passes it on unread, and the client finds its request by the id."""
    world.answer = None
    a, b = world.nodes["a"], world.nodes["b"]
    a.ask(TO_B, header)
    a.ask(Relay(node="nowhere", address=Address.parse("x")), header)
    forward = Forward(node="b", address=TO_B.address)
    b.event(Received(Sender((b"link", b"1"), None), forward, (header,)))
    call = b.received[-1]
    assert isinstance(call, Call)
    b.event(Failed(call.key, ErrorBody("PARTITION_OFFLINE", "it died", True)))
    world.kill("b")
    replies = [*a.replies, *b.replies]
    assert len(replies) == 3
    assert {(reply.to.id, reply.to.is_json) for reply in replies} == {(7, is_json)}


@pytest.mark.parametrize("is_closed", [True, False], ids=["connection closed", "withdrawn"])
def test_a_withdrawn_relay_is_withdrawn_at_the_receiver(world: LinkedNodes, is_closed: bool) -> None:
    world.answer = None
    sender = world.nodes["a"].ask(TO_B, HEADER)
    assert len(world.nodes["b"].machine.relays) == 1
    if is_closed:
        world.nodes["a"].event(Disconnected(sender.route[0]))
    else:
        world.nodes["a"].event(Received(sender, Cancel()))
    assert len(world.nodes["a"].machine.relays) == 0
    assert len(world.nodes["b"].machine.relays) == 0
    assert world.nodes["a"].replies == []


def test_the_relays_of_a_link_are_bounded(world: LinkedNodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relays, "MAX_RELAYS", 2)
    world.answer = None
    for _ in range(3):
        world.nodes["a"].ask(TO_B, HEADER)
    [reply] = world.nodes["a"].replies
    assert isinstance(reply.body, ErrorBody)
    assert reply.body.code == "OVERLOADED"

"""Search of a gateway: every endpoint, every address of its host, and those that have changed later."""

import pytest

from exchange_driver import Wire
from planaria.transport.calls.events import Disconnected, GreetingRead, HandshakeFailed, Resolved
from planaria.transport.client.gateway_link import DIAL, SILENCE_MS, SILENT_LOOKS
from planaria.transport.machine import Failed
from planaria.transport.protocol.data import ListOffsets
from planaria.transport.protocol.errors import ErrorCode
from planaria.transport.protocol.session import (
    Hello,
    Metadata,
    MetadataReply,
    Node,
    PartitionMetadata,
    TopicMetadata,
)
from planaria.transport.protocol.topics import ListTopics

NAMED = "tcp://broker.test:5570"
FIRST, SECOND, MOVED = "tcp://10.0.0.1:5570", "tcp://[fd00::2]:5570", "tcp://10.0.0.3:5570"


@pytest.fixture
def wire() -> Wire:
    found = Wire(True, NAMED)
    assert found.lookups == [NAMED]
    assert found.routes == {}
    return found


def test_an_address_that_refuses_is_followed_by_the_next(wire: Wire) -> None:
    wire.ask_gateway()
    wire.feed(Resolved((FIRST, SECOND), endpoint=NAMED))
    assert list(wire.routes) == [FIRST]
    wire.take(Hello)
    wire.feed(Disconnected(FIRST, is_refused=True))
    assert list(wire.routes) == [SECOND]
    wire.greet()
    (send,) = wire.take(ListTopics)
    assert send.route == wire.routes[SECOND]


def test_an_address_that_does_not_answer_is_followed_by_the_next(wire: Wire) -> None:
    wire.feed(Resolved((FIRST, SECOND), endpoint=NAMED))
    wire.take(Hello)
    wire.fire("hello")
    assert list(wire.routes) == [SECOND]
    wire.greet()


def test_when_no_address_leads_to_a_broker_the_name_is_looked_up_again_with_growing_pauses(
    wire: Wire,
) -> None:
    for round_number, pause_ms in enumerate((10, 20, 40), 1):
        wire.feed(Resolved((FIRST, SECOND), endpoint=NAMED))
        wire.feed(Disconnected(FIRST, is_refused=True))
        wire.feed(Disconnected(SECOND, is_refused=True))
        assert wire.routes == {}
        assert wire.timers["dial"] == wire.now + pause_ms
        wire.fire("dial")
        assert len(wire.lookups) == round_number + 1
    wire.take(Hello)
    wire.feed(Resolved((MOVED,), endpoint=NAMED))
    wire.greet()
    assert list(wire.routes) == [MOVED]


def test_a_greeting_that_is_overdue_while_the_name_is_looked_up_changes_nothing(wire: Wire) -> None:
    wire.feed(Resolved((FIRST,), endpoint=NAMED))
    wire.feed(Disconnected(FIRST, is_refused=True))
    wire.fire("hello")
    assert wire.routes == {}
    assert len(wire.lookups) == 1


def test_a_lost_connection_has_the_name_looked_up_at_once(wire: Wire) -> None:
    wire.feed(Resolved((FIRST, SECOND), endpoint=NAMED))
    wire.greet()
    wire.ask_gateway()
    wire.take(ListTopics)
    wire.feed(Disconnected(FIRST))
    assert wire.routes == {}
    assert wire.lookups == [NAMED, NAMED]
    assert wire.take(ListTopics) == []
    wire.feed(Resolved((MOVED,), endpoint=NAMED))
    wire.greet()
    (again,) = wire.take(ListTopics)
    assert again.route == wire.routes[MOVED]


def test_a_name_server_that_is_down_is_waited_for_and_named_in_the_error(wire: Wire) -> None:
    wire.ask_gateway("late", timeout_ms=50)
    wire.feed(
        Resolved(
            fault="'broker.test' cannot be looked up: Temporary failure in name resolution", endpoint=NAMED
        )
    )
    wire.fire(wire.serial(key="late"))
    (failed,) = wire.owner.heard
    assert isinstance(failed, Failed)
    assert "no broker answers at tcp://broker.test:5570: 'broker.test' cannot be" in failed.error.message
    wire.fire("dial")
    wire.feed(Resolved((FIRST,), endpoint=NAMED))
    wire.greet()


A, B, C = "tcp://10.0.0.1:1", "tcp://10.0.0.2:1", "tcp://10.0.0.3:1"


def test_endpoints_are_tried_in_turn_until_one_answers() -> None:
    wire = Wire(True, A, B, C)
    wire.ask_gateway()
    wire.take(Hello)
    wire.feed(Disconnected(A, is_refused=True))
    wire.take(Hello)
    wire.fire("hello")
    assert list(wire.routes) == [C]
    wire.greet()
    (send,) = wire.take(ListTopics)
    assert send.route == wire.routes[C]


def test_a_lost_connection_is_followed_by_the_next_endpoint_at_once_and_the_same_one_is_last() -> None:
    wire = Wire(True, A, B, C)
    wire.take(Hello)
    wire.feed(Disconnected(A, is_refused=True))
    wire.greet()
    wire.ask_gateway("again")
    wire.ask_gateway("once", is_retried=False)
    wire.take(ListTopics)
    tried = []
    wire.feed(Disconnected(B))
    assert [event.key for event in wire.owner.heard] == ["once"], "it may have been executed"
    for _ in range(3):
        (endpoint,) = wire.routes
        tried.append(endpoint)
        wire.feed(Disconnected(endpoint, is_refused=True))
    assert tried == [C, A, B]
    assert wire.routes == {}
    wire.fire("dial")
    assert list(wire.routes) == [C]
    (hello,) = [each for each in wire.take(Hello) if each.route == wire.routes[C]]
    wire.sent.append(hello)
    wire.greet()
    assert len(wire.take(ListTopics)) == 1


def test_rounds_of_attempts_are_followed_by_growing_pauses_which_end_with_a_session() -> None:
    wire = Wire(True, A, B)
    for pause_ms in (10, 20, 40):
        for _ in range(2):
            (endpoint,) = wire.routes
            wire.feed(Disconnected(endpoint, is_refused=True))
        assert wire.timers["dial"] == wire.now + pause_ms
        wire.take(Hello)
        wire.fire("dial")
    wire.greet()
    wire.feed(Disconnected(A))
    assert list(wire.routes) == [B], "without a pause"
    wire.feed(Disconnected(B, is_refused=True))
    wire.feed(Disconnected(A, is_refused=True))
    assert wire.timers["dial"] == wire.now + 10


def test_a_silent_node_is_left_for_the_next() -> None:
    wire = Wire(True, A, B)
    wire.greet()
    wire.silence_ms = SILENCE_MS
    for _ in range(SILENT_LOOKS):
        assert list(wire.routes) == [A]
        wire.fire("refresh")
    assert list(wire.routes) == [B]


def test_a_name_that_has_no_address_is_followed_by_the_next_endpoint() -> None:
    wire = Wire(True, NAMED, B)
    wire.ask_gateway("late", timeout_ms=50)
    wire.feed(Resolved(fault="'broker.test' cannot be looked up: Name or service not known", endpoint=NAMED))
    assert list(wire.routes) == [B]
    wire.feed(Disconnected(B, is_refused=True))
    wire.fire(wire.serial(key="late"))
    (failed,) = wire.owner.heard
    assert f"no broker answers at {NAMED}: 'broker.test' cannot" in failed.error.message
    assert f"or {B}" in failed.error.message


def test_the_nodes_that_the_broker_names_are_tried_after_the_endpoint_of_the_program() -> None:
    wire = Wire(True, A)
    wire.greet(nodes=[Node("n1", A), Node("n2", B), Node("odd", "ipc:///tmp/x"), Node("n3", C)])
    wire.feed(Disconnected(A))
    assert list(wire.routes) == [B]
    wire.feed(Disconnected(B, is_refused=True))
    assert list(wire.routes) == [C]
    wire.take(Hello)
    wire.feed(Disconnected(C, is_refused=True))
    assert list(wire.routes) == [A]
    wire.greet(nodes=[Node("n1", A)])
    wire.feed(Disconnected(A))
    assert list(wire.routes) == [A], "the others have ended"


def test_nodes_that_come_later_are_learnt_from_metadata() -> None:
    wire = Wire(True, A).settled()
    wire.fire("refresh")
    (metadata,) = wire.take(Metadata)
    wire.answer(
        metadata, MetadataReply(version=1, instance_id="i", topics=[], nodes=[Node("n1", A), Node("n2", B)])
    )
    wire.feed(Disconnected(A))
    assert B in wire.routes


def test_endpoints_of_processes_of_another_node_are_forgotten() -> None:
    wire = Wire(True, A, B).settled()
    wire.ask()
    (first,) = wire.take(ListOffsets)
    assert first.route == wire.routes["ipc://T.1"]
    wire.ask_gateway("direct", endpoint="ipc://ACTOR.1")
    wire.take(ListTopics)
    wire.is_local = False
    wire.feed(Disconnected(A))
    assert set(wire.routes) == {B, "ipc://T.1", "ipc://ACTOR.1"}, "the node may be alive, without its gateway"
    wire.greet(instance_id="of-another-node")
    assert list(wire.routes) == [B]
    (direct,) = wire.take(ListTopics)
    assert direct.route == wire.routes[B]
    (metadata,) = wire.take(Metadata)
    assert wire.take(ListOffsets) == []
    partition = PartitionMetadata(partition=0, online=True, incarnation=1, endpoint="ipc://T.1")
    topic = TopicMetadata(topic="T", topic_id="T", max_message_bytes=1, partitions=[partition])
    wire.answer(metadata, MetadataReply(version=1, instance_id="of-another-node", topics=[topic]))
    (send,) = wire.take(ListOffsets)
    assert send.route == wire.routes[B], "it runs on another machine, and nothing suspects its partitions"


def test_a_handshake_that_the_broker_ends_is_explained_by_its_greeting() -> None:
    wire = Wire(True, A, B)
    wire.ask_gateway()
    wire.feed(HandshakeFailed(A, "closed"))
    wire.feed(HandshakeFailed(A, "closed"))
    assert wire.read_greetings == [A], "one at a time"
    wire.feed(Disconnected(A))
    wire.feed(GreetingRead(A, ""))
    assert wire.owner.heard == [], "there was no greeting, as by a proxy without a broker"
    wire.feed(HandshakeFailed(B, "closed"))
    wire.feed(GreetingRead(B, "NULL"))
    assert wire.owner.heard == [], "the reason is another one"
    wire.feed(HandshakeFailed(B, "closed"))
    wire.feed(Disconnected(B))
    wire.feed(GreetingRead(B, "CURVE"))
    (failed,) = wire.owner.heard
    assert isinstance(failed, Failed)
    assert failed.error.code == ErrorCode.UNAUTHENTICATED
    assert f"the broker at {B} has authentication" in failed.error.message


def test_a_greeting_that_is_read_after_the_session_began_changes_nothing() -> None:
    wire = Wire(True, A)
    wire.feed(HandshakeFailed(A, "closed"))
    wire.greet()
    wire.ask_gateway()
    wire.feed(GreetingRead(A, "CURVE"))
    assert wire.owner.heard == []


def test_a_refused_greeting_refuses_calls_at_once_until_another_one_is_accepted() -> None:
    wire = Wire(True, A).settled()
    wire.ask_gateway("first")
    (send,) = wire.take(ListTopics)
    wire.refuse(send, ErrorCode.HELLO_REQUIRED)
    wire.ask_gateway("meanwhile")
    (hello,) = wire.take(Hello)
    wire.refuse(hello, ErrorCode.UNAUTHENTICATED)
    wire.ask_gateway("later")
    assert [(event.key, event.error.code) for event in wire.owner.heard] == [
        (key, ErrorCode.UNAUTHENTICATED) for key in ("first", "meanwhile", "later")
    ]
    wire.take(ListTopics)
    wire.fire("refresh")
    wire.greet()
    wire.ask_gateway("again")
    assert len(wire.take(ListTopics)) == 1


def test_a_connection_that_ends_before_its_session_is_dialled_again_after_a_pause() -> None:
    """As of a peer of another protocol, whom ZeroMQ does not dial again."""
    wire = Wire(True, A)
    wire.take(Hello)
    wire.feed(Disconnected(A))
    assert wire.take(Hello) == []
    wire.fire(DIAL)
    assert len(wire.take(Hello)) == 1

"""The exchange: one outcome per call, whatever happens to gateway and partitions meanwhile."""

from msgspec import UNSET

from exchange_driver import DOOR, OFFSETS, RETRIED, Wire
from planaria.transport.addresses import GATEWAY, Address
from planaria.transport.calls.events import (
    Disconnected,
    Submitted,
    Undeliverable,
    Wanted,
    Withdrawn,
)
from planaria.transport.client.broker_directory import COORDINATORS_MS
from planaria.transport.client.gateway_link import SILENCE_MS
from planaria.transport.client.topic_cache import SUSPICION_MS
from planaria.transport.machine import Answered, Call, Cast, Failed, Receipt
from planaria.transport.protocol.data import ListOffsets, ListOffsetsReply
from planaria.transport.protocol.errors import ErrorCode
from planaria.transport.protocol.groups import (
    CommitOffsets,
    CommitOffsetsReply,
    GroupHeartbeat,
    GroupHeartbeatReply,
)
from planaria.transport.protocol.message import MAX_FRAME_BYTES
from planaria.transport.protocol.operations import Status, StatusReply
from planaria.transport.protocol.session import (
    Hello,
    HelloReply,
    Metadata,
    MetadataReply,
    TopicMetadata,
)
from planaria.transport.protocol.topics import ListTopics, ListTopicsReply


def test_nothing_goes_out_before_the_greeting_is_answered() -> None:
    wire = Wire()
    wire.ask_gateway()
    assert wire.take(ListTopics) == []
    wire.greet()
    (send,) = wire.take(ListTopics)
    wire.answer(send, ListTopicsReply(topics=[]))
    assert [type(event) for event in wire.owner.heard] == [Answered]
    assert not [key for key in wire.timers if isinstance(key, tuple)]


def test_a_partition_is_reached_directly_here_and_by_the_gateway_elsewhere() -> None:
    for is_local, door in ((True, "ipc://T.1"), (False, DOOR)):
        wire = Wire(is_local)
        wire.greet()
        wire.ask()
        (metadata,) = wire.take(Metadata)
        wire.directory(metadata, 1)
        (send,) = wire.take(ListOffsets)
        assert send.route == wire.routes[door]


def test_who_is_asked_at_an_endpoint_of_its_own_is_asked_through_the_gateway_once_it_has_gone() -> None:
    wire = Wire().settled()
    for _ in range(2):
        wire.ask_gateway(endpoint="ipc://ACTOR.1")
    first, second = wire.take(ListTopics)
    assert first.route == second.route == wire.routes["ipc://ACTOR.1"]
    wire.answer(first, ListTopicsReply(topics=[]))
    wire.feed(Disconnected("ipc://ACTOR.1"))
    (send,) = wire.take(ListTopics)
    assert send.route == wire.routes[DOOR]
    wire.ask_gateway(endpoint="ipc://ACTOR.1")
    (send,) = wire.take(ListTopics)
    assert send.route == wire.routes[DOOR]
    wire.ask_gateway(endpoint="ipc://ACTOR.2")
    (send,) = wire.take(ListTopics)
    wire.feed(Disconnected("ipc://ACTOR.2", is_refused=True))
    (send,) = wire.take(ListTopics)
    assert send.route == wire.routes[DOOR], "it had gone before it was asked"


def test_a_coordinator_is_reached_directly_once_its_endpoint_is_known() -> None:
    wire = Wire().settled()
    wire.ask_group()
    (first,) = wire.take(CommitOffsets)
    assert first.route == wire.routes[DOOR], "the gateway starts it"
    (metadata,) = wire.take(Metadata)
    assert metadata.request.groups == ["g"]
    wire.name_coordinator(metadata, "ipc://g.1")
    wire.ask_group()
    (second,) = wire.take(CommitOffsets)
    assert second.route == wire.routes[DOOR], "it would overtake the first"
    wire.answer(first, CommitOffsetsReply())
    wire.answer(second, CommitOffsetsReply())
    for _ in range(2):
        wire.ask_group()
    third, _ = wire.take(CommitOffsets)
    assert third.route == wire.routes["ipc://g.1"]
    wire.now += COORDINATORS_MS
    wire.feed(Disconnected("ipc://g.1"))
    assert [send.route for send in wire.take(CommitOffsets)] == [wire.routes[DOOR]] * 2, (
        "until its successor is known"
    )
    (metadata,) = wire.take(Metadata)
    wire.name_coordinator(metadata, "ipc://g.1")
    wire.ask_group()
    (send,) = wire.take(CommitOffsets)
    assert send.route == wire.routes[DOOR], "an endpoint that was lost is not tried again"


def test_a_poll_that_waits_at_the_gateway_keeps_no_request_from_the_coordinator() -> None:
    wire = Wire().settled()
    poll = GroupHeartbeat(group="g", max_wait_ms=1_000)
    wire.ask_group(poll, GroupHeartbeatReply)
    (metadata,) = wire.take(Metadata)
    wire.name_coordinator(metadata, "ipc://g.1")
    wire.ask_group()
    (send,) = wire.take(CommitOffsets)
    assert send.route == wire.routes["ipc://g.1"]


def test_endpoints_of_coordinators_are_not_asked_for_with_each_request() -> None:
    wire = Wire().settled()
    for _ in range(3):
        wire.ask_group()
    assert len(wire.take(Metadata)) == 1
    wire.now += COORDINATORS_MS
    wire.ask_group()
    assert len(wire.take(Metadata)) == 1


def test_from_elsewhere_a_coordinator_is_asked_through_the_gateway() -> None:
    wire = Wire(is_local=False).settled()
    wire.ask_group()
    (send,) = wire.take(CommitOffsets)
    assert send.route == wire.routes[DOOR]
    assert wire.take(Metadata) == []


def test_from_elsewhere_everybody_is_asked_through_the_gateway() -> None:
    wire = Wire(is_local=False).settled()
    wire.ask_gateway(endpoint="ipc://ACTOR.1")
    (send,) = wire.take(ListTopics)
    assert send.route == wire.routes[DOOR]


def test_a_lost_gateway_is_greeted_anew_and_asked_again() -> None:
    wire = Wire().settled()
    wire.ask_gateway("again")
    wire.ask_gateway("once", is_retried=False)
    first = wire.take(ListTopics)
    wire.feed(Disconnected(DOOR))
    assert [(event.key, event.error.code) for event in wire.owner.heard] == [
        ("once", ErrorCode.ACTOR_UNAVAILABLE)
    ]
    wire.greet()
    (send,) = wire.take(ListTopics)
    assert send.route != first[0].route
    wire.answer(first[0], ListTopicsReply(topics=[]))
    assert len(wire.owner.heard) == 1, "nothing comes from a connection that is gone"
    wire.answer(send, ListTopicsReply(topics=[]))
    assert [event.key for event in wire.owner.heard] == ["once", "again"]


def test_a_lost_partition_is_waited_for_by_a_long_poll() -> None:
    wire = Wire().settled()
    wire.ask()
    wire.take(ListOffsets)
    wire.feed(Disconnected("ipc://T.1"))
    (poll,) = wire.take(Metadata)
    assert poll.request.after_version == 1  # type: ignore[attr-defined]
    assert poll.request.max_wait_ms > 0  # type: ignore[attr-defined]
    wire.directory(poll, 2, online=False)
    (poll,) = wire.take(Metadata)
    assert wire.take(ListOffsets) == []
    wire.directory(poll, 3, incarnation=2)
    (send,) = wire.take(ListOffsets)
    assert send.route == wire.routes["ipc://T.2"]
    assert wire.take(Metadata) == [], "nobody waits, nobody polls"


def test_a_directory_that_insists_is_believed_after_a_while() -> None:
    wire = Wire().settled()
    wire.ask()
    wire.take(ListOffsets)
    wire.feed(Disconnected("ipc://T.1"))
    (poll,) = wire.take(Metadata)
    wire.directory(poll, 2)
    assert wire.take(ListOffsets) == []
    assert wire.timers["believe"] == SUSPICION_MS
    wire.fire("believe")
    assert len(wire.take(ListOffsets)) == 1


def test_a_refused_connection_of_a_partition_counts_as_lost_and_the_gateways_does_not() -> None:
    wire = Wire().settled()
    wire.ask("k", is_retried=False)
    wire.feed(Disconnected(DOOR, is_refused=True))
    assert wire.owner.heard == []
    wire.feed(Disconnected("ipc://T.1", is_refused=True))
    assert [type(event) for event in wire.owner.heard] == [Failed]


def test_a_partition_that_moved_fails_what_is_under_way() -> None:
    wire = Wire().settled()
    wire.ask("k", is_retried=False)
    wire.fire("refresh")
    (metadata,) = wire.take(Metadata)
    wire.directory(metadata, 5, incarnation=2)
    assert [type(event) for event in wire.owner.heard] == [Failed]
    assert "ipc://T.1" not in wire.routes


def test_a_retriable_refusal_is_retried_with_backoff_and_another_is_not() -> None:
    wire = Wire().settled()
    wire.ask_gateway()
    for delay_ms in (10, 20, 40):
        (send,) = wire.take(ListTopics)
        wire.refuse(send, ErrorCode.OVERLOADED)
        (key,) = [key for key in wire.timers if isinstance(key, tuple) and key[0] == "retry"]
        assert wire.timers[key] == wire.now + delay_ms
        wire.fire(key)
    (send,) = wire.take(ListTopics)
    wire.refuse(send, ErrorCode.FORBIDDEN)
    assert [event.error.code for event in wire.owner.heard] == [ErrorCode.FORBIDDEN]


def test_a_deadline_names_what_happened_last() -> None:
    wire = Wire()
    wire.ask_gateway("nobody", timeout_ms=50)
    wire.fire(wire.serial(key="nobody"))
    wire.settled()
    wire.ask_gateway("busy", timeout_ms=50)
    wire.refuse(wire.take(ListTopics)[0], ErrorCode.OVERLOADED)
    wire.fire(wire.serial(key="busy"))
    first, second = wire.owner.heard
    assert first.error.code == second.error.code == ErrorCode.TIMED_OUT
    assert "no broker answers at tcp://127.0.0.1:1" in first.error.message
    assert "OVERLOADED" in second.error.message


def test_an_unknown_topic_is_waited_for_a_moment() -> None:
    wire = Wire()
    wire.greet()
    wire.ask()
    (metadata,) = wire.take(Metadata)
    wire.directory(metadata, 1, known=False)
    wire.fire(wire.timer("unknown"))
    (failed,) = wire.owner.heard
    assert failed.error.code == ErrorCode.UNKNOWN_TOPIC
    assert "unknown topic 'T'; create it with" in failed.error.message


def test_a_restarted_broker_starts_its_versions_again() -> None:
    wire = Wire().settled()
    wire.feed(Disconnected(DOOR))
    (hello,) = wire.take(Hello)
    wire.answer(hello, HelloReply(version=1, server="s", instance_id="other", run_directory="/r"))
    assert wire.topics.version is None
    assert wire.topics.partition_count("T") is None
    (metadata,) = wire.take(Metadata)
    assert metadata.request.after_version is None  # type: ignore[attr-defined]


def test_an_overfull_route_is_retried_and_a_missing_one_is_lost() -> None:
    wire = Wire().settled()
    wire.ask_gateway()
    (send,) = wire.take(ListTopics)
    wire.feed(Undeliverable(send.route, send.attempt, is_full=True))
    (key,) = [key for key in wire.timers if isinstance(key, tuple) and key[0] == "retry"]
    wire.fire(key)
    (send,) = wire.take(ListTopics)
    wire.feed(Undeliverable(send.route, send.attempt))
    assert len(wire.take(Hello)) == 1


def test_a_payload_that_no_receiver_takes_is_refused_unsent() -> None:
    wire = Wire().settled()
    limit = bytes(MAX_FRAME_BYTES)
    for payload in ((limit,), (b"x", limit + b"x"), (limit + b"x", b"x")):
        wire.feed(
            Submitted(wire.owner, Call(len(payload), GATEWAY, ListTopics(), payload=payload, **RETRIED))
        )
    assert len(wire.take(ListTopics)) == 1, "the one at the limit"
    refusals = [event.error for event in wire.owner.heard if isinstance(event, Failed)]
    assert [(error.code, error.retriable) for error in refusals] == [(ErrorCode.MESSAGE_TOO_LARGE, False)] * 2
    assert len(wire.exchange) == 1
    wire.feed(
        Submitted(wire.owner, Call(None, GATEWAY, ListTopics(), payload=(limit + b"x",), has_reply=False))
    )
    assert wire.exchange.cast(Cast(GATEWAY, ListTopics(), (limit + b"x",)), 0) == []
    assert wire.take(ListTopics) == []
    assert len(wire.owner.heard) == 2


def test_who_withdraws_hears_nothing() -> None:
    wire = Wire().settled()
    wire.ask_gateway()
    (send,) = wire.take(ListTopics)
    wire.feed(Withdrawn(wire.owner))
    wire.answer(send, ListTopicsReply(topics=[]))
    assert wire.owner.heard == []
    assert not [key for key in wire.timers if isinstance(key, int)]


def test_a_silent_gateway_is_connected_anew() -> None:
    wire = Wire()
    (first,) = wire.take(Hello)
    wire.fire("hello")
    (second,) = wire.take(Hello)
    assert first.route != second.route


def test_a_gateway_whose_connection_carries_nothing_is_connected_anew() -> None:
    wire = Wire().settled()
    wire.ask_gateway()
    wire.ask()
    (first,) = wire.take(ListTopics)
    (offsets,) = wire.take(ListOffsets)
    for silence_ms in (SILENCE_MS - 1, SILENCE_MS, SILENCE_MS + 1_000):
        wire.silence_ms = silence_ms
        wire.fire("refresh")
        assert wire.take(Hello) == []
    wire.silence_ms = SILENCE_MS + 2_000
    wire.fire("refresh")
    wire.silence_ms = None
    wire.greet()
    (again,) = wire.take(ListTopics)
    assert again.route != first.route
    wire.answer(again, ListTopicsReply(topics=[]))
    assert wire.take(ListOffsets) == [], "the partition's own connection is another one"
    wire.answer(offsets, ListOffsetsReply(offset=0, timestamp_ms=-1, topic_id="T"))
    assert [type(event) for event in wire.owner.heard] == [Answered, Answered]


def test_a_connection_is_kept_by_a_client_that_was_suspended_itself() -> None:
    wire = Wire().settled()
    for silence_ms in (60_000, 500, 60_000, SILENCE_MS, 500, 1_500):
        wire.silence_ms = silence_ms
        wire.fire("refresh")
    assert wire.take(Hello) == []


def test_a_gateway_that_does_not_know_the_connection_is_greeted_once_and_asked_again() -> None:
    wire = Wire().settled()
    wire.ask_gateway("first")
    wire.ask_gateway("second")
    sends = wire.take(ListTopics)
    assert [send.request.greeted for send in sends] == [True, True]
    for send in sends:
        wire.refuse(send, ErrorCode.HELLO_REQUIRED)
    (hello,) = wire.take(Hello)
    assert hello.route == sends[0].route
    wire.answer(hello, HelloReply(version=1, server="s", instance_id="i", run_directory="/r"))
    for key in [key for key in wire.timers if isinstance(key, tuple) and key[0] == "retry"]:
        wire.fire(key)
    for send in wire.take(ListTopics):
        wire.answer(send, ListTopicsReply(topics=[]))
    assert [type(event) for event in wire.owner.heard] == [Answered, Answered]


def test_a_poll_on_a_connection_that_is_not_known_has_it_greeted() -> None:
    wire = Wire().settled()
    wire.fire("refresh")
    (metadata,) = wire.take(Metadata)
    assert metadata.request.greeted is True
    wire.refuse(metadata, ErrorCode.HELLO_REQUIRED)
    assert len(wire.take(Hello)) == 1


def test_a_partition_is_told_of_no_greeting() -> None:
    wire = Wire().settled()
    wire.ask()
    (send,) = wire.take(ListOffsets)
    assert send.request.greeted is UNSET


def test_a_long_poll_that_gets_lost_is_replaced() -> None:
    wire = Wire().settled()
    wire.ask()
    wire.take(ListOffsets)
    wire.feed(Disconnected("ipc://T.1"))
    (poll,) = wire.take(Metadata)
    wire.fire(wire.serial(attempt=poll.attempt))
    (again,) = wire.take(Metadata)
    wire.directory(again, 4, incarnation=2)
    assert len(wire.take(ListOffsets)) == 1


def test_an_unreadable_answer_is_a_refusal() -> None:
    wire = Wire().settled()
    wire.feed(
        Submitted(wire.owner, Call("k", GATEWAY, Status(), StatusReply, is_retried=True, timeout_ms=30_000))
    )
    (send,) = wire.take(Status)
    wire.answer(send, ListTopicsReply(topics=[]))
    assert [event.error.code for event in wire.owner.heard] == [ErrorCode.INVALID_REQUEST]


def test_a_receipt_tells_whether_an_attempt_has_left() -> None:
    wire = Wire()
    receipt = Receipt()
    ask = Call(
        "k",
        Address.parse("partition/T/0"),
        OFFSETS,
        ListOffsetsReply,
        receipt=receipt,
        is_retried=True,
        timeout_ms=30_000,
    )
    assert not receipt.is_unsent, "nobody keeps it yet"
    wire.feed(Submitted(wire.owner, ask))
    assert receipt.is_unsent, "held: there is no session"


def test_patience_ends_what_is_held_and_lets_what_is_under_way_finish() -> None:
    wire = Wire()
    ask = Call(
        "k", GATEWAY, ListTopics(), ListTopicsReply, timeout_ms=5_000, retry_timeout_ms=100, is_retried=True
    )
    wire.feed(Submitted(wire.owner, ask))
    wire.fire(wire.timer("retry_timeout"))
    (failed,) = wire.owner.heard
    assert failed.error.code == ErrorCode.TIMED_OUT


def test_an_attempt_that_the_socket_did_not_take_has_not_left() -> None:
    wire = Wire().settled()
    receipt = Receipt()
    wire.ask_gateway(receipt=receipt, is_retried=False)
    (send,) = wire.take(ListTopics)
    assert not receipt.is_unsent
    wire.feed(Undeliverable(send.route, send.attempt, is_full=True))
    (failed,) = wire.owner.heard
    assert failed.error.code == ErrorCode.OVERLOADED
    assert receipt.is_unsent


def test_metadata_that_was_lost_with_its_connection_is_requested_by_the_next_session_alone() -> None:
    wire = Wire().settled()
    wire.fire("refresh")
    assert len(wire.take(Metadata)) == 1
    wire.feed(Disconnected(DOOR))
    assert "ask_again" not in wire.timers
    wire.greet()
    assert len(wire.take(Metadata)) == 1


def test_a_topic_without_a_right_is_refused_and_keeps_no_other_from_being_found() -> None:
    wire = Wire().settled()
    wire.feed(Wanted("SECRET"))
    wire.feed(Wanted("OPEN"))
    for together in wire.take(Metadata):
        wire.refuse(together, ErrorCode.FORBIDDEN)
    alone = {send.request.topics[0]: send for send in wire.take(Metadata)}  # type: ignore[attr-defined]
    assert list(alone) == ["T", "SECRET", "OPEN"]
    secret = Address.parse("partition/SECRET/0")
    wire.feed(Submitted(wire.owner, Call("k", secret, OFFSETS, ListOffsetsReply, **RETRIED)))
    assert wire.owner.heard == []
    wire.refuse(alone["SECRET"], ErrorCode.FORBIDDEN)
    (failed,) = wire.owner.heard
    assert failed.error.code == ErrorCode.FORBIDDEN
    for topic in ("T", "OPEN"):
        known = TopicMetadata(topic=topic, topic_id=topic, max_message_bytes=1, partitions=[])
        wire.answer(alone[topic], MetadataReply(version=2, instance_id="i", topics=[known]))
    assert wire.topics.version == 1, "something may have changed between the answers"
    (together,) = wire.take(Metadata)
    assert together.request.topics == ["T", "OPEN"]  # type: ignore[attr-defined]
    wire.feed(Submitted(wire.owner, Call("k", secret, OFFSETS, ListOffsetsReply, **RETRIED)))
    assert len(wire.owner.heard) == 2, "it is refused at once"
    assert not wire.take(Metadata)
    wire.now += 1_000
    wire.feed(Submitted(wire.owner, Call("k", secret, OFFSETS, ListOffsetsReply, **RETRIED)))
    (again,) = wire.take(Metadata)
    assert again.request.topics == ["T", "OPEN", "SECRET"]  # type: ignore[attr-defined]

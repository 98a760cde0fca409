"""Target of each request, and its outcome when the target is down."""

import os

import pytest

from gateway_driver import GatewayDriver
from planaria.actors.gateway.controller_calls import CONTROLLER_TIMEOUT_MS
from planaria.actors.gateway.keys import WaitTimer
from planaria.transport.batch import build
from planaria.transport.protocol.data import Fetch, InitProducer, ListOffsets, Produce, Publish
from planaria.transport.protocol.delayed import ListScheduled
from planaria.transport.protocol.groups import CommitOffsets, DeleteGroup, GroupHeartbeat, ListGroups
from planaria.transport.protocol.message import Done, Request
from planaria.transport.protocol.operations import Kill, KillReply, Revive, Status
from planaria.transport.protocol.session import Hello, Metadata
from planaria.transport.protocol.topics import (
    AlterTopic,
    CatalogTopic,
    CreateTopic,
    DeleteRecords,
    DeleteTopic,
    DescribeTopic,
    ListTopics,
)


@pytest.fixture
def gateway() -> GatewayDriver:
    return GatewayDriver().start(ORDERS=2)


def produce(topic: str = "ORDERS", partition: int = 0, acks: object = "all") -> Produce:
    return Produce(topic=topic, partition=partition, acks=acks)  # type: ignore[arg-type]


def fetch(topic: str = "ORDERS", partition: int = 0, **options: object) -> Fetch:
    return Fetch(topic=topic, partition=partition, **{"offset": 0, **options})  # type: ignore[arg-type]


DATA = [
    produce(),
    fetch(),
    ListOffsets(topic="ORDERS", partition=0, at="latest"),
    DeleteRecords(topic="ORDERS", partition=0, before_offset=-1),
]


@pytest.mark.parametrize("request_", DATA)
@pytest.mark.parametrize("as_json", [False, True])
def test_data_goes_to_its_partition_and_back_untouched(
    gateway: GatewayDriver, request_: Request, as_json: bool
) -> None:
    number = gateway.ask(request_, b"payload", as_json=as_json)
    (call,) = gateway.calls
    assert (call.address, call.payload, call.reply_type) == ("partition/ORDERS/0", (b"payload",), None)
    assert isinstance(call.request, bytes)
    assert (call.request[:1] == b"{") == as_json
    gateway.answer(b"raw answer", b"frame")
    assert (gateway.replies[number], gateway.payloads[number]) == (b"raw answer", (b"frame",))


@pytest.mark.parametrize(
    "request_",
    [
        CreateTopic(topic="X"),
        AlterTopic(topic="X"),
        DeleteTopic(topic="X"),
        DescribeTopic(topic="X"),
        ListTopics(),
        InitProducer(),
        ListGroups(),
        DeleteGroup(group="g"),
    ],
)
def test_administration_goes_to_the_controller(gateway: GatewayDriver, request_: Request) -> None:
    number = gateway.ask(request_)
    assert gateway.calls[0].address == "controller"
    gateway.fail("ACTOR_UNAVAILABLE")
    assert gateway.replies[number].retriable


@pytest.mark.parametrize("request_", [Status(), Kill(address="controller"), Revive(address="x")])
def test_operations_go_to_the_supervisor(gateway: GatewayDriver, request_: Request) -> None:
    number = gateway.ask(request_, as_json=True)
    (call,) = gateway.calls
    assert (call.address, type(call.request)) == ("supervisor", type(request_))
    answer = KillReply(pid=1, incarnation=2) if isinstance(request_, Kill) else Done()
    gateway.answer(answer)
    assert gateway.replies[number] is answer


@pytest.mark.parametrize("signal", ["SIGKILL", "SIGSTOP"])
def test_a_gateway_that_is_to_kill_itself_answers_first(signal: str) -> None:
    gateway = GatewayDriver(incarnation=3).start(ORDERS=1)
    number = gateway.ask(Kill(address="gateway/0", signal=signal))  # type: ignore[arg-type]
    assert (gateway.replies[number].pid, gateway.replies[number].incarnation) == (os.getpid(), 3)
    (cast,) = gateway.casts
    assert (cast.address, cast.request) == ("supervisor", Kill(address="gateway/0", signal=signal))  # type: ignore[arg-type]


def test_hello(gateway: GatewayDriver) -> None:
    reply = gateway.reply(Hello(client_id="c"))
    assert (reply.version, reply.instance_id, reply.run_directory) == (1, "run", "/nowhere/run")
    assert reply.server.startswith("planaria/")
    refusal = gateway.reply(Hello(version=2))
    assert refusal.code == "UNSUPPORTED_VERSION"
    assert "version" in refusal.message


def test_a_partition_that_is_down_is_named_with_its_reason(gateway: GatewayDriver) -> None:
    gateway.down("partition/ORDERS/0", "killed by SIGKILL")
    reply = gateway.reply(produce())
    assert (reply.code, reply.retriable) == ("PARTITION_OFFLINE", True)
    assert "killed by SIGKILL" in reply.message
    gateway.up("partition/ORDERS/0")
    gateway.ask(produce())
    assert len(gateway.calls) == 1


def test_a_quarantine_is_named(gateway: GatewayDriver) -> None:
    gateway.down("partition/ORDERS/0", "disk gone", quarantined=True)
    assert "quarantined: disk gone" in gateway.reply(fetch()).message


def test_late_news_of_a_predecessor_changes_nothing(gateway: GatewayDriver) -> None:
    gateway.down("partition/ORDERS/0")
    gateway.up("partition/ORDERS/0")
    gateway._incarnations["partition/ORDERS/0"] = 1
    gateway.down("partition/ORDERS/0")
    gateway.ask(produce())
    assert len(gateway.calls) == 1


@pytest.mark.parametrize("request_", DATA)
def test_unknown_topics_and_partitions(gateway: GatewayDriver, request_: Request) -> None:
    for field, value, code in (("topic", "NOPE", "UNKNOWN_TOPIC"), ("partition", 2, "UNKNOWN_PARTITION")):
        changed = {name: getattr(request_, name) for name in request_.__struct_fields__} | {field: value}
        assert gateway.reply(type(request_)(**changed)).code == code
    changed["partition"] = -1
    assert gateway.reply(type(request_)(**changed)).code == "UNKNOWN_PARTITION"
    assert gateway.calls == []


def test_a_topic_the_gateway_has_not_heard_of_is_asked_for(gateway: GatewayDriver) -> None:
    gateway.hold_topics(ORDERS=2, NEW=1)
    number = gateway.ask(produce("NEW"))
    assert gateway.asked == 1
    assert number not in gateway.replies, "its partition may be starting"
    gateway.up("partition/NEW/0")
    assert [call.address for call in gateway.calls] == ["partition/NEW/0"]
    assert WaitTimer(number) not in gateway.timers


def test_a_partition_that_never_comes_up_is_waited_for_a_while(gateway: GatewayDriver) -> None:
    gateway.set_topics(ORDERS=3)
    number = gateway.ask(produce(partition=2))
    assert number not in gateway.replies
    gateway.advance(5_000)
    assert gateway.replies[number].code == "PARTITION_OFFLINE"


def test_a_partition_that_fails_to_start_is_not_waited_for(gateway: GatewayDriver) -> None:
    gateway.set_topics(ORDERS=3)
    number = gateway.ask(produce(partition=2))
    gateway.down("partition/ORDERS/2", "crashed")
    assert "crashed" in gateway.replies[number].message


def test_questions_are_asked_together(gateway: GatewayDriver) -> None:
    gateway.controller_answers = False
    before = [gateway.ask(produce("NEW")) for _ in range(3)]
    assert gateway.asked == 1
    gateway.hold_topics(ORDERS=2, NEW=1)
    late = gateway.ask(produce("NEW"))
    gateway.answer(gateway._table())
    assert gateway.asked == 1 or late not in gateway.replies
    assert all(number not in gateway.replies for number in before)


def test_without_a_controller_known_topics_are_served(gateway: GatewayDriver) -> None:
    gateway.controller_answers = False
    gateway.down("controller")
    gateway.ask(produce())
    assert gateway.calls.pop().address == "partition/ORDERS/0"
    number = gateway.ask(produce("NEW"))
    gateway.advance(CONTROLLER_TIMEOUT_MS)
    assert (gateway.replies[number].code, gateway.replies[number].retriable) == ("ACTOR_UNAVAILABLE", True)


WAITING = [
    CreateTopic(topic="X"),
    ListGroups(),
    Metadata(topics=["NEW"]),
    produce("NEW"),
    GroupHeartbeat(group="g", topics=["ORDERS"], owned={}),
    InitProducer(transactional_id="x"),
    ListScheduled(),
]
"""Each needs the controller, in a different way."""


@pytest.mark.parametrize("request_", WAITING)
@pytest.mark.parametrize("was_there", [False, True])
def test_what_needs_the_controller_waits_until_it_is_up(request_: Request, was_there: bool) -> None:
    """A new gateway may receive a request before the controller's PeerUp; clients cannot tell it from a restart."""
    gateway = GatewayDriver().start(ORDERS=1) if was_there else GatewayDriver()
    gateway.controller_answers = False
    if was_there:
        gateway.down("controller")
    number = gateway.ask(request_)
    gateway.advance(CONTROLLER_TIMEOUT_MS - 1)
    assert number not in gateway.replies
    assert [call for call in gateway.calls if call.address == "controller"] == []
    gateway.up("controller")
    assert len([call for call in gateway.calls if call.address == "controller"]) == 1
    gateway.advance(1)
    assert number not in gateway.replies, "its time was over when the controller came"


@pytest.mark.parametrize("request_", WAITING)
def test_nothing_waits_for_a_controller_that_is_quarantined(request_: Request) -> None:
    gateway = GatewayDriver().start(ORDERS=1)
    gateway.down("controller")
    number = gateway.ask(request_)
    gateway.down("controller", "again and again", quarantined=True)
    assert gateway.replies[number].code == "ACTOR_UNAVAILABLE"
    assert "again and again" in gateway.replies[number].message


def test_the_watch_waits_for_the_next_controller_by_itself(gateway: GatewayDriver) -> None:
    assert gateway.watch.is_endless
    gateway.down("controller")
    gateway.up("controller")
    assert gateway.is_watching, "there is one, and no second one was made"


def test_news_of_a_deletion_after_the_successor_is_up_does_not_hide_it(gateway: GatewayDriver) -> None:
    gateway.down("partition/ORDERS/0", "stopped")
    gateway.down("partition/ORDERS/1", "stopped")
    gateway.up("partition/ORDERS/0")
    gateway.set_topics(CatalogTopic("ORDERS", "another", 1, 1_000))
    gateway.ask(produce())
    assert [call.address for call in gateway.calls] == ["partition/ORDERS/0"]


def test_a_topic_created_again_is_starting_and_not_down(gateway: GatewayDriver) -> None:
    gateway.set_topics()
    gateway.down("partition/ORDERS/0", "stopped")
    gateway.set_topics(ORDERS=1)
    number = gateway.ask(produce())
    assert number not in gateway.replies
    gateway.up("partition/ORDERS/0")
    assert len(gateway.calls) == 1


def test_internal_topics_can_be_read_only(gateway: GatewayDriver) -> None:
    gateway.set_topics(__offsets=1)
    gateway.up("partition/__offsets/0")
    gateway.ask(fetch("__offsets"))
    assert gateway.calls.pop().address == "partition/__offsets/0"
    forbidden = [
        produce("__offsets"),
        DeleteRecords(topic="__offsets", partition=0, before_offset=-1),
        Publish(topic="__offsets", records=[{"value": b"x"}]),  # type: ignore[list-item]
    ]
    for request in forbidden[:2]:
        assert gateway.reply(request).code == "FORBIDDEN"
    gateway.ask(produce("__offsets", acks=0))
    assert gateway.casts == []


def test_unacknowledged_batches_are_cast(gateway: GatewayDriver) -> None:
    for partition in (0, 1, 2, -1):
        gateway.ask(produce(partition=partition, acks=0), b"batch")
    gateway.ask(produce("NOPE", acks=0), b"batch")
    assert [(cast.address, cast.payload) for cast in gateway.casts] == [
        ("partition/ORDERS/0", (b"batch",)),
        ("partition/ORDERS/1", (b"batch",)),
    ]
    assert (gateway.replies, gateway.calls) == ({}, [])


def batch(*values: bytes) -> bytes:
    records = [(b"k", value, 0, {"a": "b"}) for value in values]
    return build(records, first_timestamp_ms=5, max_timestamp_ms=5)


def test_a_fetch_waits_as_long_as_it_may(gateway: GatewayDriver) -> None:
    gateway.ask(fetch(max_wait_ms=60_000))
    assert gateway.calls[0].timeout_ms > 60_000


def test_stop_cuts_reads_and_waits_for_writes(gateway: GatewayDriver) -> None:
    reading, writing = gateway.ask(fetch(max_wait_ms=60_000)), gateway.ask(produce(partition=1))
    polling = gateway.ask(Metadata(after_version=2**60, max_wait_ms=60_000))
    assert gateway.replies.pop(polling)
    gateway.stop()
    assert gateway.replies[reading].code == "SHUTTING_DOWN"
    assert gateway.reply(produce()).code == "SHUTTING_DOWN"
    assert not gateway.stopped
    gateway.answer(b"done", call=gateway.calls[1])
    assert gateway.replies[writing] == b"done"
    assert gateway.stopped


def test_stop_waits_for_no_request_that_waits_for_its_actor(gateway: GatewayDriver) -> None:
    """No coordinator starts here any more, while another node may take the request at once."""
    waiting = gateway.ask(CommitOffsets(group="g", offsets=[]))
    writing = gateway.ask(produce(partition=1))
    assert waiting not in gateway.replies
    gateway.stop()
    assert gateway.replies[waiting].code == "SHUTTING_DOWN"
    assert not gateway.stopped
    gateway.answer(b"done", call=gateway.calls[-1])
    assert gateway.replies[writing] == b"done"
    assert gateway.stopped


def test_a_request_whose_actor_turns_out_to_be_missing_during_a_stop_does_not_wait(
    gateway: GatewayDriver,
) -> None:
    gateway.controller_answers = False
    asking = gateway.ask(produce("NEW"))
    gateway.stop()
    assert not gateway.stopped
    gateway.hold_topics(ORDERS=2, NEW=1)
    gateway.answer(gateway._table())
    assert gateway.replies[asking].code == "SHUTTING_DOWN"
    assert gateway.stopped


def test_stop_does_not_wait_for_ever(gateway: GatewayDriver) -> None:
    number = gateway.ask(produce())
    gateway.stop(within_ms=1_000)
    gateway.advance(900)
    assert gateway.replies[number].code == "SHUTTING_DOWN"
    assert gateway.stopped


def test_stop_with_nothing_open(gateway: GatewayDriver) -> None:
    gateway.stop()
    assert gateway.stopped

"""Group requests: to the coordinator, once there is one."""

import pytest

from gateway_driver import GatewayDriver
from planaria.actors.gateway.keys import WaitTimer
from planaria.transport.addresses import Address
from planaria.transport.machine import Disconnected, PeersAsleep
from planaria.transport.protocol.control import EnsureGroup
from planaria.transport.protocol.data import Fetch
from planaria.transport.protocol.groups import (
    CommitOffsets,
    DescribeGroup,
    FetchOffsets,
    GroupHeartbeat,
    LeaveGroup,
    MemberGone,
    ResetOffsets,
)
from planaria.transport.protocol.message import Done, Request
from planaria.transport.protocol.session import Cancel, Metadata
from planaria.transport.protocol.shares import Acquire, ConfigureShareGroup

HEARTBEAT = GroupHeartbeat(group="g", topics=["ORDERS"])
CREATING = [HEARTBEAT, CommitOffsets(group="g", offsets=[])]
LOOKING = [
    FetchOffsets(group="g"),
    DescribeGroup(group="g"),
    LeaveGroup(group="g", member_id="m"),
    ResetOffsets(group="g", offsets=[]),
]


@pytest.fixture
def gateway() -> GatewayDriver:
    return GatewayDriver().start(ORDERS=1)


@pytest.mark.parametrize("request_", CREATING + LOOKING)
def test_to_a_coordinator_that_is_up(gateway: GatewayDriver, request_: Request) -> None:
    gateway.up("coordinator/g")
    number = gateway.ask(request_)
    (call,) = gateway.calls
    assert (call.address, call.reply_type) == ("coordinator/g", None)
    gateway.answer(b"raw")
    assert gateway.replies[number] == b"raw"


def test_a_parked_heartbeat_may_take_its_time(gateway: GatewayDriver) -> None:
    gateway.up("coordinator/g")
    gateway.ask(GroupHeartbeat(group="g", max_wait_ms=30_000))
    assert gateway.calls[0].timeout_ms > 30_000


@pytest.mark.parametrize("request_", CREATING)
def test_a_group_is_created_by_joining_and_by_committing(gateway: GatewayDriver, request_: Request) -> None:
    number = gateway.ask(request_)
    (call,) = gateway.calls
    assert (call.address, call.request) == ("controller", EnsureGroup(group="g", create=True))
    gateway.answer(Done())
    assert gateway.calls == []
    gateway.up("coordinator/g")
    assert [call.address for call in gateway.calls] == ["coordinator/g"]
    gateway.answer(b"joined")
    assert gateway.replies[number] == b"joined"
    assert WaitTimer(number) not in gateway.timers


def test_the_coordinator_may_be_up_before_the_controller_says_so(gateway: GatewayDriver) -> None:
    gateway.ask(HEARTBEAT)
    gateway.up("coordinator/g")
    gateway.answer(Done())
    assert [call.address for call in gateway.calls] == ["coordinator/g"]


@pytest.mark.parametrize("request_", LOOKING)
def test_looking_creates_nothing(gateway: GatewayDriver, request_: Request) -> None:
    number = gateway.ask(request_)
    assert gateway.calls[0].request == EnsureGroup(group="g", create=False)
    gateway.fail("UNKNOWN_GROUP")
    if isinstance(request_, FetchOffsets):
        assert gateway.replies[number].offsets == []
    else:
        assert gateway.replies[number].code == "UNKNOWN_GROUP"


def test_the_controller_is_asked_once_for_many(gateway: GatewayDriver) -> None:
    joining = [gateway.ask(HEARTBEAT) for _ in range(3)]
    looking = [gateway.ask(LOOKING[1]) for _ in range(3)]
    assert len(gateway.calls) == 2
    gateway.fail("UNKNOWN_GROUP", call=gateway.calls[1])
    assert all(gateway.replies[number].code == "UNKNOWN_GROUP" for number in looking)
    assert all(number not in gateway.replies for number in joining)
    gateway.answer(Done())
    gateway.up("coordinator/g")
    assert len(gateway.calls) == 3


def test_a_configuration_that_creates_no_group_fails_alone(gateway: GatewayDriver) -> None:
    joining = gateway.ask(HEARTBEAT)
    configuring = gateway.ask(ConfigureShareGroup(group="g", dead_letter="NONE"))
    assert gateway.calls[1].request == EnsureGroup(group="g", create=True, dead_letter="NONE")
    gateway.fail("UNKNOWN_TOPIC", call=gateway.calls[1])
    assert gateway.replies[configuring].code == "UNKNOWN_TOPIC"
    assert joining not in gateway.replies


def test_a_coordinator_that_died_is_waited_for(gateway: GatewayDriver) -> None:
    gateway.up("coordinator/g")
    gateway.down("coordinator/g")
    number = gateway.ask(HEARTBEAT)
    gateway.answer(Done())
    gateway.up("coordinator/g")
    assert [call.address for call in gateway.calls] == ["coordinator/g"]
    assert number not in gateway.replies


def test_patience_ends(gateway: GatewayDriver) -> None:
    number = gateway.ask(HEARTBEAT)
    gateway.answer(Done())
    gateway.advance(10_000)
    reply = gateway.replies[number]
    assert (reply.code, reply.retriable) == ("ACTOR_UNAVAILABLE", True)


def test_a_quarantined_coordinator_is_not_waited_for(gateway: GatewayDriver) -> None:
    gateway.up("coordinator/g")
    waiting = None
    gateway.down("coordinator/g", "crashed")
    waiting = gateway.ask(HEARTBEAT)
    gateway.down("coordinator/g", "crashed too often", quarantined=True)
    assert "crashed too often" in gateway.replies[waiting].message
    assert "quarantined" in gateway.reply(HEARTBEAT).message


def test_without_a_controller_the_error_is_retriable(gateway: GatewayDriver) -> None:
    number = gateway.ask(HEARTBEAT)
    gateway.fail("ACTOR_UNAVAILABLE")
    assert gateway.replies[number].retriable
    assert WaitTimer(number) not in gateway.timers


def test_a_bad_group_name_is_the_controllers_to_refuse(gateway: GatewayDriver) -> None:
    number = gateway.ask(GroupHeartbeat(group="a/b", topics=["ORDERS"]))
    gateway.fail("INVALID_GROUP")
    assert gateway.replies[number].code == "INVALID_GROUP"


ACQUIRE = Acquire(group="g", topics=["ORDERS"], member_id="m", max_wait_ms=30_000)
WAITING = [
    GroupHeartbeat(group="g", max_wait_ms=30_000),
    ACQUIRE,
    Fetch(topic="ORDERS", partition=0, offset=0, max_wait_ms=30_000),
    Metadata(topics=["ORDERS"], after_version=(1 << 32) + 1_000, max_wait_ms=30_000),
]


@pytest.mark.parametrize("request_", WAITING)
def test_what_a_lost_connection_asked_waits_nowhere(gateway: GatewayDriver, request_: Request) -> None:
    gateway.up("coordinator/g")
    gateway.up("partition/ORDERS/0")
    number = gateway.ask(request_, client=b"gone")
    gateway.give(Disconnected(b"other"))
    assert gateway.cancelled == []
    gateway.give(Disconnected(b"gone"))
    assert [call for call in gateway.calls if not isinstance(call.request, MemberGone)] == []
    gateway.advance(60_000)
    assert isinstance(request_, Metadata) or number not in gateway.replies
    gateway.stop()
    assert gateway.stopped


def test_a_request_that_waits_for_its_coordinator_is_not_sent_for_a_lost_connection(
    gateway: GatewayDriver,
) -> None:
    gateway.ask(ACQUIRE, client=b"gone")
    gateway.give(Disconnected(b"gone"))
    gateway.answer(Done())
    gateway.up("coordinator/g")
    assert gateway.calls == []


def test_a_cancelled_request_is_cancelled_alone(gateway: GatewayDriver) -> None:
    gateway.up("coordinator/g")
    first, second = gateway.ask(ACQUIRE), gateway.ask(ACQUIRE)
    gateway.ask(Cancel(request_id=first))
    assert len(gateway.calls) == 1
    gateway.answer(b"raw")
    assert gateway.replies == {second: b"raw"}


def test_a_share_groups_member_ends_with_the_connection_it_spoke_by_last(gateway: GatewayDriver) -> None:
    gateway.up("coordinator/g")
    gateway.ask(ACQUIRE, client=b"first")
    gateway.ask(ACQUIRE, client=b"second")
    for _ in range(2):
        gateway.answer(b"raw")
    gateway.give(Disconnected(b"first"))
    assert gateway.calls == []
    gateway.give(Disconnected(b"second"))
    (notice,) = gateway.calls
    gone = MemberGone(group="g", member_id="m", connection=b"second")
    assert (notice.address, notice.request, notice.is_retried) == ("coordinator/g", gone, True)
    gateway.answer(Done())
    assert gateway.calls == []


def test_a_lost_member_wakes_no_coordinator(gateway: GatewayDriver) -> None:
    gateway.up("coordinator/g")
    gateway.ask(ACQUIRE, client=b"gone")
    gateway.answer(b"raw")
    gateway.down("coordinator/g", "no work", asleep=True)
    gateway.give(Disconnected(b"gone"))
    assert gateway.calls == []


@pytest.mark.parametrize("request_", CREATING + LOOKING)
def test_to_a_coordinator_that_sleeps(gateway: GatewayDriver, request_: Request) -> None:
    gateway.up("coordinator/g")
    gateway.down("coordinator/g", "no work", asleep=True)
    number = gateway.ask(request_)
    (call,) = gateway.calls
    assert call.address == "coordinator/g", "the call wakes it"
    gateway.answer(b"raw")
    assert gateway.replies[number] == b"raw"


def test_what_waits_goes_on_when_its_coordinator_is_found_asleep(gateway: GatewayDriver) -> None:
    gateway.ask(HEARTBEAT)
    gateway.answer(Done())
    gateway.give(PeersAsleep(addresses=[Address.parse("coordinator/other"), Address.parse("coordinator/g")]))
    (call,) = gateway.calls
    assert call.address == "coordinator/g"


def test_an_unavailable_one_is_not_taken_for_asleep(gateway: GatewayDriver) -> None:
    gateway.give(PeersAsleep(addresses=[Address.parse("coordinator/g")]))
    gateway.down("coordinator/g", "no room", quarantined=True)
    assert gateway.reply(HEARTBEAT).code == "ACTOR_UNAVAILABLE"

"""Markers in flight: repeats, completion, and isolation of one participant's trouble from the others."""

from typing import Any

import msgspec
import pytest

from planaria.actors.journal.appender import AppendCall
from planaria.actors.transactions.markers import LATER_MS
from planaria.transport.batch import marker
from planaria.transport.machine import Call, PeerUp
from planaria.transport.protocol.control import EnsureGroup
from planaria.transport.protocol.errors import ErrorBody, ErrorCode
from planaria.transport.protocol.groups import CommitOffsets
from planaria.transport.protocol.message import Request
from planaria.transport.protocol.transactions import (
    MAX_PARTICIPANTS,
    AddToTransaction,
    EndTransaction,
)
from simulated_transactions import SimulatedTransactions, identity

T0 = "partition/T/0"
DOWN = ErrorBody(ErrorCode.ACTOR_UNAVAILABLE, "coordinator/billing is not running", True)


@pytest.fixture
def coordinator() -> SimulatedTransactions:
    return SimulatedTransactions()


def ask_to_end(coordinator: SimulatedTransactions, who: tuple[int, int], **participants: Any) -> None:
    """End a transaction, decided and durable; the markers are in flight."""
    number = coordinator.ask(
        EndTransaction(producer_id=who[0], producer_epoch=who[1], commit=True, **participants)
    )
    while number not in coordinator.replies:
        coordinator.answer(
            next(call for call in coordinator.answerable() if isinstance(call.key, AppendCall))
        )


def to(coordinator: SimulatedTransactions, address: str) -> Call:
    (call,) = [call for call in coordinator.answerable() if call.address == address]
    return call


def states(coordinator: SimulatedTransactions) -> dict[str, str]:
    return {
        name: entry.state
        for name, entry in coordinator.machine.service._requests.decided.transactions.items()
    }


def test_a_marker_that_is_refused_is_alone_in_that(coordinator: SimulatedTransactions) -> None:
    first, *others = [coordinator.begin(name) for name in ("first", "a", "b", "c")]
    ask_to_end(coordinator, first, partitions={"T": [0]})
    for who in others:
        ask_to_end(coordinator, who, partitions={"T": [0, 1]})
    refused = others[1]
    coordinator.refused.add(refused)
    coordinator.drain()
    assert states(coordinator)["first"] == "CompleteCommit"
    coordinator.advance(LATER_MS)
    told = {who for who in (first, *others) if (T0, True) in coordinator.told(who)}
    assert told == {first, others[0], others[2]}
    assert "b" not in [name for name, state in states(coordinator).items() if state != "PrepareCommit"]
    coordinator.refused.clear()
    coordinator.advance(LATER_MS)
    assert (T0, True) in coordinator.told(refused)
    assert set(states(coordinator).values()) == {"CompleteCommit"}


def test_who_comes_after_a_refused_one_is_told(coordinator: SimulatedTransactions) -> None:
    refused, later = coordinator.begin("x"), coordinator.begin("y")
    coordinator.refused.add(refused)
    ask_to_end(coordinator, refused, partitions={"T": [0]})
    coordinator.drain()
    ask_to_end(coordinator, later, partitions={"T": [0]})
    coordinator.advance(3 * LATER_MS)
    assert coordinator.told(later) == {(T0, True)}
    assert coordinator.told(refused) == set()


def test_a_partition_that_the_topic_never_had_is_not_waited_for(coordinator: SimulatedTransactions) -> None:
    who = coordinator.begin()
    ask_to_end(coordinator, who, partitions={"T": [0, 99]})
    coordinator.fail(to(coordinator, "partition/T/99"))
    coordinator.version += 1
    coordinator.drain()
    assert coordinator.told(who) == {(T0, True)}
    assert coordinator.states() == {"x": "CompleteCommit"}


def test_a_group_that_there_is_not_is_not_waited_for(coordinator: SimulatedTransactions) -> None:
    ask_to_end(coordinator, coordinator.begin(), groups=["billing"])
    coordinator.fail(to(coordinator, "coordinator/billing"), DOWN)
    asked = to(coordinator, "controller")
    assert asked.request == EnsureGroup(group="billing", create=False)
    coordinator.fail(asked, ErrorBody(ErrorCode.UNKNOWN_GROUP, "there is no group 'billing'", False))
    coordinator.drain()
    assert coordinator.states() == {"x": "CompleteCommit"}


@pytest.mark.parametrize("is_controller_up", [True, False])
def test_a_group_that_is_down_is_waited_for(
    coordinator: SimulatedTransactions, is_controller_up: bool
) -> None:
    who = coordinator.begin()
    ask_to_end(coordinator, who, groups=["billing"])
    for number in range(3):
        call = to(coordinator, "coordinator/billing")
        assert call.is_retried == (number > 0), "at first it is quick to find out that there is no such group"
        coordinator.fail(call, DOWN)
        if not is_controller_up:
            coordinator.fail(to(coordinator, "controller"))
            coordinator.handle(PeerUp("controller", number + 1, "tcp://x"))
        coordinator.answer(to(coordinator, "controller"))
        assert coordinator.told(who) == set()
    coordinator.drain()
    assert coordinator.told(who) == {("coordinator/billing", True)}


def test_a_partition_that_is_down_is_asked_again_when_it_is_up(coordinator: SimulatedTransactions) -> None:
    who = coordinator.begin()
    ask_to_end(coordinator, who, partitions={"T": [0]})
    coordinator.fail(to(coordinator, T0))
    assert coordinator.told(who) == set()
    coordinator.handle(PeerUp(T0, 2, "tcp://x"))
    coordinator.drain()
    assert coordinator.told(who) == {(T0, True)}


@pytest.mark.parametrize(
    ("partitions", "code"),
    [
        ({"T": [-1]}, ErrorCode.INVALID_REQUEST),
        ({"__offsets": [0]}, ErrorCode.FORBIDDEN),
        ({"T": list(range(MAX_PARTICIPANTS + 1))}, ErrorCode.INVALID_REQUEST),
    ],
)
def test_what_can_be_no_participant_is_refused(
    coordinator: SimulatedTransactions, partitions: dict[str, list[int]], code: ErrorCode
) -> None:
    who = coordinator.begin()
    for request in (
        AddToTransaction(producer_id=who[0], producer_epoch=who[1], partitions=partitions),
        EndTransaction(producer_id=who[0], producer_epoch=who[1], commit=True, partitions=partitions),
    ):
        assert coordinator.request(request).code == code
    assert coordinator.states() == {"x": "Empty"}
    assert identity(coordinator.end(who))[1] == who[1] + 1


@pytest.mark.parametrize("epoch", [-1, 2**15])
@pytest.mark.parametrize("kind", [AddToTransaction, EndTransaction, CommitOffsets])
def test_an_epoch_that_no_batch_can_have_is_refused(kind: type[Request], epoch: int) -> None:
    """A marker of it would be sent forever, to a partition that cannot write it."""
    fields = {"producer_id": 1 << 40, "producer_epoch": epoch, "commit": True, "group": "g", "offsets": []}
    asked = {name: value for name, value in fields.items() if name in kind.__struct_fields__}
    with pytest.raises(msgspec.ValidationError, match="producer_epoch"):
        msgspec.convert({"op": kind.__struct_config__.tag, **asked}, kind)
    asked["producer_epoch"] = 2**15 - 1
    assert msgspec.convert({"op": kind.__struct_config__.tag, **asked}, kind)
    assert marker(1 << 40, 2**15 - 1, False, 0)

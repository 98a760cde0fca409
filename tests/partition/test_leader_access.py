"""A follower reaches its leader's process without the links as soon as it can, and by the links as long as it cannot."""

from typing import Any

import pytest

from planaria.actors.partition.leader_access import (
    FIRST_PAUSE_MS,
    LONGEST_PAUSE_MS,
    LeaderAccess,
    ReachCall,
)
from planaria.actors.partition.timers import ReachAgain
from planaria.transport.addresses import leader_address, partition_address
from planaria.transport.machine import Answered, Call, Failed, PeerDown, PeerUp, SetTimer
from planaria.transport.protocol.errors import ErrorBody, ErrorCode
from planaria.transport.protocol.replication import Follow, ReachLeaderReply
from planaria.transport.request_context import NO_CONTEXT

FOLLOW = Follow(
    topic="T", topic_id="t1", partition=0, leader_epoch=3, leader="a", address=partition_address("T", 0)
)
LINKS, STRAIGHT = FOLLOW.address, leader_address("T", 0)
LOST = ErrorBody(ErrorCode.ACTOR_UNAVAILABLE, "lost", True)


def answered(access: LeaderAccess, number: int, endpoint: str, now: int = 0) -> list[Any]:
    return access.on_outcome(
        Answered(ReachCall(number), ReachLeaderReply(endpoint=endpoint)), number + 1, now
    )


def direct() -> LeaderAccess:
    access = LeaderAccess(FOLLOW, has_endpoint=True)
    access.ask(1)
    answered(access, 1, "tcp://a:9")
    answered(access, 2, "tcp://a:9")
    assert access.way == (STRAIGHT, NO_CONTEXT)
    return access


def test_the_endpoint_is_used_once_a_request_was_answered_there() -> None:
    access = LeaderAccess(FOLLOW, has_endpoint=True)
    [asked] = access.ask(1)
    assert isinstance(asked, Call)
    assert (asked.address, asked.context) == (LINKS, None)
    up, probe = answered(access, 1, "tcp://a:9")
    assert up == PeerUp(address=STRAIGHT, incarnation=2, endpoint="tcp://a:9")
    assert (probe.address, probe.context) == (STRAIGHT, NO_CONTEXT)
    assert access.way == (LINKS, None)
    assert answered(access, 2, "tcp://a:9") == []
    assert access.way == (STRAIGHT, NO_CONTEXT)
    assert access.ask(3) == []
    assert access.end() == [PeerDown(address=STRAIGHT, incarnation=2, reason="not followed")]


@pytest.mark.parametrize("is_direct", [False, True])
def test_without_an_answer_requests_go_by_the_links_and_the_pauses_grow(is_direct: bool) -> None:
    access = direct() if is_direct else LeaderAccess(FOLLOW, has_endpoint=True)
    pauses = []
    if is_direct:
        down, timer = access.on_failed(LOST, 0) or []
        assert isinstance(down, PeerDown)
        pauses.append(timer.at)
    for number in range(10, 24):
        access.ask(number)
        *_, timer = access.on_outcome(Failed(ReachCall(number), LOST), number, 0)
        assert isinstance(timer, SetTimer)
        assert timer.key == ReachAgain()
        pauses.append(timer.at)
        assert access.way == (LINKS, None)
    assert pauses[0] == FIRST_PAUSE_MS
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE_MS


def test_an_endpoint_behind_a_firewall_is_closed_again() -> None:
    access = LeaderAccess(FOLLOW, has_endpoint=True)
    access.ask(1)
    answered(access, 1, "tcp://a:9")
    down, _ = access.on_outcome(Failed(ReachCall(2), LOST), 3, 0)
    assert down == PeerDown(address=STRAIGHT, incarnation=2, reason="lost")
    assert len(access.ask(4)) == 1


def test_a_refusal_of_the_leader_itself_is_no_loss_of_the_connection() -> None:
    access = direct()
    assert access.on_failed(ErrorBody(ErrorCode.FENCED_LEADER_EPOCH, "old", True), 0) is None
    assert access.way == (STRAIGHT, NO_CONTEXT)


@pytest.mark.parametrize("has_endpoint", [False, True])
def test_replicas_without_endpoints_use_the_links(has_endpoint: bool) -> None:
    access = LeaderAccess(FOLLOW, has_endpoint=has_endpoint)
    assert bool(access.ask(1)) == has_endpoint
    if has_endpoint:
        assert answered(access, 1, "") == []
    assert access.ask(3) == []
    assert access.way == (LINKS, None)

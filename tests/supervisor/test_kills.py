"""Kills: performed at once, when the actor has a process, or refused with a way out."""

from typing import Any

import pytest

from planaria.supervisor.kills import WAIT_MS
from planaria.transport.addresses import Address
from planaria.transport.protocol.control import StartChild, StopChild
from planaria.transport.protocol.errors import ErrorBody
from planaria.transport.protocol.operations import Kill, KillReply
from supervision import World, broker_like, worker

PARTITION = "partition/T/0"


def starting() -> World:
    """Return a broker whose controller is ready, and whose gateway is not."""
    world = World(broker_like())
    world.ready("controller")
    return world


@pytest.fixture
def world() -> World:
    world = starting()
    world.ready("gateway/0", endpoint="tcp://127.0.0.1:4444")
    return world


def refusal(answer: Any) -> tuple[str, str]:
    assert isinstance(answer, ErrorBody)
    return answer.code, answer.message


def test_it_names_what_it_hit(world: World) -> None:
    answer = world.ask(Kill(address="controller", signal="SIGSTOP"))
    assert answer == KillReply(pid=101, incarnation=1)
    assert world.signals == [("controller", "SIGSTOP")]


def test_it_waits_for_the_process_of_an_actor_that_starts(world: World) -> None:
    addresses = [f"partition/T/{number}" for number in range(4)]
    for address in addresses:
        world.ask(StartChild(spec=worker(address)))  # two of them start at a time
    assert world.ask(Kill(address=addresses[2])) is None
    assert world.ask(Kill(address=addresses[3])) is None
    world.replies.clear()
    world.ready(addresses[0])
    assert world.signals == [(addresses[2], "SIGKILL")]
    (reply,) = world.replies
    assert reply.body == KillReply(pid=100 + len(world.launched), incarnation=1)
    world.replies.clear()
    world.ask(StopChild(address=Address.parse(addresses[3])))
    assert refusal(world.replies[-1].body) == ("ACTOR_UNAVAILABLE", "partition/T/3 is stopped")


def test_it_waits_for_the_restart_of_an_actor_that_has_crashed(world: World) -> None:
    world.die("controller")
    assert world.state("controller") == "backing_off"
    assert world.ask(Kill(address="controller")) is None
    world.replies.clear()
    world.pass_time(0)
    assert world.signals == [("controller", "SIGKILL")]
    assert isinstance(world.replies[0].body, KillReply)
    assert world.replies[0].body.incarnation == 2


def test_while_the_broker_starts_it_waits_for_an_actor_that_is_not_known_yet() -> None:
    world = starting()
    assert world.ask(Kill(address=PARTITION)) is None
    assert world.ask(Kill(address="partition/T/9")) is None
    world.replies.clear()
    world.ask(StartChild(spec=worker(PARTITION)))
    assert world.signals == [(PARTITION, "SIGKILL")]
    world.die(PARTITION, "killed by SIGKILL")
    world.pass_time(0)
    world.replies.clear()
    world.ready(PARTITION)
    world.ready("gateway/0", endpoint="tcp://127.0.0.1:4444")
    assert [refusal(each.body) for each in world.replies] == [
        ("UNKNOWN_ACTOR", "there is no actor 'partition/T/9'")
    ]


def test_one_that_has_waited_too_long_is_refused_and_never_performed(world: World) -> None:
    for number in range(3):
        world.ask(StartChild(spec=worker(f"partition/T/{number}")))
    third = "partition/T/2"
    assert world.ask(Kill(address=third)) is None
    world.replies.clear()
    world.pass_time(WAIT_MS - 1)
    assert not world.replies
    world.pass_time(1)
    code, message = refusal(world.replies[0].body)
    assert code == "ACTOR_UNAVAILABLE"
    assert message == "partition/T/2 has had no process for 8 s; no signal was sent"
    world.ready(PARTITION)
    assert third in world.processes
    assert not world.signals


def test_one_of_an_actor_that_has_no_process_and_will_have_none_says_what_starts_it(world: World) -> None:
    code, message = refusal(world.ask(Kill(address="nobody")))
    assert (code, message) == ("UNKNOWN_ACTOR", "there is no actor 'nobody'")
    world.ask(StartChild(spec=worker(PARTITION)))
    world.crash_until_quarantined(PARTITION)
    code, message = refusal(world.ask(Kill(address=PARTITION)))
    assert code == "ACTOR_UNAVAILABLE"
    assert message == "partition/T/0 is quarantined: `planaria revive` starts it"

"""Children that sleep: after an exit with 0, wake-ups, and the notifications of others."""

import pytest

from planaria.supervisor.capacity import Capacity
from planaria.transport.addresses import Address
from planaria.transport.protocol.control import PeerDown, PeersAsleep, StartChild, StopChild, Wake
from planaria.transport.protocol.message import Done, Request
from planaria.transport.protocol.operations import Revive
from supervision import World, broker_like, worker

GROUP = Address.parse("coordinator/g")


@pytest.fixture
def world() -> World:
    world = World(broker_like())
    world.ready("controller")
    world.ready("gateway/0")
    assert world.ask(StartChild(spec=worker(GROUP))) == Done()
    world.ready(GROUP)
    return world


def asleep(world: World) -> World:
    world.fall_asleep(GROUP)
    world.die(GROUP, "exit code 0")
    return world


def restarts(world: World) -> int:
    child = world.machine.tree.get(GROUP)
    assert child is not None
    return child.restarts


def test_who_said_so_is_not_started_again(world: World) -> None:
    asleep(world).pass_time(100_000)
    assert world.state(GROUP) == "asleep"
    assert world.launched.count(GROUP) == 1
    (*_, news) = world.news["gateway/0"]
    assert isinstance(news, PeerDown)
    assert news.asleep
    assert world.reason(GROUP) == "no work"


def test_waking_is_no_restart(world: World) -> None:
    asleep(world).ask(Wake(address=GROUP))
    assert world.state(GROUP) == "starting"
    assert world.processes[GROUP] == 2
    assert restarts(world) == 0
    world.ready(GROUP)
    world.die(GROUP)
    world.pass_time(10)
    assert restarts(world) == 1


@pytest.mark.parametrize("waker", [Wake(address=GROUP), StartChild(spec=worker(GROUP))])
def test_a_call_between_the_word_and_the_exit_is_not_forgotten(world: World, waker: Request) -> None:
    world.fall_asleep(GROUP)
    world.ask(waker)
    world.die(GROUP, "exit code 0")
    assert world.processes[GROUP] == 2
    downs = [news for news in world.news["gateway/0"] if isinstance(news, PeerDown)]
    assert downs[-1].asleep, "what it has not answered it has not done, whether it was called or not"


def test_an_operator_may_wake_it(world: World) -> None:
    assert asleep(world).ask(Revive(address=GROUP)).state == "asleep"
    assert world.processes[GROUP] == 2


def test_who_is_awake_is_not_woken(world: World) -> None:
    world.ask(Wake(address=GROUP))
    world.ask(Wake(address=Address.parse("coordinator/unknown")))
    world.ask(Wake(address=Address.parse("gateway/0")))
    assert world.processes[GROUP] == 1


def test_a_killed_one_did_not_sleep(world: World) -> None:
    world.fall_asleep(GROUP)
    world.die(GROUP, "killed by SIGKILL")
    world.pass_time(10)
    assert world.processes[GROUP] == 2
    (down,) = [news for news in world.news["gateway/0"] if isinstance(news, PeerDown)]
    assert not down.asleep


def test_an_exit_without_a_word_is_restarted(world: World) -> None:
    world.die(GROUP, "exit code 0")
    world.pass_time(10)
    assert world.processes[GROUP] == 2


def test_who_was_killed_after_waking_is_restarted(world: World) -> None:
    asleep(world).ask(Wake(address=GROUP))
    world.die(GROUP)
    world.pass_time(10)
    assert world.processes[GROUP] == 3
    (*_, down) = [news for news in world.news["gateway/0"] if isinstance(news, PeerDown)]
    assert not down.asleep


def test_a_child_that_is_added_asleep_has_no_process(world: World) -> None:
    assert world.ask(StartChild(spec=worker("coordinator/h"), is_asleep=True)) == Done()
    world.pass_time(1_000)
    assert world.state("coordinator/h") == "asleep"
    assert "coordinator/h" not in world.launched
    world.ask(StartChild(spec=worker(GROUP), is_asleep=True))
    assert world.state(GROUP) == "ready", "one that is there stays as it is"
    world.ask(Wake(address=Address.parse("coordinator/h")))
    assert world.processes["coordinator/h"] == 1


def test_a_newcomer_hears_at_once_of_all_who_sleep(world: World) -> None:
    asleep(world)
    for name in ("h", "i"):
        world.ask(StartChild(spec=worker(f"coordinator/{name}"), is_asleep=True))
    world.die("gateway/0")
    world.pass_time(10)
    world.news["gateway/0"].clear()
    world.ready("gateway/0")
    told = [news for news in world.news["gateway/0"] if isinstance(news, PeersAsleep)]
    assert told == [
        PeersAsleep(addresses=[GROUP, Address.parse("coordinator/h"), Address.parse("coordinator/i")])
    ]


def test_a_sleeper_can_be_stopped_for_good(world: World) -> None:
    assert asleep(world).ask(StopChild(address=GROUP)) == Done()
    assert world.state(GROUP) == "unknown"
    (*_, down) = world.news["gateway/0"]
    assert isinstance(down, PeerDown)
    assert not down.asleep


def test_a_stop_of_the_tree_does_not_wait_for_sleepers(world: World) -> None:
    asleep(world).stop()
    for address in ("gateway/0", "controller"):
        world.die(address, "exit code 0")
    assert world.has_stopped


def test_sleepers_need_no_place() -> None:
    capacity = Capacity(3, "test")
    world = World(broker_like(), capacity=capacity)
    world.ready("controller")
    world.ready("gateway/0")
    world.ask(StartChild(spec=worker(GROUP)))
    world.ready(GROUP)
    asleep(world)
    world.ask(StartChild(spec=worker("coordinator/h")))
    assert world.state("coordinator/h") == "starting"
    world.ask(Wake(address=GROUP))
    assert world.state(GROUP) == "quarantined"
    assert "LIMIT_REACHED" in (world.reason(GROUP) or "")
    (*_, down) = [news for news in world.news["gateway/0"] if isinstance(news, PeerDown)]
    assert down.quarantined
    assert not down.asleep


def test_who_said_how_long_is_woken_by_then(world: World) -> None:
    world.fall_asleep(GROUP, wake_after_ms=60_000)
    world.die(GROUP, "exit code 0")
    world.pass_time(59_999)
    assert world.state(GROUP) == "asleep"
    world.pass_time(1)
    assert world.processes[GROUP] == 2


def test_who_was_called_before_is_not_woken_a_second_time(world: World) -> None:
    world.fall_asleep(GROUP, wake_after_ms=60_000)
    world.die(GROUP, "exit code 0")
    world.ask(Wake(address=GROUP))
    world.ready(GROUP)
    asleep(world).pass_time(100_000)
    assert world.state(GROUP) == "asleep"


def test_a_child_that_is_added_asleep_may_say_how_long(world: World) -> None:
    world.ask(StartChild(spec=worker("coordinator/h"), is_asleep=True, wake_after_ms=10))
    world.pass_time(10)
    assert world.processes["coordinator/h"] == 1

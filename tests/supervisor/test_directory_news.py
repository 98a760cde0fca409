"""The directory: which actors are told of which others, and when."""

import pytest

from planaria.transport.addresses import Address
from planaria.transport.protocol.control import PeerDown, PeersAsleep, PeerUp, StartChild, Watch
from supervision import World, broker_like, worker


def test_whoever_asks_for_the_directory_is_told_of_all_others() -> None:
    world = World(broker_like())
    world.ask(StartChild(spec=worker("partition/T/0")))
    world.ready("controller")
    world.ready("partition/T/0")
    up = PeerUp(address=Address.parse("partition/T/0"), incarnation=1, endpoint="ipc://partition/T/0.1")
    assert world.news["controller"] == [up]
    world.beat("gateway/0", 1, "starting")
    assert [news.address for news in world.news["gateway/0"]] == ["controller", "partition/T/0"]
    world.die("partition/T/0")
    down = PeerDown(address=Address.parse("partition/T/0"), incarnation=1, reason="killed by SIGKILL")
    assert world.news["controller"][-1] == world.news["gateway/0"][-1] == down
    assert "partition/T/0" not in world.news


def test_who_asks_for_some_kinds_is_told_of_those_alone() -> None:
    world = World(broker_like())
    world.ready("controller", "gateway/0")
    for address in ("partition/T/1", "coordinator/g"):
        world.ask(StartChild(spec=worker(address)))
        world.ready(address)
    world.ask(StartChild(spec=worker("partition/T/0", directory=("coordinator", "scheduler"))))
    world.beat("partition/T/0", 1, "starting")
    assert [news.address for news in world.news["partition/T/0"]] == ["coordinator/g"]
    world.ready("partition/T/0")
    world.die("partition/T/1")
    world.die("coordinator/g")
    [last] = world.news["partition/T/0"][1:]
    assert (type(last), last.address) == (PeerDown, "coordinator/g")


def watch(world: World, watcher: str, peer: str) -> None:
    world.give(
        Watch(address=Address.parse(watcher), incarnation=world.processes[watcher], peer=Address.parse(peer))
    )


def test_an_actor_is_notified_of_those_that_it_watches_and_of_no_others() -> None:
    world = World(broker_like())
    world.ready("controller", "gateway/0")
    for address in ("partition/T/0", "partition/T/1", "coordinator/g"):
        world.ask(StartChild(spec=worker(address)))
        world.ready(address)
    assert "coordinator/g" not in world.news
    watch(world, "coordinator/g", "partition/T/0")
    watch(world, "coordinator/g", "partition/NONE/0")
    up, none = world.news["coordinator/g"]
    assert isinstance(up, PeerUp)
    assert (type(none), none.address) == (PeerDown, "partition/NONE/0")
    world.die("partition/T/1")
    world.die("partition/T/0")
    world.ask(StartChild(spec=worker("partition/NONE/0")))
    world.ready("partition/NONE/0")
    assert [(type(each), each.address) for each in world.news["coordinator/g"][2:]] == [
        (PeerDown, "partition/T/0"),
        (PeerUp, "partition/NONE/0"),
    ]


def test_a_watch_ends_with_its_incarnation() -> None:
    world = World(broker_like())
    world.ready("controller", "gateway/0")
    for address in ("partition/T/0", "coordinator/g"):
        world.ask(StartChild(spec=worker(address)))
        world.ready(address)
    watch(world, "coordinator/g", "partition/T/0")
    late = Watch(
        address=Address.parse("coordinator/g"),
        incarnation=world.processes["coordinator/g"],
        peer=Address.parse("partition/T/1"),
    )
    world.die("coordinator/g")
    world.give(late)
    world.pass_time(100)
    world.ready("coordinator/g")
    world.news.clear()
    world.die("partition/T/0")
    assert "coordinator/g" not in world.news


@pytest.mark.parametrize("is_asleep", [True, False])
def test_a_watch_is_answered_with_the_present_state(is_asleep: bool) -> None:
    world = World(broker_like())
    world.ready("controller", "gateway/0")
    world.ask(StartChild(spec=worker("coordinator/g")))
    world.ask(StartChild(spec=worker("partition/T/0"), is_asleep=is_asleep))
    if not is_asleep:
        world.crash_until_quarantined("partition/T/0")
    world.ready("coordinator/g")
    watch(world, "coordinator/g", "partition/T/0")
    [state] = world.news["coordinator/g"]
    if is_asleep:
        assert state == PeersAsleep(addresses=[Address.parse("partition/T/0")])
    else:
        assert isinstance(state, PeerDown)
        assert state.quarantined


def test_a_newcomer_is_told_everything_once_and_before_it_is_ready() -> None:
    world = World(broker_like())
    world.ready("controller")
    world.beat("gateway/0", 1, "starting")
    world.beat("gateway/0", 2, "recovering")
    world.ready("gateway/0")
    assert len(world.news["gateway/0"]) == 1


def test_quarantine_is_told_with_its_reason() -> None:
    world = World(broker_like())
    world.ask(StartChild(spec=worker("partition/T/0")))
    world.ready("controller")
    world.crash_until_quarantined("partition/T/0")
    last = world.news["controller"][-1]
    assert isinstance(last, PeerDown)
    assert (last.quarantined, last.reason) == (True, "RuntimeError: no")
    world.ready("gateway/0")
    assert last in world.news["gateway/0"]

"""Stops of the tree: in reverse order, in time, and of children that do not die."""

from planaria.supervisor.events import ChildDeaf, KillAll
from planaria.supervisor.lifecycle import STUCK_MS
from planaria.transport.protocol.control import StartChild
from supervision import World, broker_like, supervisor, three, worker


def test_stopped_in_reverse_each_after_the_one_behind_it_is_gone() -> None:
    world = three("one_for_one")
    world.stop()
    for address in ("c", "b", "a"):
        assert world.asked_to_stop[-1] == address
        assert not world.has_stopped
        world.die(address, "exit code 0")
    assert world.has_stopped
    assert world.launched == []


def test_who_does_not_stop_in_time_is_killed() -> None:
    world = three("one_for_one")
    world.stop()
    world.pass_time(4_999)
    assert world.signals == []
    world.pass_time(1)
    assert world.signals == [("c", "SIGKILL")]


def test_dynamic_children_stop_side_by_side() -> None:
    world = World(broker_like())
    for number in range(2):
        world.ask(StartChild(spec=worker(f"partition/T/{number}")))
    world.ready("controller")
    world.ready("partition/T/0", "partition/T/1")
    world.ready("gateway/0")
    world.stop()
    assert world.asked_to_stop == ["gateway/0"]
    world.die("gateway/0", "exit code 0")
    assert sorted(world.asked_to_stop[1:]) == ["partition/T/0", "partition/T/1"]
    world.die("partition/T/0", "exit code 0")
    assert len(world.asked_to_stop) == 3
    world.die("partition/T/1", "exit code 0")
    assert world.asked_to_stop[-1] == "controller"


def test_a_stop_gets_between_a_death_and_its_restart() -> None:
    world = three("one_for_one")
    world.die("a")
    world.stop()
    assert world.state("a") == "stopped"
    world.pass_time(0)
    world.die("c", "exit code 0")
    world.die("b", "exit code 0")
    assert world.has_stopped
    assert world.launched == []


def test_a_child_not_connected_yet_is_terminated() -> None:
    world = World(supervisor("one_for_one", "a", "b"))
    world.stop()
    assert world.signals == [("a", "SIGTERM")]
    world.die("a", "killed by SIGTERM")
    assert world.has_stopped


def test_a_death_during_the_stop_is_not_repaired() -> None:
    world = three("one_for_one")
    world.stop()
    world.die("a")
    world.die("c", "exit code 0")
    world.die("b", "exit code 0")
    assert world.has_stopped


def test_kill_all_waits_for_nobody() -> None:
    world = three("one_for_one")
    world.stop()
    world.give(KillAll())
    assert sorted(world.signals) == [("a", "SIGKILL"), ("b", "SIGKILL"), ("c", "SIGKILL")]
    for address in ("a", "b", "c"):
        world.die(address)
    assert world.has_stopped


def test_a_hung_child_does_not_hold_up_the_stop() -> None:
    world = three("one_for_one")
    world.give(ChildDeaf("c", 1))
    world.stop()
    world.pass_time(300)
    assert world.signals == [("c", "SIGABRT"), ("c", "SIGKILL")]


def test_who_cannot_be_killed_is_left_behind_and_named() -> None:
    world = three("one_for_one")
    world.stop()
    world.die("c", "exit code 0")
    world.pass_time(5_000)
    assert world.signals == [("b", "SIGKILL")]
    world.pass_time(STUCK_MS - 1)
    assert world.asked_to_stop == ["c", "b"]
    world.pass_time(1)
    assert world.asked_to_stop == ["c", "b", "a"], "the others still end in good order"
    assert not world.has_stopped
    world.die("a", "exit code 0")
    assert world.has_stopped
    pid = world.machine.tree.get("b").pid  # type: ignore[union-attr]
    assert world.stop_reason == f"left behind: b (pid {pid})"
    assert [log.level for log in world.logs if log.event == "child does not die"] == ["error"]


def test_kill_all_waits_no_longer_for_who_cannot_be_killed() -> None:
    world = three("one_for_one")
    world.give(KillAll())
    world.die("b")
    world.pass_time(STUCK_MS - 1)
    assert not world.has_stopped
    world.pass_time(1)
    assert world.has_stopped
    assert "a (pid" in (world.stop_reason or "")
    assert "c (pid" in (world.stop_reason or "")
    world.die("a")


def test_who_dies_late_after_all_is_restarted_as_ever() -> None:
    world = three("one_for_one")
    world.give(ChildDeaf("b", 1))
    world.pass_time(300 + STUCK_MS)
    assert world.state("b") == "stopping"
    world.die("b")
    world.pass_time(10_000)
    assert world.launched[-1] == "b"
    world.ready("b")
    world.stop()
    for address in ("c", "b", "a"):
        world.die(address, "exit code 0")
    assert world.stop_reason == ""

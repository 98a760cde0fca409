"""The supervision machine: order, restarts, strategies, hangs, quarantine, stop."""

import pytest

from planaria.supervisor.child_spec import SupervisorSpec
from planaria.supervisor.events import ChildDeaf, ChildDied, RestartTimer
from planaria.supervisor.restart import RestartPolicy
from planaria.supervisor.states import State
from planaria.transport.addresses import Address
from planaria.transport.machine import TimerFired
from planaria.transport.protocol.control import Ready, StartChild
from planaria.transport.protocol.operations import Kill
from supervision import World, broker_like, supervisor, three, worker


def test_each_starts_when_the_one_before_it_is_ready() -> None:
    world = World(supervisor("one_for_one", "a", "b", "c"))
    assert world.launched == ["a"]
    world.ready("a")
    assert world.launched == ["a", "b"]
    world.ready("b")
    world.ready("c")
    assert world.launched == ["a", "b", "c"]
    assert world.up is not None


def test_a_heartbeat_is_answered_if_it_asks_for_it_and_its_sender_is_the_present_one() -> None:
    world = three("one_for_one")
    world.beat("a", 1)
    assert world.answered == []
    world.beat("a", 2, is_answered=True)
    assert world.answered == ["a"]
    world.beat("b", 2, is_answered=True, back=1)
    assert world.answered == ["a"]


def test_a_death_while_starting_is_retried_before_the_next_one_starts() -> None:
    world = World(supervisor("one_for_one", "a", "b"))
    world.die("a")
    world.pass_time(0)
    assert world.launched == ["a", "a"]
    world.ready("a")
    assert world.launched == ["a", "a", "b"]


def test_a_fixed_child_that_cannot_start_fails_the_tree() -> None:
    world = World(supervisor("one_for_one", "a", "b"))
    world.ready("a")
    for _ in range(3):
        world.fail("b", "OSError: Address already in use")
        world.pass_time(1_000)
    assert world.failed == "b cannot start: OSError: Address already in use"
    assert world.asked_to_stop == ["a"]
    world.die("a", "exit code 0")
    assert world.has_stopped
    assert world.up is None


def test_dynamic_children_start_side_by_side_within_bounds() -> None:
    world = World(broker_like())
    for number in range(3):
        world.ask(StartChild(spec=worker(f"partition/T/{number}")))
    assert world.launched == ["controller"]
    world.ready("controller")
    assert world.launched == ["controller", "partition/T/0", "partition/T/1", "gateway/0"]
    world.ready("partition/T/1")
    assert world.launched[-1] == "partition/T/2"


def test_dynamic_children_hold_up_neither_the_fixed_ones_nor_the_start() -> None:
    world = World(broker_like())
    world.ask(StartChild(spec=worker("partition/T/0")))
    world.ask(StartChild(spec=worker("coordinator/G")))
    world.ready("controller")
    assert "gateway/0" in world.processes
    assert world.up is None
    world.ready("gateway/0", endpoint="tcp://127.0.0.1:4444")
    assert world.up == "tcp://127.0.0.1:4444"
    assert "coordinator/G" in world.processes
    assert world.state("partition/T/0") == "starting"


def test_a_long_recovery_takes_nobody_elses_place() -> None:
    world = World(broker_like())
    for number in range(3):
        world.ask(StartChild(spec=worker(f"partition/T/{number}")))
    world.ready("controller")
    world.beat("partition/T/0", 1, "starting")
    assert "partition/T/2" not in world.processes
    world.beat("partition/T/0", 2, "recovering")
    assert world.state("partition/T/0") == "recovering"
    assert "partition/T/2" in world.processes


def test_a_quarantined_partition_does_not_hold_up_the_gateway() -> None:
    world = World(broker_like())
    world.ask(StartChild(spec=worker("partition/T/0")))
    world.ready("controller")
    world.crash_until_quarantined("partition/T/0")
    assert world.state("gateway/0") == "starting"
    assert world.failed is None


def test_the_port_that_was_given_first_is_kept() -> None:
    world = World(broker_like())
    world.ready("controller")
    world.ready("gateway/0", endpoint="tcp://127.0.0.1:4444")
    world.die("gateway/0")
    world.pass_time(0)
    child = world.machine.tree.get("gateway/0")
    assert child is not None
    assert child.spec.arguments == {"endpoint": "tcp://127.0.0.1:4444"}


# Restart.


def test_one_for_one_restarts_the_dead_one_alone() -> None:
    world = three("one_for_one")
    world.die("a")
    assert sorted(world.processes) == ["b", "c"]
    world.pass_time(0)
    assert world.launched == ["a"]
    assert world.asked_to_stop == []


def test_rest_for_one_restarts_those_after_it_as_well() -> None:
    world = three("rest_for_one")
    world.die("b")
    world.pass_time(0)
    assert world.asked_to_stop == ["c"]
    assert world.launched == []
    world.die("c", "exit code 0")
    assert world.launched == ["b"]
    world.ready("b")
    assert world.launched == ["b", "c"]


def test_one_for_all_restarts_all_in_order() -> None:
    world = three("one_for_all")
    world.die("b")
    world.pass_time(0)
    assert world.asked_to_stop == ["c"]
    world.die("c", "exit code 0")
    assert world.asked_to_stop == ["c", "a"]
    assert world.launched == []
    world.die("a", "exit code 0")
    assert world.launched == ["a"]
    world.ready("a")
    assert world.launched == ["a", "b"]
    world.ready("b")
    world.ready("c")
    assert world.launched == ["a", "b", "c"]


def test_rest_for_one_takes_a_whole_supervisor_along() -> None:
    inner = SupervisorSpec(name="inner", children=(worker("x"), worker("y")))
    world = World(
        SupervisorSpec(name="root", strategy="rest_for_one", children=(worker("a"), inner, worker("z")))
    )
    world.ready("a")
    world.ready("x")
    world.ready("y")
    world.ready("z")
    world.launched.clear()
    world.die("a")
    for address in ("z", "y", "x"):
        assert world.asked_to_stop[-1] == address
        world.die(address, "exit code 0")
    world.pass_time(0)
    for address in ("a", "x", "y", "z"):
        world.ready(address)
    assert world.launched == ["a", "x", "y", "z"]


def test_a_death_inside_a_supervisor_is_its_own_business() -> None:
    inner = SupervisorSpec(name="inner", children=(worker("x"),))
    world = World(SupervisorSpec(name="root", strategy="one_for_all", children=(worker("a"), inner)))
    world.ready("a")
    world.ready("x")
    world.die("x")
    assert world.asked_to_stop == []


def test_those_that_depend_on_a_quarantined_one_wait_for_it() -> None:
    world = three("rest_for_one")
    for _ in range(6):
        world.die("a")
        for address in ("c", "b"):
            if address in world.processes:
                world.die(address, "exit code 0")
        while world.state("a") == "backing_off":
            world.pass_time(100)
    assert world.state("a") == "quarantined"
    assert world.processes == {}
    world.pass_time(RestartPolicy().quarantine_retry_ms)
    world.ready("a")
    world.ready("b")
    world.ready("c")


@pytest.mark.parametrize(
    ("kind", "exit_reason", "is_restarted"),
    [
        ("permanent", "exit code 0", True),
        ("permanent", "killed by SIGKILL", True),
        ("transient", "exit code 0", False),
        ("transient", "exit code 3", True),
        ("temporary", "exit code 0", False),
        ("temporary", "killed by SIGKILL", False),
    ],
)
def test_restart_kinds(kind: str, exit_reason: str, is_restarted: bool) -> None:
    world = World(SupervisorSpec(name="root", children=(worker("a", restart=kind),)))
    world.ready("a")
    world.die("a", exit_reason)
    world.pass_time(60_000)
    assert ("a" in world.processes) is is_restarted


def test_a_temporary_dynamic_child_is_forgotten() -> None:
    world = World(broker_like())
    world.ready("controller")
    world.ask(StartChild(spec=worker("partition/T/0", restart="temporary")))
    world.die("partition/T/0")
    assert world.state("partition/T/0") == "unknown"


def test_nothing_is_restarted_before_its_death_is_confirmed() -> None:
    world = three("one_for_one")
    world.silent = {"a"}
    world.give(TimerFired(RestartTimer("a")))
    world.pass_time(6_000)
    assert world.signals[0] == ("a", "SIGABRT")
    world.pass_time(100_000)
    assert world.launched == []
    world.die("a")
    world.pass_time(0)
    assert world.launched == ["a"]


def test_a_failed_launch_is_a_death() -> None:
    world = three("one_for_one")
    world.die("a")
    world.pass_time(0)
    world.die("a", "no process could be started: BlockingIOError")
    assert world.state("a") == "backing_off"
    assert world.reason("a") == "no process could be started: BlockingIOError"
    world.pass_time(100)
    assert world.launched == ["a", "a"]


def test_a_child_that_is_ready_before_its_pid_is_known_is_shown_ready_with_its_pid() -> None:
    world = three("one_for_one")
    for name in ("a", "b", "c"):
        world.ready(name)
    world.die("a")
    world.held_starts = []
    world.pass_time(0)
    (started,) = world.held_starts
    world.give(Ready(address=Address.parse("a"), incarnation=2, endpoint="ipc://new"))
    assert world.state("a") == "starting"
    world.give(started)
    assert world.state("a") == "ready"
    child = world.machine.tree.get(Address.parse("a"))
    assert child is not None
    assert (child.pid, child.endpoint) == (started.pid, "ipc://new")


def test_a_child_that_died_before_its_pid_was_known_is_not_ready_in_its_next_life() -> None:
    world = three("one_for_one")
    world.die("a")
    world.held_starts = []
    world.pass_time(0)
    world.give(Ready(address=Address.parse("a"), incarnation=2, endpoint="ipc://new"))
    world.die("a")
    world.held_starts = None
    world.pass_time(1_000)
    assert world.incarnations["a"] == 3
    assert world.state("a") == "starting"


def test_a_stale_incarnation_is_counted_and_dropped() -> None:
    world = three("one_for_one")
    world.die("a")
    world.give(Ready(address=Address.parse("a"), incarnation=1, endpoint="ipc://old"))
    world.pass_time(0)
    world.give(Ready(address=Address.parse("a"), incarnation=1, endpoint="ipc://old"))
    world.give(ChildDied("a", 1, "killed by SIGKILL", False))
    world.give(Ready(address=Address.parse("nobody"), incarnation=1, endpoint=None))
    assert world.state("a") == "starting"
    assert world.machine._life.stale_messages == 4


# Quarantine.


def test_over_its_intensity_a_child_is_quarantined_and_all_else_goes_on() -> None:
    world = three("one_for_one")
    world.crash_until_quarantined("b")
    child = world.machine.tree.get("b")
    assert child is not None
    assert (child.reason, child.traceback) == ("RuntimeError: no", "Traceback ...")
    assert sorted(world.processes) == ["a", "c"]
    assert not world.has_stopped


def test_a_quarantined_child_is_tried_again_slowly() -> None:
    world = three("one_for_one")
    world.crash_until_quarantined("b")
    world.launched.clear()
    world.pass_time(RestartPolicy().quarantine_retry_ms - 1)
    assert "b" not in world.launched
    world.pass_time(1)
    assert world.launched.count("b") == 1
    world.die("b")
    assert world.state("b") == "quarantined"


def test_deaths_that_an_operator_ordered_do_not_count() -> None:
    world = three("one_for_one")
    for _ in range(3 * RestartPolicy().intensity):
        world.ask(Kill(address="b"))
        world.die("b")
        world.pass_time(0)
        world.ready("b")
    assert world.state("b") == "ready"
    world.crash_until_quarantined("b")


def test_deaths_that_the_next_incarnation_accounts_for_do_not_count() -> None:
    world = three("one_for_one")
    for _ in range(3 * RestartPolicy().intensity):
        world.die("b")
        world.pass_time(0)
        world.ready("b", is_death_accounted=True)
    assert world.state("b") == "ready"
    world.crash_until_quarantined("b")


# Hangs.


def test_a_child_that_makes_no_progress_is_aborted_then_killed_then_restarted() -> None:
    world = three("one_for_one")
    world.silent = {"b"}
    for _ in range(11):
        # It sends, but its counter stands still.
        world.beat("b", 7)
        world.pass_time(500)
    assert world.signals == [("b", "SIGABRT")]
    world.pass_time(299)
    assert world.signals == [("b", "SIGABRT")]
    world.pass_time(1)
    assert world.signals == [("b", "SIGABRT"), ("b", "SIGKILL")]
    world.die("b")
    assert "no progress for" in str(world.reason("b"))
    assert "killed by SIGKILL" in str(world.reason("b"))
    world.pass_time(0)
    assert world.launched == ["b"]


def test_recovery_may_take_long_as_long_as_it_moves() -> None:
    world = World(supervisor("one_for_one", "a"))
    for turn in range(100):
        world.beat("a", turn, "recovering")
        world.pass_time(20_000)
    assert world.signals == []
    world.pass_time(11_000)
    assert world.signals[0] == ("a", "SIGABRT")


def test_a_child_that_never_speaks_is_given_its_start_timeout() -> None:
    world = World(supervisor("one_for_one", "a"))
    world.pass_time(30_000)
    assert world.signals == []
    world.pass_time(1_000)
    assert world.signals[0] == ("a", "SIGABRT")


def test_silence_proves_nothing_when_the_supervisor_itself_was_away() -> None:
    world = three("one_for_one")
    world.silent = {"a", "b", "c"}
    world.now += 60_000
    world.pass_time(0)
    assert world.signals == []
    world.pass_time(6_000)
    assert len(world.signals) >= 3


def test_a_child_that_does_not_read_is_treated_as_hung() -> None:
    world = three("one_for_one")
    world.give(ChildDeaf("a", 1))
    world.give(ChildDeaf("a", 1))
    assert world.signals == [("a", "SIGABRT")]
    world.die("a", "killed by SIGABRT")
    assert world.reason("a") == "does not read its messages; killed by SIGABRT"


def test_a_child_never_skips_a_state() -> None:
    world = three("one_for_one")
    child = world.machine.tree.get("a")
    assert child is not None
    with pytest.raises(AssertionError):
        child.become(State.STARTING)

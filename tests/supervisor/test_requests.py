"""start_child, stop_child, status, kill and revive, as the machine answers them."""

from typing import Any

import pytest

import simulator_supervisor
from planaria.supervisor import process
from planaria.supervisor.changes import MAX_REMOVED, Changes
from planaria.transport.addresses import Address
from planaria.transport.codec import RequestDecoder, encode_header
from planaria.transport.protocol.control import ReplaceChild, StartChild, StopChild
from planaria.transport.protocol.errors import ErrorBody
from planaria.transport.protocol.message import Done
from planaria.transport.protocol.operations import Kill, Revive, ReviveReply, Status, StatusReply
from planaria.transport.protocol.session import Cancel
from supervision import World, broker_like, worker

PARTITION = "partition/T/0"


@pytest.fixture
def world() -> World:
    world = World(broker_like())
    world.ready("controller")
    world.ready("gateway/0", endpoint="tcp://127.0.0.1:4444")
    return world


def refusal(answer: Any) -> str:
    assert isinstance(answer, ErrorBody)
    return answer.code


def test_start_child_is_done_when_the_start_is_ordered(world: World) -> None:
    assert world.ask(StartChild(spec=worker(PARTITION))) == Done()
    assert world.launched[-1] == PARTITION


def test_start_child_again_changes_nothing(world: World) -> None:
    world.ask(StartChild(spec=worker(PARTITION)))
    world.ready(PARTITION)
    assert world.ask(StartChild(spec=worker(PARTITION))) == Done()
    assert world.launched.count(PARTITION) == 1


def test_a_replaced_child_is_stopped_and_started_with_the_new_spec(world: World) -> None:
    world.ask(StartChild(spec=worker(PARTITION)))
    world.ready(PARTITION)
    renewed = worker(PARTITION, arguments={"size": 2})
    assert world.ask(ReplaceChild(spec=renewed)) is None, "answered when the process has ended"
    assert world.asked_to_stop == [PARTITION]
    assert world.launched.count(PARTITION) == 1
    world.die(PARTITION)
    assert world.launched.count(PARTITION) == 2
    child = world.machine.tree.get(PARTITION)
    assert child is not None
    assert child.spec == renewed
    world.ready(PARTITION)
    assert world.ask(ReplaceChild(spec=renewed)) == Done(), "it has this spec"
    assert world.asked_to_stop == [PARTITION]


def test_a_child_that_is_replaced_before_it_exists_is_started(world: World) -> None:
    assert world.ask(ReplaceChild(spec=worker(PARTITION))) == Done()
    assert world.launched[-1] == PARTITION


def test_a_changed_spec_counts_from_the_next_start(world: World) -> None:
    world.ask(StartChild(spec=worker(PARTITION)))
    world.ready(PARTITION)
    world.ask(StartChild(spec=worker(PARTITION, arguments={"size": 2})))
    assert world.asked_to_stop == []
    world.die(PARTITION)
    world.pass_time(0)
    child = world.machine.tree.get(PARTITION)
    assert child is not None
    assert child.spec.arguments == {"size": 2}
    assert child.incarnation == 2


def test_announcing_a_quarantined_child_does_not_revive_it(world: World) -> None:
    world.ask(StartChild(spec=worker(PARTITION)))
    world.crash_until_quarantined(PARTITION)
    world.ask(StartChild(spec=worker(PARTITION)))
    assert world.state(PARTITION) == "quarantined"


def test_start_child_of_an_unknown_kind_or_of_a_fixed_child_is_refused(world: World) -> None:
    assert refusal(world.ask(StartChild(spec=worker("planet/mars")))) == "INVALID_REQUEST"
    assert refusal(world.ask(StartChild(spec=worker("controller")))) == "INVALID_REQUEST"


def test_start_child_during_the_stop_is_refused(world: World) -> None:
    world.stop()
    answer = world.ask(StartChild(spec=worker(PARTITION)))
    assert refusal(answer) == "SHUTTING_DOWN"


def test_stop_child_is_done_when_it_is_gone_and_forgotten(world: World) -> None:
    world.ask(StartChild(spec=worker(PARTITION)))
    world.ready(PARTITION)
    assert world.ask(StopChild(address=Address.parse(PARTITION)), 1) is None
    assert world.ask(StopChild(address=Address.parse(PARTITION)), 2) is None
    assert world.asked_to_stop == [PARTITION]
    world.replies.clear()
    world.die(PARTITION, "exit code 0")
    assert [reply.to.id for reply in world.replies] == [1, 2]
    assert world.state(PARTITION) == "unknown"
    world.pass_time(60_000)
    assert world.launched.count(PARTITION) == 1


def test_stop_child_of_nobody_is_done(world: World) -> None:
    assert world.ask(StopChild(address=Address.parse(PARTITION))) == Done()


def test_stop_child_of_a_fixed_child_is_refused(world: World) -> None:
    assert refusal(world.ask(StopChild(address=Address.parse("gateway/0")))) == "INVALID_REQUEST"


def test_stop_child_of_a_quarantined_one(world: World) -> None:
    world.ask(StartChild(spec=worker(PARTITION)))
    world.crash_until_quarantined(PARTITION)
    assert world.ask(StopChild(address=Address.parse(PARTITION))) == Done()
    assert world.state(PARTITION) == "unknown"


def test_a_successor_waits_until_its_predecessor_is_gone(world: World) -> None:
    world.ask(StartChild(spec=worker(PARTITION)))
    world.ready(PARTITION)
    world.ask(StopChild(address=Address.parse(PARTITION)))
    world.ask(StartChild(spec=worker(PARTITION, arguments={"topic_id": "new"})))
    assert world.launched.count(PARTITION) == 1
    world.die(PARTITION, "exit code 0")
    assert world.processes[PARTITION] == 2
    child = world.machine.tree.get(PARTITION)
    assert child is not None
    assert child.spec.arguments == {"topic_id": "new"}


def test_a_second_stop_child_takes_the_successor_back(world: World) -> None:
    world.ask(StartChild(spec=worker(PARTITION)))
    world.ready(PARTITION)
    world.ask(StopChild(address=Address.parse(PARTITION)))
    world.ask(StartChild(spec=worker(PARTITION)))
    world.ask(StopChild(address=Address.parse(PARTITION)))
    world.die(PARTITION, "exit code 0")
    assert world.state(PARTITION) == "unknown"


def test_an_incarnation_is_never_used_twice(world: World) -> None:
    world.ask(StartChild(spec=worker(PARTITION)))
    world.ready(PARTITION)
    world.ask(StopChild(address=Address.parse(PARTITION)))
    world.die(PARTITION, "exit code 0")
    world.ask(StartChild(spec=worker(PARTITION)))
    assert world.processes[PARTITION] == 2


def test_the_supervisor_is_not_unknown_but_takes_no_signal_from_itself(world: World) -> None:
    for request in (Kill(address="supervisor"), Revive(address="supervisor")):
        answer = world.ask(request)
        assert refusal(answer) == "INVALID_REQUEST"
        assert "pid 1" in answer.message


def test_revive_ends_a_quarantine_with_a_clean_record(world: World) -> None:
    world.ask(StartChild(spec=worker(PARTITION)))
    world.crash_until_quarantined(PARTITION)
    assert world.ask(Revive(address=PARTITION)) == ReviveReply(state="quarantined")
    assert PARTITION in world.processes
    world.die(PARTITION)
    assert world.state(PARTITION) == "backing_off"


def test_revive_of_a_ready_actor_changes_nothing_and_says_so(world: World) -> None:
    assert world.ask(Revive(address="controller")) == ReviveReply(state="ready")
    assert world.launched.count("controller") == 1


def test_status_shows_the_tree_in_order(world: World) -> None:
    world.ask(StartChild(spec=worker(PARTITION)))
    world.crash_until_quarantined(PARTITION)
    world.ask(Status())
    body = world.reports[0].body
    assert (body.endpoint, body.supervisor_pid) == ("tcp://127.0.0.1:4444", 1)
    assert [actor.address for actor in body.actors] == ["controller", PARTITION, "gateway/0"]
    partition = body.actors[1]
    assert (partition.state, partition.pid, partition.restarts) == ("quarantined", None, 5)
    assert (partition.reason, partition.traceback) == ("RuntimeError: no", "Traceback ...")


def differences(world: World, version: int) -> StatusReply:
    answer = world.ask(Status(after_version=version))
    assert isinstance(answer, StatusReply)
    return answer


def test_status_after_a_version_has_exactly_those_that_have_changed(world: World) -> None:
    world.ask(StartChild(spec=worker(PARTITION)))
    world.ready(PARTITION)
    world.ask(Status())
    seen = world.reports[0].body
    assert seen.is_whole
    assert (differences(world, seen.version).actors, differences(world, seen.version).is_whole) == ([], False)
    world.die(PARTITION)
    dead = differences(world, seen.version)
    assert [(actor.address, actor.downtime_ms) for actor in dead.actors] == [(PARTITION, None)]
    world.pass_time(700)
    world.ready(PARTITION)
    back = differences(world, dead.version).actors
    assert [(actor.state, actor.incarnation, actor.since_death_ms, actor.downtime_ms) for actor in back] == [
        ("ready", 2, 700, 700)
    ]
    world.ask(StopChild(address=Address.parse(PARTITION)))
    world.die(PARTITION)
    gone = differences(world, seen.version)
    assert (gone.actors, gone.removed) == ([], (PARTITION,))


def test_a_version_of_another_start_gets_the_whole_status(world: World) -> None:
    assert world.ask(Status(after_version=10_000)) is None, "as without a version: when memory is measured"
    assert world.reports[0].body.is_whole


def test_removals_that_are_forgotten_are_made_good_by_the_whole() -> None:
    changes = Changes()
    addresses = [Address.parse(f"partition/T/{number}") for number in range(MAX_REMOVED + 1)]
    for address in addresses:
        changes.note(address)
    seen = changes.version
    for address in addresses:
        changes.note_removal(address)
    assert changes.since(seen) is None
    assert changes.since(seen + 1) == ([], addresses[1:])


@pytest.mark.parametrize("decoder", [process._REQUESTS, simulator_supervisor._DECODER])
def test_a_command_that_is_withdrawn_is_understood(decoder: RequestDecoder) -> None:
    """An actor's exchange sends it to the receiver of a call, as the controller does when a newer command replaces it."""
    withdrawal = Cancel(request_id=7)
    assert decoder.decode(encode_header(withdrawal)) == withdrawal

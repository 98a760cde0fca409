"""The supervisor with real processes: kills, hangs, crash loops, its own death, and the end of all."""

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from live_trees import children_of, fork_server_of
from patience import TIMEOUT_S

pytestmark = pytest.mark.processes

Start = Callable[..., Any]
Survivors = Callable[[list[int], float], list[int]]
PARTITION = "partition/ORDERS/0"


def test_a_tree_starts_says_so_and_stops_leaving_nothing(start: Start, survivors: Survivors) -> None:
    supervisor = start(partitions=3)
    line = supervisor.status_line
    assert line["ready"] is True
    assert line["pid"] == supervisor.process.pid
    actors = supervisor.status()
    assert {actor.state for actor in actors.values()} == {"ready"}
    assert actors["gateway/0"].endpoint == line["endpoint"]
    assert actors[PARTITION].memory_bytes > 100_000
    run_directory = Path(line["control"].removeprefix("ipc://")).parent
    assert (run_directory / "instance").read_text() == line["instance_id"]
    assert run_directory.stat().st_mode & 0o777 == 0o700
    pids = [actor.pid for actor in actors.values()] + children_of(supervisor.process.pid)
    assert supervisor.stop() == 0
    assert survivors(pids, TIMEOUT_S) == []
    assert not run_directory.exists()
    assert (supervisor.data / "controller.1.closed").exists()
    assert "Traceback" not in supervisor.log


def test_nothing_is_left_of_a_stop_and_nothing_of_a_kill_but_what_the_next_start_sweeps(
    start: Start, survivors: Survivors, tmp_path: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(run_dir))
    killed = start()
    pids = [actor.pid for actor in killed.status().values()]
    killed.process.kill()
    killed.process.wait()
    assert survivors(pids, TIMEOUT_S) == []
    [swept_later] = run_dir.iterdir()
    assert [each.name for each in swept_later.iterdir()] == ["1"]
    following = start()
    assert [each.name for each in swept_later.iterdir()] == ["2"]
    assert following.stop() == 0
    assert [*run_dir.iterdir(), *temporary.iterdir()] == []


def test_an_ended_actor_leaves_no_socket(start: Start) -> None:
    supervisor = start()
    run_directory = Path(supervisor.status_line["control"].removeprefix("ipc://")).parent
    socket_path = run_directory / "partition-ORDERS-0.1"
    socket_path.touch()  # as an actor that binds there leaves it when it is killed
    supervisor.ask("kill", address=PARTITION)
    supervisor.wait_ready(PARTITION, 2)
    assert not socket_path.exists()


def test_the_end_of_the_lifeline_stops_the_tree(start: Start) -> None:
    supervisor = start()
    supervisor.cut_lifeline()
    assert supervisor.process.wait(TIMEOUT_S) == 0
    assert (supervisor.data / "partition-ORDERS-0.1.closed").exists()


def test_a_killed_actor_is_back_as_its_next_incarnation(start: Start) -> None:
    supervisor = start()
    before = supervisor.status()[PARTITION]
    reply = supervisor.ask("kill", address=PARTITION)
    assert (reply["pid"], reply["incarnation"]) == (before.pid, 1)
    after = supervisor.wait_ready(PARTITION, 2)
    assert (after.restarts, after.reason) == (1, "killed by SIGKILL")
    assert after.endpoint != before.endpoint


def test_the_gateway_keeps_the_port_it_was_given(start: Start) -> None:
    supervisor = start()
    supervisor.ask("kill", address="gateway/0")
    assert supervisor.wait_ready("gateway/0", 2).endpoint == supervisor.status_line["endpoint"]


def test_a_crash_of_the_controller_touches_no_partition(start: Start) -> None:
    supervisor = start()
    supervisor.ask("kill", address="controller")
    supervisor.wait_ready("controller", 2)
    assert supervisor.status()[PARTITION].incarnation == 1


def test_a_grandchild_does_not_hide_a_death(start: Start, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    spec = {
        "address": "partition/F/0",
        "start": "stub_actors:leaves_a_grandchild",
        "arguments": {"fifo": str(fifo)},
    }
    supervisor = start(tree={"specs": [spec]})
    supervisor.ask("kill", address="partition/F/0")
    supervisor.wait_ready("partition/F/0", 2)
    with fifo.open("w") as writer:
        writer.write("end\n")


def test_a_stopped_actor_is_killed_and_restarted(start: Start) -> None:
    supervisor = start(hang_timeout_ms=1_500, heartbeat_interval_ms=100, abort_grace_ms=100)
    supervisor.ask("kill", address=PARTITION, signal="SIGSTOP")
    after = supervisor.wait_ready(PARTITION, 2)
    assert after.reason.startswith("no progress for")
    assert after.reason.endswith("killed by SIGKILL")


def test_a_wedged_actor_leaves_its_stack_in_the_log(start: Start) -> None:
    spec = {"address": "partition/D/0", "start": "stub_actors:deaf", "start_timeout_ms": 2_000}
    supervisor = start(tree={"specs": [spec]}, heartbeat_interval_ms=100, restart_intensity=0)
    actor = supervisor.wait_for("partition/D/0", lambda actor: actor.state == "quarantined")
    assert "while starting; killed by SIGABRT" in actor.reason
    assert "Fatal Python error: Aborted" in supervisor.log
    assert "in deaf" in supervisor.log


def test_a_crash_loop_ends_in_quarantine_and_a_revival_in_service(start: Start, tmp_path: Path) -> None:
    poison = tmp_path / "poison"
    poison.touch()
    spec = {"address": "partition/P/0", "start": "stub_actors:main", "arguments": {"fail_if": str(poison)}}
    supervisor = start(tree={"specs": [spec]}, restart_intensity=2)
    actor = supervisor.wait_for("partition/P/0", lambda actor: actor.state == "quarantined")
    assert (actor.incarnation, actor.pid) == (3, None)
    assert actor.reason == "RuntimeError: no will to live"
    assert "raise RuntimeError" in actor.traceback
    assert supervisor.status()[PARTITION].state == "ready"
    poison.unlink()
    supervisor.ask("revive", address="partition/P/0")
    supervisor.wait_ready("partition/P/0", 4)


def test_the_fork_server_is_a_fork_without_the_supervisor_s_descriptors_and_signals(start: Start) -> None:
    supervisor = start()
    pid = fork_server_of(supervisor.process.pid)
    program, own_program = (
        Path(f"/proc/{each}/cmdline").read_bytes() for each in (pid, supervisor.process.pid)
    )
    assert program == own_program
    descriptors = descriptors_of(pid)
    assert {name for name in descriptors if name.startswith("/")} <= {"/dev/null"}
    # For its signals, for the supervisor's end, and one for each actor.
    assert sum(name.startswith("pipe") for name in descriptors) == 2 + len(children_of(pid))
    status = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    assert int(status["SigBlk"], 16) == 0
    assert int(status["SigCgt"], 16) == 1 << (signal.SIGCHLD - 1)
    assert int(status["SigIgn"], 16) & 1 << (signal.SIGINT - 1)


def test_an_actor_is_named_for_its_address(start: Start) -> None:
    supervisor = start(partitions=1)
    pid = supervisor.wait_ready(PARTITION, 1).pid
    assert Path(f"/proc/{pid}/comm").read_text() == "partition/ORDER\n"


def descriptors_of(pid: int) -> set[str]:
    """Return what the descriptors of a process lead to, without the standard ones."""
    return {os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir() if int(path.name) > 2}


def test_a_dead_fork_server_hurts_nobody(start: Start) -> None:
    supervisor = start(partitions=2)
    os.kill(fork_server_of(supervisor.process.pid), signal.SIGKILL)
    supervisor.ask("kill", address=PARTITION)
    supervisor.wait_ready(PARTITION, 2)
    actors = supervisor.status()
    assert {address for address, actor in actors.items() if actor.incarnation != 1} == {PARTITION}
    assert {actor.state for actor in actors.values()} == {"ready"}
    assert supervisor.stop() == 0


def test_a_stopped_fork_server_does_not_stop_the_supervisor(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB_LAUNCH_TIMEOUT_S", "2")
    supervisor = start()
    os.kill(fork_server_of(supervisor.process.pid), signal.SIGSTOP)
    supervisor.ask("kill", address=PARTITION)
    # The second incarnation failed, and perhaps the third, if it met the fork server's end.
    supervisor.wait_for(PARTITION, lambda actor: actor.state == "ready" and actor.incarnation >= 3)
    assert "the fork server did not answer and was killed" in supervisor.log
    assert supervisor.stop() == 0


def test_a_killed_supervisor_leaves_no_orphan_and_has_a_successor(start: Start, survivors: Survivors) -> None:
    first = start(partitions=3)
    pids = [actor.pid for actor in first.status().values()] + children_of(first.process.pid)
    first.process.kill()
    assert survivors(pids, TIMEOUT_S) == []
    second = start(partitions=3)
    assert second.status_line["ready"] is True
    assert second.status_line["instance_id"] != first.status_line["instance_id"]
    old, new = (Path(each.status_line["control"].removeprefix("ipc://")).parent for each in (first, second))
    assert old != new
    assert not old.exists()


def test_a_successor_waits_for_the_last_actors(start: Start) -> None:
    first = start(endpoint="tcp://127.0.0.1:*")
    first.process.kill()
    second = start(endpoint=first.status_line["endpoint"])
    assert second.status_line["ready"] is True
    assert {actor.incarnation for actor in second.status().values()} == {1}


def test_a_second_supervisor_is_refused_and_told_by_whom(start: Start) -> None:
    first = start()
    second = start()
    assert second.status_line == {
        "error": f"data directory {first.data} is in use by the supervisor with process id {first.process.pid}"
    }
    assert second.process.wait(TIMEOUT_S) == 1


def test_a_newer_format_is_refused(start: Start, data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "format.json").write_text('{"format": 2}')
    refused = start()
    assert "has format 2, this program knows formats up to 1" in refused.status_line["error"]


def test_a_port_in_use_is_one_line(start: Start) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        endpoint = f"tcp://127.0.0.1:{other.getsockname()[1]}"
        refused = start(endpoint=endpoint)
    assert refused.status_line == {"error": f"cannot listen on {endpoint}: Address already in use"}
    assert refused.process.wait(TIMEOUT_S) == 1


def test_a_gateway_that_cannot_start_fails_the_start(start: Start) -> None:
    refused = start(tree={"gateway": {"fail": True}})
    assert refused.status_line == {"error": "gateway/0 cannot start: RuntimeError: no will to live"}
    assert refused.process.wait(TIMEOUT_S) == 1


def test_a_wrong_configuration_is_one_line(start: Start) -> None:
    refused = start(hang_timeout=3)
    assert refused.status_line == {
        "error": "flags: unknown key 'hang_timeout'; the nearest known one is 'hang_timeout_ms'"
    }
    assert refused.process.wait(TIMEOUT_S) == 1


def test_an_interrupt_stops_and_a_second_one_kills(start: Start) -> None:
    spec = {"address": "coordinator/deaf", "start": "stub_actors:main", "shutdown_ms": 60_000}
    supervisor = start(tree={"specs": [spec]}, hang_timeout_ms=60_000)
    deaf = supervisor.wait_ready("coordinator/deaf", 1)
    os.kill(deaf.pid, signal.SIGSTOP)
    supervisor.process.send_signal(signal.SIGINT)
    supervisor.wait_for("coordinator/deaf", lambda actor: actor.state == "stopping")
    supervisor.process.send_signal(signal.SIGINT)
    assert supervisor.process.wait(TIMEOUT_S) == 0
    assert not (supervisor.data / "partition-ORDERS-0.1.closed").exists()


def test_an_actor_started_by_an_operator(start: Start) -> None:
    supervisor = start()
    spec = {"address": "coordinator/late", "start": "stub_actors:main"}
    assert "error" not in supervisor.ask("start_child", spec=spec)
    supervisor.wait_ready("coordinator/late", 1)
    assert "error" not in supervisor.ask("stop_child", address="coordinator/late")
    assert "coordinator/late" not in supervisor.status()


def test_a_request_that_makes_no_sense_is_refused(start: Start) -> None:
    supervisor = start()
    assert supervisor.ask("dance")["error"]["code"] == "UNKNOWN_OP"
    assert supervisor.ask("kill", address=7)["error"]["code"] == "INVALID_REQUEST"

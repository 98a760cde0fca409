"""The data directory: created, checked, locked; the run directory beside it."""

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from planaria.supervisor import data_directory
from planaria.supervisor.data_directory import (
    DataDirectoryError,
    hold_presence,
    open_data_directory,
    wait_for_predecessors,
)
from planaria.supervisor.run_directory import (
    RunDirectoryError,
    create_run_directory,
    remove_run_directory,
    run_directory_of,
    supervisors_at,
)
from planaria.transport import clock
from planaria.transport.endpoints import control_endpoint
from planaria.transport.origin import Origin


def test_starts_are_counted(data_dir: Path) -> None:
    for expected in (1, 2, 3):
        data = open_data_directory(data_dir)
        assert data.starts == expected
        data.close()
    assert (data_dir / "format.json").read_text() == '{"format":1}'


def test_a_second_holder_is_refused_and_told_by_whom(data_dir: Path) -> None:
    data = open_data_directory(data_dir)
    with pytest.raises(DataDirectoryError, match=f"in use by the supervisor with process id {os.getpid()}$"):
        open_data_directory(data_dir)
    data.close()
    open_data_directory(data_dir).close()


def test_the_same_directory_under_another_name_is_the_same(data_dir: Path, tmp_path: Path) -> None:
    data = open_data_directory(data_dir)
    (tmp_path / "link").symlink_to(data_dir)
    with pytest.raises(DataDirectoryError, match="in use"):
        open_data_directory(tmp_path / "link")
    data.close()


@pytest.mark.parametrize("name", ["format.json", "supervisor.json"])
def test_a_damaged_file_is_named_and_the_lock_given_back(data_dir: Path, name: str) -> None:
    data_dir.mkdir()
    (data_dir / name).write_text("{")
    with pytest.raises(DataDirectoryError, match=f"{name} is damaged"):
        open_data_directory(data_dir)
    (data_dir / name).unlink()
    open_data_directory(data_dir).close()


def test_the_steady_clock_goes_on_over_restarts_until_the_machine_boots(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started() -> Origin:
        data = open_data_directory(data_dir)
        data.close()
        return data.clock

    first = started()
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + 7_200_000_000_000)
    assert started() == first
    (data_dir / "clock.json").write_text("{")
    damaged = started()
    assert damaged.anchor_ns - first.anchor_ns > 7_000_000_000_000, "it begins anew at the time of day"
    assert started() == damaged
    monkeypatch.setattr(clock, "_boot", lambda: "another")
    monkeypatch.setattr(time, "time_ns", real)
    assert started().anchor_ns < damaged.anchor_ns


def test_a_newer_format_is_refused(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "format.json").write_text('{"format": 7}')
    with pytest.raises(DataDirectoryError, match="has format 7, this program knows formats up to 1"):
        open_data_directory(data_dir)
    assert not (data_dir / "supervisor.json").exists()


def test_a_file_in_its_place_is_refused(data_dir: Path) -> None:
    data_dir.write_text("")
    with pytest.raises(DataDirectoryError, match="is not usable: File exists"):
        open_data_directory(data_dir)


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_directory_that_cannot_be_written_is_refused(data_dir: Path) -> None:
    data_dir.mkdir(mode=0o500)
    with pytest.raises(DataDirectoryError, match="Permission denied"):
        open_data_directory(data_dir)


def test_a_new_supervisor_waits_for_the_last_actor(data_dir: Path) -> None:
    open_data_directory(data_dir).close()
    first, second = hold_presence(str(data_dir)), hold_presence(str(data_dir))
    assert not wait_for_predecessors(data_dir, timeout_ms=0)
    os.close(first)
    assert not wait_for_predecessors(data_dir, timeout_ms=0)
    os.close(second)
    assert wait_for_predecessors(data_dir, timeout_ms=0)
    # It does not keep the lock: later actors need it.
    probe = hold_presence(str(data_dir))
    fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(probe)


def test_an_actor_that_does_not_leave_is_killed(data_dir: Path) -> None:
    """A stopped one cannot notice that its supervisor is gone."""
    open_data_directory(data_dir).close()
    program = (
        "import sys, os, signal; from planaria.supervisor.data_directory import hold_presence;"
        " hold_presence(sys.argv[1]); print('held', flush=True); os.kill(os.getpid(), signal.SIGSTOP)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(data_dir)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert wait_for_predecessors(data_dir, timeout_ms=50)
    assert process.returncode == -signal.SIGKILL


HOLDER = (
    "import os, signal, sys; from pathlib import Path;"
    " from planaria.supervisor.data_directory import open_data_directory;"
    " data = open_data_directory(Path(sys.argv[1]));"
    " data.say_stopping() if sys.argv[2] == 'stopping' else None;"
    " print('held', flush=True); sys.stdin.read()"
)


@contextlib.contextmanager
def holder(data_dir: Path, state: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Start another process that holds the directory until its standard input ends."""
    command = [sys.executable, "-c", HOLDER, str(data_dir), state]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process


def test_a_supervisor_that_stops_is_waited_for(data_dir: Path) -> None:
    with holder(data_dir, "stopping") as process:
        asked = 0

        def let_it_end() -> bool:
            nonlocal asked
            asked += 1
            if asked == 3:
                assert process.stdin is not None
                process.stdin.close()
            return False

        open_data_directory(data_dir, let_it_end).close()
        assert asked >= 3
    assert process.returncode == 0


def test_a_supervisor_that_does_not_end_is_killed(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_directory, "STOPPING_MS", 50)
    with holder(data_dir, "stopping") as process:
        process.send_signal(signal.SIGSTOP)
        data = open_data_directory(data_dir)
        assert (data_dir / "supervisor.lock").read_text() == f"{os.getpid()}\n"
        data.close()
    assert process.returncode == -signal.SIGKILL


def test_a_supervisor_that_serves_is_neither_waited_for_nor_killed(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_directory, "STOPPING_MS", 0)
    monkeypatch.setattr(data_directory, "NOTICE_MS", 50)
    with holder(data_dir, "serving") as process:
        with pytest.raises(DataDirectoryError, match=f"process id {process.pid}$"):
            open_data_directory(data_dir)
        assert process.poll() is None


def test_a_wait_for_a_supervisor_can_be_cancelled(data_dir: Path) -> None:
    with (
        holder(data_dir, "stopping") as process,
        pytest.raises(DataDirectoryError, match=f"process id {process.pid}, which is stopping$"),
    ):
        open_data_directory(data_dir, lambda: True)


def test_each_start_has_a_run_directory_of_its_own(
    monkeypatch: pytest.MonkeyPatch, run_dir: Path, data_dir: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(run_dir))
    first, second = run_directory_of(data_dir, 1), run_directory_of(data_dir, 2)
    assert first.parent == second.parent
    assert first.parent.parent == run_dir
    create_run_directory(first, "one", "tcp://127.0.0.1:1")
    create_run_directory(second, "two", "tcp://127.0.0.1:2")
    assert not first.exists()
    assert (second / "instance").read_text() == "two"
    assert second.stat().st_mode & 0o777 == second.parent.stat().st_mode & 0o777 == 0o700
    remove_run_directory(second)
    assert list(run_dir.iterdir()) == []


def test_supervisors_are_found_while_the_directory_of_another_is_removed(
    monkeypatch: pytest.MonkeyPatch, run_dir: Path, data_dir: Path, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(run_dir))
    serving, ending = run_directory_of(data_dir, 1), run_directory_of(tmp_path / "another", 1)
    for path in (serving, ending):
        create_run_directory(path, "id", "tcp://127.0.0.1:1")
    scandir = os.scandir

    def remove_and_scan(path: str) -> "os._ScandirIterator[str]":
        if str(path) == str(ending.parent):
            remove_run_directory(ending)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", remove_and_scan)
    control = control_endpoint(str(serving))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(control.removeprefix("ipc://"))
        listener.listen()
        assert supervisors_at("tcp://127.0.0.1:1") == [control]
    assert not ending.exists()


def test_without_a_runtime_directory_it_is_in_tmp(monkeypatch: pytest.MonkeyPatch, data_dir: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/nonexistent")
    assert run_directory_of(data_dir, 1).is_relative_to("/tmp")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert run_directory_of(data_dir, 1).is_relative_to("/tmp")


def test_a_directory_open_to_others_is_refused(
    monkeypatch: pytest.MonkeyPatch, run_dir: Path, data_dir: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(run_dir))
    path = run_directory_of(data_dir, 1)
    path.parent.mkdir()
    path.parent.chmod(0o755)
    with pytest.raises(RunDirectoryError, match="belongs to you alone"):
        create_run_directory(path, "one", "tcp://127.0.0.1:1")


def test_a_link_in_its_place_is_refused(
    monkeypatch: pytest.MonkeyPatch, run_dir: Path, data_dir: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(run_dir))
    path = run_directory_of(data_dir, 1)
    (run_dir / "elsewhere").mkdir(mode=0o700)
    path.parent.symlink_to(run_dir / "elsewhere")
    with pytest.raises(RunDirectoryError, match="belongs to you alone"):
        create_run_directory(path, "one", "tcp://127.0.0.1:1")

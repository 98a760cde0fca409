"""Programs that fork from the nursery behave like those that load their modules themselves."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from patience import TIMEOUT_S
from planaria import Client
from warm_start import WarmPopen

pytestmark = pytest.mark.processes

PROGRAM = [sys.executable, "-P", "-m", "planaria"]


def started(popen: "type[subprocess.Popen[Any]]", *arguments: str, **options: Any) -> "subprocess.Popen[Any]":
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return popen([*PROGRAM, *arguments], **pipes, **options)


@pytest.mark.parametrize("arguments", [["--version"], ["nonsense"], ["produce", "T", "--connect", "nowhere"]])
def test_output_errors_and_exit_code_are_the_same(arguments: list[str]) -> None:
    ended = []
    for popen in (WarmPopen, subprocess.Popen):
        with started(popen, *arguments) as process:
            output = process.communicate(b"a line\n", TIMEOUT_S)
        ended.append((process.returncode, *output))
    assert ended[0] == ended[1]


def test_a_broker_has_its_folder_environment_session_and_signals(tmp_path: Path) -> None:
    environment = {**os.environ, "PLANARIA_DATA": "given", "PLANARIA_ENDPOINT": "tcp://127.0.0.1:*"}
    with started(WarmPopen, "serve", cwd=tmp_path, env=environment, start_new_session=True) as process:
        assert process.stdout is not None
        greeting = process.stdout.readline().decode()
        assert f"(data {tmp_path / 'given'}, pid {process.pid})" in greeting
        assert os.getsid(process.pid) == process.pid
        if sys.platform == "linux":
            assert "nursery.py" in Path(f"/proc/{process.pid}/cmdline").read_text()
        with Client(greeting.split()[3]) as client:
            client.create_topic("T", 1)
            client.publish("T", b"x")
        assert process.poll() is None
        process.terminate()
        assert process.wait(TIMEOUT_S) == 0


def test_a_kill_is_its_exit_status(tmp_path: Path) -> None:
    with started(WarmPopen, "serve", "--data", str(tmp_path), "--endpoint", "tcp://127.0.0.1:*") as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
        process.kill()
        assert process.wait(TIMEOUT_S) == -9
        assert process.poll() == -9


SCRIPT = """
import atexit, os, sys, threading, warm_start_neighbour

atexit.register(print, "at exit")
threading.Timer(0.1, os.write, (1, b"in a thread\\n")).start()
print(__name__, sys.argv[-2:], __name__ in sys.modules, warm_start_neighbour.VALUE)
"""


@pytest.mark.parametrize("is_file", [True, False])
@pytest.mark.parametrize(
    ("end", "code"), [("", 0), ("sys.exit(3)", 3), ("sys.exit('a reason')", 1), ("1 / 0", 1)]
)
def test_code_and_files_run_as_in_an_interpreter(tmp_path: Path, is_file: bool, end: str, code: int) -> None:
    """A file finds the modules in its folder, code those in the working directory."""
    (tmp_path / "warm_start_neighbour.py").write_text("VALUE = 'found'")
    (tmp_path / "script.py").write_text(SCRIPT + end)
    words = [str(tmp_path / "script.py")] if is_file else ["-c", SCRIPT + end]
    ended = []
    for popen in (WarmPopen, subprocess.Popen):
        command = [sys.executable, *words, "a", "b"]
        folder = None if is_file else tmp_path
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with popen(command, cwd=folder, text=True, **pipes) as process:
            output, errors = process.communicate(timeout=TIMEOUT_S)
        ended.append((process.returncode, sorted(output.splitlines()), errors.splitlines()[-1:]))
    assert ended[0] == ended[1]
    assert ended[0][0] == code


def test_other_interpreters_and_programs_are_started_as_usual() -> None:
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    program = "import os, sys; print(os.getppid(), sys.warnoptions)"
    with WarmPopen(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        output, _ = process.communicate(timeout=TIMEOUT_S)
    assert output == f"{os.getpid()} ['error']\n"
    with WarmPopen(["sh", "-c", "echo $PPID"], stdout=subprocess.PIPE, text=True) as process:
        output, _ = process.communicate(timeout=TIMEOUT_S)
    assert output == f"{os.getpid()}\n"

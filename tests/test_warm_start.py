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


@pytest.mark.parametrize("environment", [None, {**os.environ, "PYTHONWARNINGS": "error"}])
def test_other_programs_and_interpreters_are_started_as_usual(environment: dict[str, str] | None) -> None:
    program = "import os, sys; print(os.getppid(), sys.warnoptions)"
    with WarmPopen(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        output, _ = process.communicate(timeout=TIMEOUT_S)
    assert output == f"{os.getpid()} {['error'] if environment else []}\n"

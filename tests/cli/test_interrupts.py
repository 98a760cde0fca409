"""Ctrl-C and SIGTERM while a command still loads its modules, which takes longer than most commands."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_line import PROGRAM, TIMEOUT_S, environment

pytestmark = pytest.mark.processes

WAITING = """
import sys
print("loading", flush=True)
sys.stdin.readline()
sys.path.remove({folder!r})
del sys.modules["typer"]
import typer
"""
"""A module that waits for a line, and is then the one of its name."""


@pytest.fixture
def loading(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """A command that loads its modules."""
    (tmp_path / "typer.py").write_text(WAITING.format(folder=str(tmp_path)))
    process = subprocess.Popen(
        [*PROGRAM, "status", "--watch", "--connect", "tcp://127.0.0.1:1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])),
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_ctrl_c_ends_it_at_once_and_silently(loading: "subprocess.Popen[str]") -> None:
    loading.send_signal(signal.SIGINT)
    assert loading.wait(TIMEOUT_S) == 130
    assert loading.communicate() == ("", "")


def test_sigterm_ends_it_silently_when_it_has_loaded(loading: "subprocess.Popen[str]") -> None:
    loading.send_signal(signal.SIGTERM)
    assert loading.communicate("\n", TIMEOUT_S) == ("", "")
    assert loading.returncode == 130

"""Output into a pipe whose reader has gone, as with `| head -1`, ends a command quietly."""

import os
import subprocess

import pytest

from command_line import PATIENCE_S, PROGRAM, ServedBroker, environment

pytestmark = pytest.mark.processes


def into_a_closed_pipe(*arguments: str) -> tuple[int, bytes]:
    """Exit code and errors of a command whose reader went before it wrote anything."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [*PROGRAM, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=subprocess.PIPE,
            env=environment(),
            timeout=PATIENCE_S,
            check=False,
        )
    finally:
        os.close(writer)
    return done.returncode, done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["topic", "--help"], ["--version"], ["version"]])
def test_what_needs_no_broker(arguments: list[str]) -> None:
    assert into_a_closed_pipe(*arguments) == (0, b"")


def test_every_command_that_shows_something(broker: ServedBroker) -> None:
    broker.run("topic", "create", "SHOWN")
    broker.run("group", "create", "SHOWN")
    for arguments in (
        ["topic", "describe", "SHOWN"],
        ["topic", "list"],
        ["group", "describe", "SHOWN"],
        ["group", "list", "--json"],
        ["status"],
        ["status", "--json"],
    ):
        assert into_a_closed_pipe(*arguments, "--connect", broker.endpoint) == (0, b""), arguments


def test_a_failure_stays_a_failure() -> None:
    code, errors = into_a_closed_pipe("topic", "describe", "X", "--connect", "tcp://127.0.0.1:1")
    assert code == 1
    assert errors.startswith(b"planaria: no broker at")

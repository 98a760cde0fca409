"""Commands whose standard descriptors are closed or not writable, as of a daemon, or whose locale lacks characters."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import PROGRAM, TIMEOUT_S, ServedBroker, environment
from planaria import Client

pytestmark = pytest.mark.processes

ALL_CLOSED = "<&- >&- 2>&-"
CLOSED = ["<&-", ">&-", "2>&-", ALL_CLOSED]
FULL = ">/dev/full 2>&1"
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /dev/full")


def started(closed: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a command without some of its standard descriptors; the others are the null device."""
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", *PROGRAM, *arguments]
    null = subprocess.DEVNULL
    return subprocess.Popen(command, stdin=null, stdout=null, stderr=null, env=environment())


@pytest.mark.parametrize("closed", [*CLOSED, pytest.param(FULL, marks=linux_only)])
def test_a_broker_serves_and_stops(endpoint: str, data_dir: Path, closed: str) -> None:
    process = started(closed, "serve", "--data", str(data_dir), "--endpoint", endpoint)
    try:
        with Client(endpoint, request_timeout_ms=int(TIMEOUT_S * 1_000)) as client:
            client.create_topic("T", 1)
            assert client.publish("T", b"x").offset == 0
            client.kill("partition/T/0")  # the successor is started with the same streams
            assert client.publish("T", b"y").offset == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("closed", "arguments"),
    [
        *((closed, ["status"]) for closed in CLOSED),
        (">&-", ["--help"]),
        ("<&-", ["produce", "T"]),
        (ALL_CLOSED, ["produce", "T"]),
        (">&-", ["consume", "T", "--from-beginning", "-n", "1"]),
        (ALL_CLOSED, ["consume", "T", "--from-beginning", "-n", "1"]),
    ],
)
def test_a_command_ends_as_with_the_null_device(
    broker: ServedBroker, closed: str, arguments: list[str]
) -> None:
    with Client(broker.endpoint) as client:
        client.create_topic("T", 1, if_not_exists=True)
        client.publish("T", b"x")
    where = [] if arguments == ["--help"] else ["--connect", broker.endpoint]
    assert started(closed, *arguments, *where).wait(TIMEOUT_S) == 0


def test_a_locale_without_a_character_ends_no_command(broker: ServedBroker) -> None:
    with Client(broker.endpoint) as client:
        client.set_quota("Grüße", fetch_bytes=1)

    def printed(*arguments: str) -> bytes:
        command = [*PROGRAM, *arguments, "--connect", broker.endpoint]
        where = {**environment(), "PYTHONIOENCODING": "ascii"}
        return subprocess.run(
            command, env=where, timeout=TIMEOUT_S, check=True, stdout=subprocess.PIPE
        ).stdout

    assert rb"Gr\xfc\xdfe" in printed("quota", "list")
    assert "Grüße".encode() in printed("quota", "list", "--json")
    assert b"controller" in printed("status")

"""No process dies for lack of descriptors: local clients' connections are bounded before libzmq accepts them."""

import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest
import zmq

from live_trees import until
from patience import TIMEOUT_S

pytestmark = pytest.mark.processes

DESCRIPTORS = 256
CONNECTIONS = 1_000
BURST_S = 1.0
"""Time for which clients go on trying after the door was shut."""
PROGRAM = """
import itertools, json, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]), int(sys.argv[2])))
from planaria import Broker
with Broker(sys.argv[1]) as broker:
    broker.create_topic("T", 1)
    broker.client.publish("T", "before")
    for line in itertools.chain([None], sys.stdin):
        found = {each.address: each for each in broker.status().actors}["partition/T/0"]
        if line is not None:
            broker.client.publish("T", "after")
        print(json.dumps([found.endpoint, found.restarts, found.state]), flush=True)
"""


def connect(path: str) -> socket.socket | None:
    made = socket.socket(socket.AF_UNIX)
    made.setblocking(False)
    try:
        made.connect(path)
    except OSError:
        made.close()
        return None
    return made


def serves(endpoint: str) -> bool:
    with zmq.Context() as context, context.socket(zmq.DEALER) as client:
        client.linger = 0
        client.connect(endpoint)
        client.send(
            msgspec.msgpack.encode(
                {"op": "list_offsets", "id": 1, "topic": "T", "partition": 0, "at": "latest"}
            )
        )
        return bool(client.poll(1_000))


@pytest.mark.parametrize("name", ["partition-T-0.1", "supervisor"])
def test_a_burst_of_local_connections_ends_no_process(tmp_path: Path, name: str) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "data"), str(DESCRIPTORS)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        endpoint, *_ = msgspec.json.decode(program.stdout.readline())
        path = str(Path(endpoint.removeprefix("ipc://")).with_name(name))
        with ExitStack() as held:
            made = 0
            shut_at = None
            began = time.monotonic()
            while shut_at is None or time.monotonic() < shut_at + BURST_S:
                assert time.monotonic() < began + TIMEOUT_S, "the door stays open"
                if shut_at is None and not os.path.exists(path):
                    shut_at = time.monotonic()
                connection = connect(path)
                if connection is not None and made < CONNECTIONS:
                    held.enter_context(connection)
                    made += 1
            print(f"{made} connections with {DESCRIPTORS} descriptors")
            assert not os.path.exists(path), "the door is shut"
            program.stdin.write("look\n")
            program.stdin.flush()
            assert msgspec.json.decode(program.stdout.readline()) == [endpoint, 0, "ready"]
        until(lambda: serves(endpoint), "the door is open again")
        program.stdin.write("look\n")
        program.stdin.flush()
        assert msgspec.json.decode(program.stdout.readline()) == [endpoint, 0, "ready"]
        program.stdin.close()
        assert program.wait(TIMEOUT_S) == 0

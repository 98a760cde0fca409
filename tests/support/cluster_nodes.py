"""A cluster on this machine: etcd, and nodes that are real `planaria serve` processes, each with a session of its own.

Nodes are killed, frozen and ended by their process ids alone. Everything is on loopback, in one temporary directory.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from etcd_members import Members
from interrupts import deferred_interrupts
from patience import TIMEOUT_S, pause_after
from planaria import Client
from planaria.supervisor.free_ports import free_ports
from planaria.transport.protocol.errors import PlanariaError
from warm_start import WarmPopen


class Node:
    def __init__(self, name: str, folder: Path, store: str, settings: Sequence[str] = ()) -> None:
        self.name = name
        self.folder = folder
        self.data = folder / name
        self.log = folder / f"{name}.log"
        client_port, peer_port = free_ports(2)
        self.endpoint = f"tcp://127.0.0.1:{client_port}"
        self.peer_endpoint = f"tcp://127.0.0.1:{peer_port}"
        self.environment = {**os.environ, "PLANARIA_CLUSTER": store}
        """That of the next start."""
        self._command = [
            *(sys.executable, "-m", "planaria", "serve", "--data", str(self.data)),
            *("--node", name, "--endpoint", self.endpoint, "--peer-endpoint", self.peer_endpoint),
            *(word for setting in settings for word in ("--set", setting)),
        ]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self.process is not None:
            self.process.wait(TIMEOUT_S)
        with self.log.open("ab") as log, deferred_interrupts():
            self.process = WarmPopen(
                self._command,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self.folder,
                env=self.environment,
            )

    def pids(self) -> list[int]:
        """Return the processes of the node: those of its session."""
        assert self.process is not None
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with suppress(OSError, IndexError):
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                    if int(fields[3]) == self.process.pid:
                        found.append(int(entry.name))
        return found

    def processor_s(self) -> float:
        """Return the processor time that the processes of the node have used so far."""
        ticks = 0
        for pid in self.pids():
            with suppress(OSError, IndexError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def signal(self, number: int) -> None:
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill_processes(self, *names: str) -> int:
        """Kill the processes whose names begin with these words. Return their number."""
        killed = 0
        for pid in self.pids():
            with suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().startswith(names):
                    os.kill(pid, signal.SIGKILL)
                    killed += 1
        return killed

    def kill(self) -> None:
        """End all processes of the node at once, as the loss of its machine does."""
        self.signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait(TIMEOUT_S)

    def terminate(self) -> None:
        """Ask the node to stop."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)

    def stop(self) -> int:
        self.terminate()
        assert self.process is not None
        return self.process.wait(TIMEOUT_S)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def status(self) -> str:
        return self.log.read_text(errors="replace")


class ClusterNodes:
    def __init__(
        self,
        folder: Path,
        count: int = 3,
        *,
        members: int = 1,
        settings: Sequence[str] = ("refuse_unsafe_stop=false",),
        before: Callable[[str], None] = lambda _: None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """With these settings a node stops on one SIGTERM, also the last one.

        `before` is called with the store's URL, when etcd is up, before the nodes are started.
        """
        self.etcd = Members(folder / "etcd", members)
        self._folder = folder
        self._count = count
        self._settings = settings
        self._before = before
        self._environment = environment or {}
        self.nodes: list[Node] = []

    @cached_property
    def client(self) -> Client:
        """A client of all nodes, for looking on; it lives as long as the cluster."""
        return Client([node.endpoint for node in self.nodes])

    def __enter__(self) -> "ClusterNodes":
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self) -> None:
        self.etcd.__enter__()
        hosts = ",".join(f"{host}:{port}" for host, port in self.etcd.endpoints)
        self._before(f"etcd://{hosts}/test")
        for number in range(self._count):
            node = Node(f"n{number}", self._folder, f"etcd://{hosts}/test", self._settings)
            node.environment.update(self._environment)
            self.nodes.append(node)
            node.start()
        for node in self.nodes:
            self.wait_until_serving(node)

    def __exit__(self, *_: object) -> None:
        if "client" in vars(self):
            self.client.close()
        for node in self.nodes:
            node.close()
        self.etcd.__exit__(None, None, None)

    def wait_until_serving(self, node: Node) -> None:
        """Wait until a node answers, and is one of the cluster."""

        def serves() -> bool:
            with suppress(PlanariaError), Client(node.endpoint) as client:
                client.list_topics()
                return True
            assert node.process is not None
            assert node.process.poll() is None, node.status()
            return False

        began = time.monotonic()
        while not serves():
            assert time.monotonic() < began + TIMEOUT_S, node.status()
            pause_after(began)

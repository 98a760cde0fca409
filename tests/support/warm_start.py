"""Programs that start quickly: forks of a process that has loaded the modules of the product, once a session.

Most of a broker's start is the loading of modules. Where a broker is only the setting of a test, `WarmPopen` stands for
`subprocess.Popen`: a program of the product, or one of a test that uses it, is then a fork of the nursery (nursery.py).
A test that looks at a start, at the memory of a process, or at what /proc shows of its command and environment starts
its programs as a user does, with the mark `cold_start` if they are supervisors of embedded brokers.
"""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nursery as nursery_program
from nursery import NUMBER, Order, program_of, read_number
from planaria.supervisor import launch, local_cluster


class Nursery:
    """The nursery of this process; it is started when it is needed first, and ends with this process or before."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._environment: dict[str, str] = {}
        self._path = ""

    def fits(self, environment: Mapping[str, str]) -> bool:
        """Return True if an interpreter would start in this environment as the nursery has started."""
        return of_interpreter(environment) == of_interpreter(self._environment or os.environ)

    def connect(self) -> socket.socket:
        with self._lock:
            if self._process is None:
                self._start()
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self._path)
        return connection

    def _start(self) -> None:
        self._path = str(Path(os.environ["XDG_RUNTIME_DIR"]) / f"nursery-{os.getpid()}")
        self._environment = dict(os.environ)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self._path)
            listener.listen(64)
            self._process = subprocess.Popen(
                [sys.executable, "-P", nursery_program.__file__, str(listener.fileno())],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=[listener.fileno()],
                process_group=0,
            )

    def end(self) -> None:
        if self._process is not None:
            self._process.communicate()
            self._process = None


nursery = Nursery()


def of_interpreter(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that an interpreter reads when it starts."""
    return {name: value for name, value in environment.items() if name.startswith("PYTHON")}


class WarmPopen(subprocess.Popen[Any]):
    """A Popen that has a program in Python forked by the nursery. All others are started as usual."""

    _connection: socket.socket | None = None

    def _execute_child(self, *given: Any) -> None:
        command, _, _, _, pass_fds, folder, environment = given[:7]
        pipes, (is_session, group) = given[10:16], given[-2:]
        variables = dict(os.environ if environment is None else environment)
        program = program_of(command)
        if program is None or not nursery.fits(variables):
            super()._execute_child(*given)  # type: ignore[misc]
            return
        streams = {number: pipes[at] if pipes[at] >= 0 else number for number, at in enumerate((0, 3, 5))}
        descriptors = streams | {number: number for number in pass_fds}
        order = Order(
            program=program,
            environment=variables,
            folder=os.fspath(folder or os.getcwd()),
            group=None if is_session else group,
            descriptors=list(descriptors),
        )
        body = json.dumps(order).encode()
        try:
            self._connection = nursery.connect()
            socket.send_fds(self._connection, [NUMBER.pack(len(body))], list(descriptors.values()))
            self._connection.sendall(body)
            self.pid = read_number(self._connection)
            self._child_created = True
        finally:
            self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]

    def _try_wait(self, flags: int) -> tuple[int, int]:
        if self._connection is None:
            return super()._try_wait(flags)  # type: ignore[misc,no-any-return]
        if flags & os.WNOHANG:
            try:
                self._connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            except BlockingIOError:
                return 0, 0
        with self._connection:
            return self.pid, read_number(self._connection)

    def _internal_poll(self, *given: Any, **others: Any) -> int | None:
        if self._connection is None:
            return super()._internal_poll(*given, **others)  # type: ignore[misc,no-any-return]
        with suppress(subprocess.TimeoutExpired):
            self._wait(0)  # type: ignore[attr-defined]
        return self.returncode


def start_brokers_warm(*, is_warm: bool) -> None:
    """Have the supervisors and the nodes that the product starts in this process fork from the nursery, or not."""
    popen = WarmPopen if is_warm else subprocess.Popen
    for module in (launch, local_cluster):
        module.subprocess = SimpleNamespace(**vars(subprocess) | {"Popen": popen})  # type: ignore[assignment]

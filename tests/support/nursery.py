"""Forks programs of the product from a process that has loaded their modules: the other half of warm_start.py.

    request      length, then an Order in JSON; the program's descriptors come with the length
    answers      the process id; at the program's end its status, as `waitpid` returns it

Each program has a connection of its own. A fork takes what its order says, and then runs the module, the code or the file
as the interpreter does; a program that becomes the supervisor by `exec` runs that one's module. The nursery ends when its
standard input does.
"""

import atexit
import fcntl
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import struct
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, NoReturn, TypedDict

PROGRAMS = ("planaria", "planaria.supervisor")
"""Modules that are programs."""
OTHERS = (
    "planaria.supervisor.__main__",
    "planaria.supervisor.cli.app",
    "planaria.supervisor.cli.serve",
    "planaria.actors.controller.clustered_process",
    "planaria.actors.link.process",
)
"""Modules that the programs load, beside those of a fork server."""
NUMBER = struct.Struct("=q")
MAX_DESCRIPTORS = 32
FIRST_FREE = 256
"""Descriptors are kept above this one until they have the numbers that the program expects."""


class Program(NamedTuple):
    """What an interpreter is asked to run."""

    option: str
    """`-m`, `-c`, or empty for a file."""
    program: str
    """The module, the code or the path."""
    arguments: list[str]
    is_isolated: bool
    """True if its own directory is not in its path for modules."""


class Order(TypedDict):
    program: Program
    environment: dict[str, str]
    folder: str
    group: int | None
    """The process group, 0 for one of its own; None for a session of its own."""
    descriptors: list[int]
    """Their numbers in the program."""


def program_of(command: Any) -> Program | None:
    """Return the program of a command; None if it is none of Python, or a module that is not the product."""
    if not isinstance(command, Sequence) or isinstance(command, str) or command[:1] != [sys.executable]:
        return None
    words = list(map(os.fsdecode, command[1:]))
    is_isolated = words[:1] == ["-P"]
    words = words[is_isolated:]
    option = words.pop(0) if words[:1] in (["-m"], ["-c"]) else ""
    if not words or words[0].startswith("-") or (option == "-m" and words[0] not in PROGRAMS):
        return None
    return Program(option, words[0], words[1:], is_isolated)


def read_number(connection: socket.socket) -> int:
    found: int = NUMBER.unpack(_read(connection, NUMBER.size))[0]
    return found


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        assert piece, "the other end is gone"
        data += piece
    return data


def load() -> list[str]:
    """Load what the programs load. Return the path for modules."""
    path = sys.path.copy()
    from planaria.supervisor import broker_tree

    # The last module prepares the memory of each fork server.
    *actors, _ = broker_tree.preloaded_modules("broker", with_http=True)
    for name in (*actors, *OTHERS):
        importlib.import_module(name)
    for name in PROGRAMS:
        sys.modules.pop(f"{name}.__main__", None)  # its code runs in each program
    gc.freeze()
    return path


class Nursery:
    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._path = load()
        self._running: dict[int, socket.socket] = {}
        self._ended, writer = os.pipe()
        os.set_blocking(self._ended, False)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def run(self) -> None:
        lifeline = sys.stdin.fileno()
        while True:
            ready, _, _ = select.select([lifeline, self._listener, self._ended], [], [])
            if lifeline in ready:
                return
            if self._ended in ready:
                os.read(self._ended, 4096)
                self._report()
            if self._listener in ready:
                self._start()

    def _report(self) -> None:
        with suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                with self._running.pop(found[0]) as connection, suppress(BrokenPipeError):
                    connection.sendall(NUMBER.pack(found[1]))

    def _start(self) -> None:
        connection, _ = self._listener.accept()
        length, descriptors, _, _ = socket.recv_fds(connection, NUMBER.size, MAX_DESCRIPTORS)
        order: Order = json.loads(_read(connection, NUMBER.unpack(length)[0]))
        pid = os.fork()
        if not pid:
            become(order, descriptors, self._path)
        for descriptor in descriptors:
            os.close(descriptor)
        self._running[pid] = connection
        connection.sendall(NUMBER.pack(pid))


def become(order: Order, descriptors: list[int], path: list[str]) -> NoReturn:
    code = 1
    try:
        if order["group"] is None:
            os.setsid()
        elif order["group"] >= 0:
            os.setpgid(0, order["group"])
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        take_descriptors(descriptors, order["descriptors"])
        os.environ.clear()
        os.environ.update(order["environment"])
        os.chdir(order["folder"])
        os.execv = partial(exec_here, path)  # type: ignore[assignment]
        run(Program(*order["program"]), path)
        code = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - the outermost frame
        sys.excepthook(*sys.exc_info())
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def take_descriptors(received: list[int], numbers: list[int]) -> None:
    """Give the descriptors their numbers, and close all others."""
    kept = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE) for descriptor in received]
    for descriptor, number in zip(kept, numbers, strict=True):
        os.dup2(descriptor, number)
    for name in os.listdir("/dev/fd"):
        if int(name) not in numbers:
            with suppress(OSError):  # the one of the list itself
                os.close(int(name))


def run(given: Program, path: list[str]) -> None:
    option, program, arguments, is_isolated = given
    own = os.getcwd() if option else os.path.dirname(os.path.abspath(program))
    sys.path[:] = path if is_isolated else [own, *path]
    sys.argv = [option or program, *arguments]
    if option == "-m":
        runpy.run_module(program, run_name="__main__", alter_sys=True)
        return
    main = sys.modules["__main__"] = ModuleType("__main__")
    if not option:
        main.__file__ = program
    code = program if option else Path(program).read_text(encoding="utf-8")
    exec(compile(code, program if not option else "<string>", "exec"), vars(main))


def exec_here(path: list[str], file: str, command: list[str]) -> None:
    """Stand for `os.execv`: a program of the product runs in this process, any other replaces it."""
    program = program_of(command)
    if program is None:
        os.execve(file, command, os.environ)
        return
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    run(program, path)


if __name__ == "__main__":
    Nursery(socket.socket(fileno=int(sys.argv[1]))).run()

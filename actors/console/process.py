"""The console's keeper: runs `planaria console` for this broker, and ends when it ends, so that the supervisor restarts
both. It serves no request and decides nothing.

The console is a process beside the actors, because it loads a web server and talks to the broker as any client does. A
socket ties both together: whichever ends, however it ends, the other one ends as well.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Never

from msgspec import Struct, convert

from ...transport.actor import Actor, ActorContext
from ...transport.loop import run_actor
from ...transport.machine import LoopEffect, LoopEvent, Stop, StopRequested
from ...transport.security.key_files import read_key_file
from ...transport.security.variables import VARIABLES

ENDPOINT_FILE = "endpoint"
"""In the run directory: the endpoint for clients, with its port once the gateway has one."""
STOP_S = 3.0
WILDCARDS = ("*", "0.0.0.0", "[::]")


class ConsoleArguments(Struct):
    listen: str
    """HOST:PORT for browsers."""
    server_key_file: str | None = None
    """The key file of a broker with authentication."""
    insecure_public: bool = False


class ConsoleEnded(Exception):
    """The console has ended; its own message is in the broker's standard error."""


class ConsoleKeeper:
    """The machine: stops when it is asked to."""

    def handle(self, event: LoopEvent, now: int) -> Iterable[LoopEffect]:
        return [Stop()] if isinstance(event, StopRequested) else []


class ConsoleActor(Actor[Never, Never]):
    def __init__(self, context: ActorContext) -> None:
        super().__init__(context)
        self._arguments = convert(context.arguments, ConsoleArguments)
        self.machine = ConsoleKeeper()
        self._console: subprocess.Popen[bytes] | None = None
        self._tie, self._consoles_end = socket.socketpair()

    def endpoint(self) -> None:
        """Return no endpoint: no peer makes requests of it."""

    def end_turn(self) -> None:
        if self._console is None:
            broker = reachable(Path(self.context.run_directory, ENDPOINT_FILE).read_text())
            if broker is not None:
                self._console = self._started(broker)
                self._consoles_end.close()
                self.loop.watch(self._tie.fileno(), self._on_end)

    def close(self) -> None:
        self._tie.close()
        self._consoles_end.close()
        if self._console is None:
            return
        try:
            self._console.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._console.kill()
            self._console.wait()

    def _on_end(self) -> None:
        assert self._console is not None
        raise ConsoleEnded(f"the console ended with the exit code {self._console.wait()}")

    def _started(self, broker: str) -> "subprocess.Popen[bytes]":
        arguments = self._arguments
        environment = {name: value for name, value in os.environ.items() if name not in VARIABLES.values()}
        if arguments.server_key_file is not None:
            environment[VARIABLES["server_key"]] = read_key_file(arguments.server_key_file).public_key
        command = [sys.executable, "-m", __package__.partition(".")[0], "console", "--connect", broker]
        command += ["--listen", arguments.listen, "--until-stdin-ends"]
        if arguments.insecure_public:
            command.append("--insecure-public")
        # Out of the terminal's process group: Ctrl-C is for the supervisor, which ends its actors in order.
        return subprocess.Popen(
            command, stdin=self._consoles_end.fileno(), env=environment, start_new_session=True
        )


def reachable(endpoint: str) -> str | None:
    """Return the endpoint as this machine reaches it; None while its port is not known."""
    host, _, port = endpoint.strip().removeprefix("tcp://").rpartition(":")
    if not port.isdecimal():
        return None
    return f"tcp://{'127.0.0.1' if host in WILDCARDS else host}:{port}"


def main(context: ActorContext) -> None:
    """The entry point named in a child spec."""
    run_actor(ConsoleActor(context), context)

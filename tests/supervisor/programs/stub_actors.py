"""Actors that only live, or fail as their arguments say. Run in children of the stub tree."""

import ctypes
import os
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from planaria.transport.actor import Actor, ActorContext
from planaria.transport.addresses import Address, from_text
from planaria.transport.loop import run_actor
from planaria.transport.machine import Cast, Stop, StopRequested
from planaria.transport.protocol.control import ChildSpec, StartChild
from planaria.transport.protocol.message import Request


class Announce(msgspec.Struct, frozen=True):
    children: list[ChildSpec]


class StubMachine:
    def handle(self, event: Any, now: int) -> list[Any]:
        if isinstance(event, StopRequested):
            return [Stop()]
        if isinstance(event, Announce):
            return [Cast(Address.parse("supervisor"), StartChild(spec=spec)) for spec in event.children]
        return []


class StubActor(Actor):
    """arguments: "children" are announced, "fail" raises at the start, "fail_if" while that file exists."""

    requests: ClassVar[tuple[type[Request], ...]] = ()

    def start(self) -> None:
        self.machine = StubMachine()
        arguments = self.context.arguments
        if arguments.get("fail") or Path(arguments.get("fail_if", "/nonexistent")).exists():
            raise RuntimeError("no will to live")
        self.loop.dispatch(
            Announce(msgspec.convert(arguments.get("children", []), list[ChildSpec], dec_hook=from_text))
        )

    def endpoint(self) -> str | None:
        return self.context.arguments.get("endpoint") or super().endpoint()

    def close(self) -> None:
        name = f"{self.context.address.replace('/', '-')}.{self.context.incarnation}.closed"
        Path(self.context.data_directory, name).touch()


def main(context: ActorContext) -> None:
    run_actor(StubActor(context), context)


def deaf(context: ActorContext) -> None:
    """Never sends a message, and ignores stop requests."""
    ctypes.CDLL(None).pause()


def leaves_a_grandchild(context: ActorContext) -> None:
    """Forks: the copy holds every descriptor, so multiprocessing's sentinel stays silent when the actor dies."""
    if context.incarnation == 1:
        pid = os.fork()
        if pid == 0:
            # Ends at the latest with the reader of this pipe.
            os.execvp("sh", ["sh", "-c", 'read line < "$0"', context.arguments["fifo"]])
    main(context)

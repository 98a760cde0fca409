"""The link's process: only the peer endpoint around the machine. Impure through its base class."""

from typing import ClassVar, Never

import msgspec

from ...transport.actor import Actor, ActorContext
from ...transport.loop import run_actor
from ...transport.protocol.message import Request
from .effects import OwnEvent, Started
from .machine import REQUESTS, LinkMachine


class LinkArguments(msgspec.Struct):
    node: str
    start_id: str
    peer_endpoint: str
    """The endpoint for the links of other nodes, and for the actors of this one."""
    replication_bytes_per_second: int = 0
    """The rate of copies to replicas that are not in sync; 0: any."""


class LinkActor(Actor[OwnEvent, Never]):
    follows_connections: ClassVar[bool] = True
    machine: LinkMachine
    requests: ClassVar[tuple[type[Request], ...]] = REQUESTS

    def __init__(self, context: ActorContext) -> None:
        super().__init__(context)
        self._arguments = msgspec.convert(context.arguments, LinkArguments)
        rate = self._arguments.replication_bytes_per_second
        self.machine = LinkMachine(
            self._arguments.node,
            self._arguments.start_id,
            context.incarnation,
            catch_up_bytes_per_second=rate,
        )

    def endpoint(self) -> str | None:
        return self._arguments.peer_endpoint

    def start(self) -> None:
        self.loop.dispatch(Started())


def main(context: ActorContext) -> None:
    run_actor(LinkActor(context), context)

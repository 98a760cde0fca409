"""The link's process: only the peer endpoint around the machine. Impure through its base class."""

from typing import ClassVar, Never

import msgspec

from ...transport.actor import Actor, ActorContext, PeerDoor
from ...transport.loop import run_actor
from ...transport.protocol.message import Request
from ...transport.security.key_files import read_key_file
from .effects import OwnEvent, Started
from .machine import REQUESTS, LinkMachine


class LinkArguments(msgspec.Struct):
    node: str
    start_id: str
    peer_endpoint: str
    """The endpoint for the links of other nodes. Actors of this one use the `ipc` endpoint, as of any actor."""
    peer_keys: str = ""
    """The file of the cluster's keys; empty: links do not authenticate each other."""
    replication_bytes_per_second: int = 0
    """The rate of copies to replicas that are not in sync; 0: any."""


class LinkActor(Actor[OwnEvent, Never]):
    follows_connections: ClassVar[bool] = True
    machine: LinkMachine
    needs_supervisor = True
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

    def peer_door(self) -> PeerDoor | None:
        keys = read_key_file(self._arguments.peer_keys) if self._arguments.peer_keys else None
        return PeerDoor(self._arguments.peer_endpoint, keys)

    def start(self) -> None:
        self.loop.dispatch(Started())


def main(context: ActorContext) -> None:
    run_actor(LinkActor(context), context)

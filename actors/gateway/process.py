"""The gateway's process: only the public endpoint around the machine. Impure through its base class."""

import os
from collections.abc import Mapping
from typing import ClassVar, Never

import msgspec

from ...transport.actor import Actor, ActorContext
from ...transport.loop import run_actor
from ...transport.protocol.message import Request
from .machine import REQUESTS, GatewayMachine


class GatewayArguments(msgspec.Struct):
    endpoint: str
    """The endpoint for clients; with a port of `*` the system chooses one, and the ready message reports it."""
    is_clustered: bool = False
    """True if its controller knows other nodes."""


class GatewayActor(Actor[Never, Never]):
    follows_connections: ClassVar[bool] = True
    follows_hosts: ClassVar[bool] = True
    follows_wall_clock: ClassVar[bool] = True
    machine: GatewayMachine
    requests: ClassVar[tuple[type[Request], ...]] = REQUESTS

    def __init__(self, context: ActorContext, limits: Mapping[str, int] | None = None) -> None:
        """Create the actor. `limits` are those of `Tickets`, for tests."""
        super().__init__(context)
        self._arguments = msgspec.convert(context.arguments, GatewayArguments)
        self.machine = GatewayMachine(
            instance_id=context.instance_id,
            run_directory=context.run_directory,
            address=context.address,
            incarnation=context.incarnation,
            pid=os.getpid(),
            is_clustered=self._arguments.is_clustered,
            limits=limits,
        )

    def endpoint(self) -> str | None:
        return self._arguments.endpoint


def main(context: ActorContext) -> None:
    run_actor(GatewayActor(context), context)

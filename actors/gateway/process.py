"""The gateway's process: nothing but the public endpoint around the machine. Impure by what it inherits."""

import os
from typing import ClassVar

import msgspec

from ...transport.actor import Actor, ActorContext
from ...transport.loop import run_actor
from ...transport.protocol.message import Request
from .machine import REQUESTS, GatewayMachine


class GatewayArguments(msgspec.Struct):
    endpoint: str
    """What clients connect to; with a port of `*` the system chooses, and the ready message says which."""


class GatewayActor(Actor):
    follows_connections: ClassVar[bool] = True
    follows_hosts: ClassVar[bool] = True
    follows_wall_clock: ClassVar[bool] = True
    requests: ClassVar[tuple[type[Request], ...]] = REQUESTS

    def __init__(self, context: ActorContext) -> None:
        super().__init__(context)
        self._arguments = msgspec.convert(context.arguments, GatewayArguments)
        self.machine = GatewayMachine(
            instance_id=context.instance_id,
            run_directory=context.run_directory,
            address=context.address,
            incarnation=context.incarnation,
            pid=os.getpid(),
        )

    def endpoint(self) -> str | None:
        return self._arguments.endpoint


def main(context: ActorContext) -> None:
    run_actor(GatewayActor(context), context)

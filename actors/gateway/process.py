"""The gateway's process: the public endpoint and its keys around the machine, and the checks of passwords."""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import msgspec

from ...transport.actor import Actor, ActorContext
from ...transport.event_queue import EventQueue
from ...transport.loop import run_actor
from ...transport.protocol.message import Request
from ...transport.security.broker_keys import internal_key
from ...transport.security.credentials import is_password
from ...transport.security.handshakes import Handshakes
from ...transport.security.key_files import read_key_file
from ...transport.security.keys import ServerKeys
from ...transport.security.relay_endpoint import write_relay_endpoint
from ...transport.security.vouchers import Vouchers
from .access import Access
from .greetings import CheckPassword, PasswordChecked
from .machine import REQUESTS, GatewayMachine


class PasswordChecks:
    """Compares passwords with their hashes in a thread of its own: one comparison takes 50 ms."""

    def __init__(self) -> None:
        self._ended: EventQueue[PasswordChecked] = EventQueue()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="planaria-passwords")

    def fileno(self) -> int:
        """Return the descriptor that is readable when a check has ended."""
        return self._ended.fileno()

    def start(self, check: CheckPassword) -> None:
        self._thread.submit(self._check, check)

    def ended(self) -> list[PasswordChecked]:
        """Return the checks that have ended since the last call."""
        return self._ended.take()

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._ended.close()

    def _check(self, check: CheckPassword) -> None:
        is_right = is_password(check.record, check.password)
        self._ended.post(PasswordChecked(check.number, check.record, is_right))


class GatewaySecurity(msgspec.Struct):
    server_key_file: str
    admin_key: str
    """Public key of the administrator; empty if there is none."""
    takes_sessions: bool
    """True if clients may use a token or a password."""
    takes_relays: bool = False
    """True if there is a TLS door, which relays connections."""


class GatewayArguments(msgspec.Struct):
    endpoint: str
    """The endpoint for clients; with a port of `*` the system chooses one, and the ready message reports it."""
    is_clustered: bool = False
    """True if its controller knows other nodes."""
    node: str = ""
    """Name of this node in a cluster."""
    security: GatewaySecurity | None = None
    """None: everyone may do everything."""
    is_audited: bool = False
    """True to write administrative acts and refusals to the topic of the audit."""


class GatewayActor(Actor[PasswordChecked, CheckPassword]):
    follows_connections: ClassVar[bool] = True
    follows_hosts: ClassVar[bool] = True
    follows_wall_clock: ClassVar[bool] = True
    is_prompt: ClassVar[bool] = True
    machine: GatewayMachine
    requests: ClassVar[tuple[type[Request], ...]] = REQUESTS

    def __init__(self, context: ActorContext, limits: Mapping[str, int] | None = None) -> None:
        """Create the actor. `limits` are those of `Tickets`, for tests."""
        super().__init__(context)
        self._arguments = msgspec.convert(context.arguments, GatewayArguments)
        # On a node of a cluster: its clients continue at another one.
        self.needs_supervisor = bool(self._arguments.node)
        security = self._arguments.security
        self._server_key = None if security is None else read_key_file(security.server_key_file)
        self._access: Access | None = None
        if security is not None and self._server_key is not None:
            own = internal_key(self._server_key).public_key
            self._access = Access(own, security.admin_key, takes_sessions=security.takes_sessions)
        self._passwords = PasswordChecks()
        self._handshakes = Handshakes()
        self.machine = GatewayMachine(
            instance_id=context.instance_id,
            run_directory=context.run_directory,
            address=context.address,
            incarnation=context.incarnation,
            pid=os.getpid(),
            is_clustered=self._arguments.is_clustered,
            access=self._access,
            is_audited=self._arguments.is_audited,
            node=self._arguments.node,
            limits=limits,
        )

    def endpoint(self) -> str | None:
        return self._arguments.endpoint

    def server_keys(self) -> ServerKeys | None:
        return None if self._server_key is None else ServerKeys(self._server_key)

    def admits(self, public_key: str, host: str) -> bool | None:
        assert self._access is not None
        if not self._handshakes.take(host, self.loop.now):
            return None
        is_admitted = self._access.admits(public_key, self.loop.wall)
        if is_admitted is False:
            self.machine.audit.refuse_handshake(host, self.loop.wall)
        return is_admitted

    def gauges(self) -> dict[str, int]:
        limits = self.machine.quotas.limits
        return {
            "requests_open": self.machine.open_requests,
            "limited_connections": limits.open_connections,
        }

    def knows(self, key: str) -> bool | None:
        return self.machine.knows(key, self.loop.wall)

    def vouchers(self) -> Vouchers | None:
        security = self._arguments.security
        return Vouchers(self.context.secret) if security is not None and security.takes_relays else None

    def on_relays_bound(self, endpoint: str) -> None:
        context = self.context
        write_relay_endpoint(context.run_directory, context.address, context.incarnation, endpoint)

    def start(self) -> None:
        if self._access is not None:
            self.loop.watch(self._passwords.fileno(), self._on_passwords)

    def perform(self, effect: CheckPassword) -> None:
        self._passwords.start(effect)

    def counters(self) -> dict[str, int]:
        quotas = self.machine.quotas
        return {"throttled_ms": quotas.throttled_ms, "refused_by_limits": quotas.limits.refused}

    def _on_passwords(self) -> None:
        for checked in self._passwords.ended():
            self.loop.dispatch(checked)

    def close(self) -> None:
        self._passwords.close()


def main(context: ActorContext) -> None:
    run_actor(GatewayActor(context), context)

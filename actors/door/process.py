"""The TLS door's process: its listening socket and its connections around the machine.

The loop waits for two sets of descriptors: relayed connections, and everything that is not relayed yet. The second is
served for SHAKING_MS in a turn, so handshakes, which cost elliptic-curve operations, delay relayed connections by little.
"""

import os
import selectors
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from ...transport.actor import Actor, ActorContext
from ...transport.addresses import Address, Kind
from ...transport.door import connections_limit
from ...transport.endpoints import host_and_port, host_of
from ...transport.loop import run_actor
from ...transport.protocol.errors import OperatorNeeded
from ...transport.security.relay import READ, RelayEnded
from ...transport.security.relay_endpoint import read_relay_endpoint
from ...transport.security.tls_options import TlsFileError, TlsFiles
from ...transport.security.vouchers import NUMBER_BYTES, Vouchers
from .certificate import Certificate
from .effects import (
    Arrived,
    Begin,
    CheckCertificate,
    Drop,
    Ended,
    Join,
    Opened,
    OwnEffect,
    OwnEvent,
    Secured,
    Started,
    StopListening,
)
from .guest import Guest
from .machine import DoorMachine
from .opening import OpeningRefused

BACKLOG = 4_096
MAX_ACCEPTS = 64
"""Connections accepted in a turn."""
SHAKING_MS = 5
RELAYING_MS = 50
DESCRIPTORS_EACH = 2
GATEWAY = Address(Kind.GATEWAY, number=0)


class DoorArguments(msgspec.Struct):
    endpoint: str
    files: TlsFiles
    requires_certificate: bool
    """True if clients can only be known by their certificates."""
    max_connections: int


class DoorActor(Actor[OwnEvent, OwnEffect]):
    machine: DoorMachine

    def __init__(self, context: ActorContext) -> None:
        super().__init__(context)
        self._arguments = arguments = msgspec.convert(context.arguments, DoorArguments)
        try:
            self._certificate = Certificate(
                arguments.files, requires_certificate=arguments.requires_certificate
            )
        except TlsFileError as error:
            raise OperatorNeeded(str(error)) from None
        self._vouchers = Vouchers(context.secret)
        self._limit = min(arguments.max_connections, connections_limit() // DESCRIPTORS_EACH)
        self.machine = DoorMachine(self._limit)
        self._guests: dict[int, Guest] = {}
        self._last = 0
        self._refused = 0
        """Connections whose first bytes were not those of a client."""
        self._pending = selectors.DefaultSelector()
        self._relayed = selectors.DefaultSelector()
        self._listener: socket.socket | None = None

    def endpoint(self) -> str | None:
        return None

    def start(self) -> None:
        self._listener = listening_socket(self._arguments.endpoint)
        self._pending.register(self._listener, selectors.EVENT_READ, self._accept)
        for selector, most_ms in ((self._pending, SHAKING_MS), (self._relayed, RELAYING_MS)):
            self.loop.watch(_descriptor(selector), partial(_serve, selector, most_ms))
        self.loop.dispatch(Started())

    def gauges(self) -> dict[str, int]:
        return {
            "connections": self.machine.connections,
            "handshakes": self.machine.pending,
            "refused": self._refused,
        }

    def alarms_now(self) -> tuple[str, ...]:
        found = []
        if self.machine.connections >= self._limit:
            found.append(f"no more connections: {self._limit} are open (tls_max_connections)")
        if self._certificate.fault:
            found.append(f"the previous certificate stays in use: {self._certificate.fault}")
        return tuple(found)

    def perform(self, effect: OwnEffect) -> None:
        match effect:
            case Begin(guest=number):
                self._begin(self._guests[number])
            case Join():
                self._join(self._guests[effect.guest], effect)
            case Drop(guest=number):
                self._close(number)
            case CheckCertificate():
                self._certificate.check()
            case StopListening():
                self._stop_listening()

    def close(self) -> None:
        self._stop_listening()
        for number in list(self._guests):
            self._close(number)
        self._pending.close()
        self._relayed.close()

    # Connections.

    def _accept(self) -> None:
        assert self._listener is not None
        for _ in range(MAX_ACCEPTS):
            try:
                accepted, found = self._listener.accept()
            except OSError:  # none waits, it is gone already, or there is no descriptor for it
                return
            try:
                guest = Guest(self._last + 1, accepted)
            except OSError:
                accepted.close()
                continue
            self._last += 1
            self._guests[self._last] = guest
            self.loop.dispatch(Arrived(self._last, host_of(found[0])))

    def _begin(self, guest: Guest) -> None:
        try:
            guest.begin(self._certificate.context)
        except OSError:
            self._end(guest)
            return
        _want(self._pending, guest.descriptors[0], selectors.EVENT_READ, lambda: self._shake_hands(guest))

    def _shake_hands(self, guest: Guest) -> None:
        try:
            event = guest.shake_hands()
        except OSError:  # among them all faults of TLS
            self._end(guest)
            return
        _want(self._pending, guest.descriptors[0], _selected(event))
        if not event:
            self.loop.dispatch(Secured(guest.number, *guest.certificate(), os.urandom(NUMBER_BYTES)))

    def _join(self, guest: Guest, join: Join) -> None:
        try:
            endpoint = read_relay_endpoint(self.context.run_directory, GATEWAY, join.gateway)
            guest.join(endpoint, self._vouchers.name_of(join.voucher))
        except OSError:  # the gateway has just ended
            self._end(guest)
            return
        self._run(guest)

    def _run(self, guest: Guest) -> None:
        was_opened = guest.is_opened
        try:
            guest.run()
        except OpeningRefused:
            self._refused += 1
            self._end(guest)
            return
        except RelayEnded:
            self._end(guest)
            return
        for descriptor, events in zip(guest.descriptors, guest.wanted, strict=True):
            _want(self._relayed, descriptor, _selected(events), lambda: self._run(guest))
        if guest.is_opened and not was_opened:
            self.loop.dispatch(Opened(guest.number))

    def _end(self, guest: Guest) -> None:
        self._close(guest.number)
        self.loop.dispatch(Ended(guest.number))

    def _close(self, number: int) -> None:
        guest = self._guests.pop(number)
        for descriptor in guest.descriptors:
            for selector in (self._pending, self._relayed):
                _want(selector, descriptor, 0)
        guest.close()

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._pending.unregister(self._listener)
            self._listener.close()
            self._listener = None


def _want(
    selector: selectors.BaseSelector, descriptor: int, events: int, call: Callable[[], None] | None = None
) -> None:
    """Call `call` when a descriptor has one of these events; a descriptor that is known keeps its own. 0: no longer."""
    known = selector.get_map().get(descriptor)
    if known is None:
        if events:
            selector.register(descriptor, events, call)
    elif not events:
        selector.unregister(descriptor)
    elif known.events != events:
        selector.modify(descriptor, events, known.data)


def _descriptor(selector: Any) -> int:
    """Return the descriptor that is readable when a selector has an event, of epoll or kqueue."""
    found: int = selector.fileno()
    return found


def _serve(selector: selectors.BaseSelector, most_ms: int) -> None:
    """Serve descriptors that are ready, for `most_ms` at most: the others are ready in the next turn, too."""
    ends_at = time.monotonic() + most_ms / 1_000
    for key, _ in selector.select(0):
        known = selector.get_map().get(key.fd)
        if known is not None and known.data is key.data:  # otherwise an earlier one has ended it
            key.data()
        if time.monotonic() >= ends_at:
            return


def _selected(events: int) -> int:
    """Return poll events as a selector takes them."""
    return (selectors.EVENT_READ if events & READ else 0) | (selectors.EVENT_WRITE if events & ~READ else 0)


def listening_socket(endpoint: str) -> socket.socket:
    """Return a socket that listens at `tls://HOST:PORT`. Raises OSError."""
    found = host_and_port(endpoint)
    assert found is not None, endpoint
    host, port = found
    kind = (socket.AF_UNSPEC, socket.SOCK_STREAM)
    family, _, protocol, _, address = min(
        socket.getaddrinfo(None if host == "*" else host, port, *kind, flags=socket.AI_PASSIVE),
        key=lambda each: each[0] != socket.AF_INET,
    )
    listener = socket.socket(family, socket.SOCK_STREAM, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def main(context: ActorContext) -> None:
    run_actor(DoorActor(context), context)

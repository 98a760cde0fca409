"""Relays: requests on their way between an actor of this node and an actor of another one. Pure.

    from                               to                                        answered with
    an actor of this node, a relay     the other node's link, as a forward       that link's reply, as it is
    another node's link, a forward     the actor at `address`, as it was made    the actor's reply, as it is

A refusal that a link makes has the id and the encoding of the request in the relay, as the actor's own refusal would:
its sender may pass it on unread. A relay that is not answered in its time fails as every call does. When its sender's
connection closes, or it withdraws the relay, the call is withdrawn as well, so that the receiver parks nothing for it.
"""

from typing import NamedTuple

import msgspec

from ...transport.addresses import Address
from ...transport.codec import id_of, is_json
from ...transport.machine import (
    Answered,
    Call,
    CancelCall,
    Cast,
    Effect,
    Failed,
    Received,
    Reply,
    Sender,
)
from ...transport.protocol.errors import ErrorBody, ErrorCode, ProtocolError
from ...transport.protocol.links import FORWARDED_KINDS, Forward, Relay
from ...transport.request_context import NO_CONTEXT, UNKNOWN, RequestContext
from .keys import RelayCall
from .roster import Roster

MAX_RELAYS = 20_000


class Open(NamedTuple):
    """A relay without a reply."""

    sender: Sender
    header: bytes


class Relays:
    def __init__(self, node: str, roster: Roster) -> None:
        self._node = node
        self._roster = roster
        self._open: dict[int, Open] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._open)

    def on_relay(self, received: Received, relay: Relay) -> list[Effect]:
        """Raises ProtocolError when it cannot be passed on."""
        if not received.payload:
            raise ProtocolError(ErrorCode.INVALID_REQUEST, "payload: a relay carries a header")
        if relay.node == self._node:
            address = relay.address
            return self._pass_on(received, relay, address, bytes(received.payload[0]), received.context)
        forward = Forward(
            node=relay.node,
            address=relay.address,
            timeout_ms=relay.timeout_ms,
            is_cast=relay.is_cast,
            context=None if received.context == UNKNOWN else received.context,
        )
        return self._pass_on(received, relay, self._roster.link_to(relay.node), forward, NO_CONTEXT)

    def on_forward(self, received: Received, forward: Forward) -> list[Effect]:
        """Raises ProtocolError when it cannot be passed on."""
        if not received.payload:
            raise ProtocolError(ErrorCode.INVALID_REQUEST, "payload: a relay carries a header")
        if forward.node != self._node:
            raise ProtocolError(
                ErrorCode.ACTOR_UNAVAILABLE, f"this is node {self._node!r}, not {forward.node[:100]!r}"
            )
        if forward.address.kind not in FORWARDED_KINDS:
            raise ProtocolError(
                ErrorCode.FORBIDDEN, f"{forward.address[:250]} does not accept requests from other nodes"
            )
        return self._pass_on(received, forward, forward.address, bytes(received.payload[0]), forward.context)

    def _pass_on(
        self,
        received: Received,
        relay: Relay | Forward,
        address: Address,
        request: Forward | bytes,
        context: RequestContext | None,
    ) -> list[Effect]:
        payload = list(received.payload[1:] if isinstance(request, bytes) else received.payload)
        if relay.is_cast:
            return [Cast(address, request, payload, context)]
        if len(self._open) >= MAX_RELAYS:
            raise ProtocolError(ErrorCode.OVERLOADED, "the link has too many open requests")
        self._last += 1
        self._open[self._last] = Open(received.sender, bytes(received.payload[0]))
        call = Call(
            RelayCall(self._last),
            address,
            request,
            payload=payload,
            timeout_ms=relay.timeout_ms,
            token=self._last,
            context=context,
        )
        return [call]

    def on_answered(self, key: RelayCall, answered: Answered) -> list[Effect]:
        relay = self._open.pop(key.number, None)
        return [] if relay is None else [Reply(relay.sender, answered.reply, answered.payload)]

    def on_failed(self, key: RelayCall, failed: Failed) -> list[Effect]:
        relay = self._open.pop(key.number, None)
        return [] if relay is None else [refusal(relay.sender, relay.header, failed.error)]

    def on_cancel(self, received: Received) -> list[Effect]:
        gone = [number for number, relay in self._open.items() if received.cancels(relay.sender)]
        return self._withdraw(gone)

    def on_closed(self, connection: bytes) -> list[Effect]:
        gone = [number for number, relay in self._open.items() if relay.sender.route[0] == connection]
        return self._withdraw(gone)

    def _withdraw(self, numbers: list[int]) -> list[Effect]:
        for number in numbers:
            del self._open[number]
        return [CancelCall(number) for number in numbers]


def refusal(sender: Sender, header: bytes, error: ErrorBody) -> Reply:
    """Return the refusal of a relayed request, whose header is given, to the sender of its relay."""
    return Reply(msgspec.structs.replace(sender, id=id_of(header), is_json=is_json(header)), error)

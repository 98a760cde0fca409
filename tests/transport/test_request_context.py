"""Contexts of requests: made inside the broker, recognised by its secret, and never taken from a client."""

import pytest

from planaria.transport.codec import encode_header
from planaria.transport.protocol.data import Fetch
from planaria.transport.protocol.quotas import RemoveQuota
from planaria.transport.request_context import ContextFrames, RequestContext, direct_context

CONTEXT = RequestContext(
    principal="alice", client_id="billing", connection=b"\x00c", is_admitted=True, trace="t-1"
)
HEADER = encode_header(Fetch(topic="ORDERS", partition=0, offset=0))


@pytest.mark.parametrize("envelope", [[b"\0\0\0\0\0\0\0\7", b""], []])
def test_a_context_stands_before_the_header_of_a_call_and_of_a_cast(envelope: list[bytes]) -> None:
    contexts = ContextFrames(b"secret")
    frames = [b"peer", *envelope, contexts.frame(CONTEXT), HEADER, b"payload"]
    assert contexts.take(frames) == CONTEXT
    assert frames == [b"peer", *envelope, HEADER, b"payload"]


@pytest.mark.parametrize(
    "forged", [ContextFrames(b"another").frame(CONTEXT), ContextFrames(b"").frame(CONTEXT), b"", b"\xc1"]
)
def test_a_context_without_the_secret_is_none(forged: bytes) -> None:
    frames = [b"peer", b"\0\0\0\0\0\0\0\7", b"", forged, HEADER]
    assert ContextFrames(b"secret").take(frames) is None
    assert frames[3] == forged


def test_a_context_is_not_looked_for_elsewhere() -> None:
    contexts = ContextFrames(b"secret")
    frames = [b"peer", b"\0\0\0\0\0\0\0\7", b"", HEADER, contexts.frame(CONTEXT)]
    assert contexts.take(frames) is None


def test_a_request_on_the_clients_own_connection_is_not_admitted() -> None:
    named = Fetch(topic="ORDERS", partition=0, offset=0, client_id="billing")
    assert direct_context(b"c", named) == RequestContext(client_id="billing", connection=b"c")
    # Here the id is the subject of the request, and not its sender.
    assert direct_context(b"c", RemoveQuota(client_id="billing")) == RequestContext(connection=b"c")

"""The two kinds of header: a request, identified by its `op`, and a reply, identified by the `id` that it echoes.

    request = envelope header payload*        reply = envelope header payload*
    header  = one map, MessagePack, or JSON when its first byte is `{`; the reply has the request's encoding

A request class names its op with `tag`. Unknown fields are refused, so that a misspelled option is never silently
ignored. Requests are frozen. Replies are mutable: the loop sets `id`.
"""

from collections.abc import Iterable

import msgspec

from .errors import ErrorBody

RequestId = int | str | None

PROTOCOL_VERSION = 1
MAX_FRAME_BYTES = 64 * 1024 * 1024
MAX_FRAMES = 256
MAX_HEADER_BYTES = 8 * 1024 * 1024


class Request(msgspec.Struct, tag_field="op", kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A request to an actor. `id` is chosen by the sender and echoed in the reply."""

    id: RequestId = None
    greeted: bool | msgspec.UnsetType = msgspec.UNSET
    """True if the sender has sent `hello` on this connection. A gateway that does not know the connection then
    answers HELLO_REQUIRED: ZeroMQ has reconnected without the sender's notice."""


class NodeRequest(Request, frozen=True):
    """A request between the links of two nodes. It is refused unless it arrives at a peer endpoint."""


class InternalRequest(Request, frozen=True):
    """A request that actors send to one another. A client's is answered FORBIDDEN (`transport/request_context.py`)."""


class PeerRequest(InternalRequest, frozen=True):
    """A request that an actor also takes from actors of other nodes, at its own endpoint for them."""


class Reply(msgspec.Struct, kw_only=True):
    """A reply. A refused request is answered by ErrorReply instead."""

    id: RequestId = None


class ErrorReply(Reply):
    error: ErrorBody


class Done(Reply):
    """A reply without content: the request was executed."""


TopicPartitions = dict[str, list[int]]
"""Partitions by topic, ascending."""


def by_topic(tps: Iterable[tuple[str, int]]) -> TopicPartitions:
    """Return partitions as a message has them."""
    found: TopicPartitions = {}
    for topic, partition in sorted(tps):
        found.setdefault(topic, []).append(partition)
    return found

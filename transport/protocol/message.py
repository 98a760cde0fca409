"""The two shapes every header has: a request, told by its `op`, and a reply, told by the `id` it echoes.

    request = envelope header payload*        reply = envelope header payload*
    header  = one map, MessagePack, or JSON when its first byte is `{`; the reply comes in the request's encoding

A request class names its op with `tag`; fields it does not know are refused, so that a misspelled option is never
silently ignored. Requests are frozen. Replies are plain: the loop fills in `id`.
"""

import msgspec

from .errors import ErrorBody

RequestId = int | str | None

PROTOCOL_VERSION = 1
MAX_FRAME_BYTES = 64 * 1024 * 1024
MAX_FRAMES = 256
MAX_HEADER_BYTES = 8 * 1024 * 1024


class Request(msgspec.Struct, tag_field="op", kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A question to an actor. `id` is the asker's own and comes back in the reply."""

    id: RequestId = None
    greeted: bool | msgspec.UnsetType = msgspec.UNSET
    """Whether the asker has said `hello` on this connection. A gateway that needs to know who asks, and does not, then
    answers HELLO_REQUIRED: ZeroMQ has connected again behind the asker's back."""


class Reply(msgspec.Struct, kw_only=True):
    """An answer. A refused request is answered by ErrorReply instead."""

    id: RequestId = None


class ErrorReply(Reply):
    error: ErrorBody


class Done(Reply):
    """An answer with nothing to say but that it is done."""


TopicPartitions = dict[str, list[int]]
"""Partitions by topic, ascending."""

"""The optional second argument of a handler: publishes the messages that result from its record.

    def charge(message, context):
        context.publish("PAYMENTS", pay(message.data), key=message.key)

No message leaves before the handler has returned, and none at all if it raises. Afterwards it depends on the
subscription's delivery: under `exactly-once` the messages take effect if and only if the record's offset is committed;
otherwise the record is done once they are durable. The subscriber's worker makes a context for each call.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from . import tracing
from .batch import Headers
from .client.content import check_details, encode_key, encode_value
from .client.messages import Message
from .client.publish_arguments import with_attributes
from .client.schedule import milliseconds_at
from .protocol.errors import PlanariaError
from .publication import Publication


class Context:
    """The surroundings of one call of a handler: its message, and a way to publish."""

    __slots__ = ("_carried", "_check", "_is_over", "_message", "_published")

    def __init__(
        self, check: Callable[[Publication], None], message: Any = None, carried: Headers | None = None
    ) -> None:
        """Make a context. `check` raises the error with which a message would be refused; `carried` are headers that
        published messages have unless they are given others."""
        self._carried = carried
        self._message = message
        self._check = check
        self._published: list[Publication] = []
        self._is_over = False

    @property
    def message(self) -> Message:
        """The message of this call, for a handler whose first parameter is the payload alone."""
        return self._message  # type: ignore[no-any-return]

    def publish(
        self,
        topic: str,
        value: Any,
        *,
        key: bytes | str | None = None,
        headers: Headers | None = None,
        partition: int | None = None,
        timestamp_ms: datetime | int | None = None,
        expires_at: datetime | int | None = None,
        priority: int | None = None,
    ) -> None:
        """Publish a message once the handler has returned. The arguments are those of `Producer.publish`.

        Raises InvalidOption, UnknownTopic, and ProtocolError for an unknown partition or a message that is too large.
        """
        if self._is_over:
            raise PlanariaError("the handler has returned: its context can no longer publish")
        at_ms = None if timestamp_ms is None else milliseconds_at(timestamp_ms)
        check_details(partition, at_ms)
        if self._carried is not None:
            headers = self._carried if headers is None else {**self._carried, **headers}
        headers = with_attributes(headers, expires_at, priority)
        if tracing.active is not None:
            headers = tracing.active.created(topic, headers)
        data, headers = encode_value(value, headers)
        message = Publication(topic, data, encode_key(key), headers, partition, at_ms)
        self._check(message)
        self._published.append(message)


def end_of(context: Context) -> Sequence[Publication]:
    """Return the messages that a handler published, after its return, and refuse further ones."""
    context._is_over = True
    return context._published

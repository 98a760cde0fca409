"""What a handler is given beside its message, if it asks for it: a way to publish what it makes of the message. Pure.

    def charge(message, context):
        context.publish("PAYMENTS", pay(message.data), key=message.key)

Nothing leaves before the handler has returned, and nothing at all when it raises. What happens then depends on the
subscription's delivery: under `exactly-once` it counts if and only if the message's offset moves, otherwise the message
is done when it is durable. Made for each call by the subscriber's worker, of no use after it.
"""

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from .batch import Headers
from .client.content import check_details, encode_key, encode_value
from .protocol.errors import PlanariaError


class Publication(Struct, frozen=True, gc=False):
    """One message that is to be published, encoded."""

    topic: str
    value: bytes | None
    key: bytes | None = None
    headers: Headers | None = None
    partition: int | None = None
    timestamp_ms: int | None = None

    @property
    def size_bytes(self) -> int:
        """Of its contents."""
        headers = self.headers or {}
        text = "".join([*headers, *headers.values()])
        return len(self.key or b"") + len(self.value or b"") + len(text.encode()) + 10 * len(headers)


class Context:
    """Publishes for one call of a handler."""

    __slots__ = ("_check", "_is_over", "_published")

    def __init__(self, check: Callable[[Publication], None]) -> None:
        """`check` raises what a message would be refused for."""
        self._check = check
        self._published: list[Publication] = []
        self._is_over = False

    def publish(
        self,
        topic: str,
        value: Any,
        key: bytes | str | None = None,
        *,
        headers: Headers | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> None:
        """Publish a message once the handler has returned; value, key and the rest are those of `Producer.publish`.

        Raises InvalidOption, UnknownTopic, and ProtocolError for a partition that is not there or a message that is too
        large.
        """
        if self._is_over:
            raise PlanariaError("the handler has returned: nothing can be published for its message any more")
        check_details(headers, partition, timestamp_ms)
        data, told = encode_value(value, headers)
        message = Publication(topic, data, encode_key(key), told, partition, timestamp_ms)
        self._check(message)
        self._published.append(message)

    def end(self) -> Sequence[Publication]:
        """What was published; from now on nothing can be."""
        self._is_over = True
        return self._published

"""A message that a handler publishes, on its way from the handler's Context to the producer. Pure."""

from msgspec import Struct

from .batch import Headers


class Publication(Struct, frozen=True, gc=False):
    """One message to be published, encoded."""

    topic: str
    value: bytes | None
    key: bytes | None = None
    headers: Headers | None = None
    partition: int | None = None
    timestamp_ms: int | None = None

    @property
    def size_bytes(self) -> int:
        """Size of its contents."""
        headers = self.headers or {}
        text = "".join([*headers, *headers.values()])
        return len(self.key or b"") + len(self.value or b"") + len(text.encode()) + 10 * len(headers)

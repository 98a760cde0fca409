"""What a program gives to a share consumer and gets from it: options, messages, refused acknowledgements.

A message belongs to the consumer that holds its lock, and speaks to it alone. Made by the share consumer, called by
programs.
"""

from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, Self

from msgspec import Meta, Struct

from ..protocol.errors import ProtocolError
from ..protocol.shares import MAX_ACQUIRED_BYTES, LockMilliseconds, ShareMemberId, Verdict
from ..verdicts import Reject, Release
from .messages import Message
from .options import REQUEST_TIMEOUT_MS, PositiveMilliseconds

if TYPE_CHECKING:
    from .share_consumer import ShareConsumer


class ShareOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """With `acknowledge` "implicit", a poll accepts what the one before it returned and nobody has spoken of.

    Locks are renewed in the background, for `max_poll_interval_ms` after the last poll at the longest.
    """

    member_id: ShareMemberId | None = None
    acknowledge: Literal["explicit", "implicit"] = "explicit"
    lock_ms: LockMilliseconds | None = None
    renew: bool = True
    max_poll_interval_ms: PositiveMilliseconds = 300_000
    max_bytes: Annotated[int, Meta(ge=1, le=MAX_ACQUIRED_BYTES)] = MAX_ACQUIRED_BYTES
    request_timeout_ms: PositiveMilliseconds = REQUEST_TIMEOUT_MS


class ShareMessage(Message, frozen=True, gc=False, kw_only=True):
    """A message that is locked to this consumer until it is acknowledged.

    `with message:` accepts it when the block ends. When the block raises, the message has failed, with the exception as
    the reason; `Release` and `Reject` say otherwise, and KeyboardInterrupt and SystemExit release it. The exception goes
    on. What the block has said itself holds.
    """

    delivery_count: int
    """1 the first time."""
    consumer: "ShareConsumer"

    def accept(self) -> None:
        """It is done, and will never be delivered again."""
        self.consumer.acknowledge([self], "accept")

    def release(self) -> None:
        """Another member may have it at once; this delivery is not charged."""
        self.consumer.acknowledge([self], "release")

    def fail(self, delay: timedelta | float = 0.0, reason: str = "") -> None:
        """It is delivered again after `delay` (seconds), or dead-lettered if it has been delivered often enough."""
        self.consumer.acknowledge([self], "fail", delay=delay, reason=reason)

    def reject(self, reason: str = "") -> None:
        """It is dead-lettered: no further attempt can help."""
        self.consumer.acknowledge([self], "reject", reason=reason)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        verdict: Verdict = "fail"
        if error is None:
            verdict = "accept"
        elif isinstance(error, Release) or not isinstance(error, Exception):
            verdict = "release"
        elif isinstance(error, Reject):
            verdict = "reject"
        reason = "" if error is None else f"{type(error).__name__}: {error}"
        if isinstance(error, Reject):
            reason = str(error) or reason
        self.consumer.settle(self, verdict, reason)


class Refused(NamedTuple):
    """An acknowledgement that came too late: somebody else may have the record by now."""

    topic: str
    partition: int
    offset: int
    verdict: Verdict
    error: ProtocolError

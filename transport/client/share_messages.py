"""Types that programs exchange with a share consumer: options, messages, refused acknowledgements.

A message belongs to the consumer that holds its lock, and calls only that one. Made by the share consumer,
used by programs.
"""

from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

from msgspec import Meta, Struct

from ..protocol.shares import MAX_ACQUIRED_BYTES, LockMilliseconds, ShareMemberId, Verdict
from ..verdicts import Reject, Release
from .messages import Message, stored_headers
from .options import REQUEST_TIMEOUT_MS, PositiveMilliseconds

if TYPE_CHECKING:
    from .share_consumer import ShareConsumer


class ShareOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of a share consumer. With `acknowledge` "implicit", a poll accepts the previous poll's
    unacknowledged messages.

    Locks are renewed in the background until `max_poll_interval_ms` after the last poll.
    """

    member_id: ShareMemberId | None = None
    acknowledge: Literal["explicit", "implicit"] = "explicit"
    lock_ms: LockMilliseconds | None = None
    renew: bool = True
    charge_on_disconnect: bool = False
    max_poll_interval_ms: PositiveMilliseconds = 300_000
    max_bytes: Annotated[int, Meta(ge=1, le=MAX_ACQUIRED_BYTES)] = MAX_ACQUIRED_BYTES
    request_timeout_ms: PositiveMilliseconds = REQUEST_TIMEOUT_MS


class ShareMessage(Message, frozen=True, gc=False, kw_only=True):
    """A message that is locked to this consumer until it is acknowledged.

    `with message:` accepts it when the block ends. When the block raises, the message fails with the exception as the
    reason; `Release` and `Reject` release and reject it, and KeyboardInterrupt and SystemExit release it. The
    exception propagates. An acknowledgement made within the block takes precedence.
    """

    delivery_count: int
    """1 for the first delivery."""
    _consumer: "ShareConsumer"

    def accept(self) -> None:
        """Accept the message: it is done and is never delivered again.

        This and the calls below raise PlanariaError for a message that is acknowledged or whose lock has expired, and
        Closed. They are sent with the next `poll`, `flush` or `close`, or within a moment.
        """
        self._consumer.acknowledge([self], "accept")

    def release(self) -> None:
        """Release the message: another member may receive it at once, and this delivery does not count as
        an attempt."""
        self._consumer.acknowledge([self], "release")

    def fail(self, delay: timedelta | float = 0.0, reason: str = "") -> None:
        """Fail the message: it is delivered again after `delay` (seconds or a timedelta), or dead-lettered after the
        last attempt, with the reason."""
        self._consumer.acknowledge([self], "fail", delay=delay, reason=reason)

    def reject(self, reason: str = "") -> None:
        """Reject the message: it is dead-lettered, because no further attempt can help."""
        self._consumer.acknowledge([self], "reject", reason=reason)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer._settle(self, *verdict_of(error))


def verdict_of(error: BaseException | None) -> tuple[Verdict, str]:
    """Return the verdict and the reason for a message whose block ended by this exception, or without one."""
    if error is None:
        return "accept", ""
    reason = f"{type(error).__name__}: {error}"
    if isinstance(error, Release) or not isinstance(error, Exception):
        return "release", reason
    if isinstance(error, Reject):
        return "reject", str(error) or reason
    return "fail", reason


LockedT = TypeVar("LockedT", bound=Message)


def locked(kind: type[LockedT], message: Message, delivery_count: int, consumer: Any) -> LockedT:
    """Return a message of this kind, which its consumer has locked."""
    made: Any = kind
    return made(  # type: ignore[no-any-return]
        message.topic,
        message.partition,
        message.offset,
        message.key,
        message.value,
        message.timestamp,
        stored_headers(message),
        message.leader_epoch,
        delivery_count=delivery_count,
        _consumer=consumer,
    )

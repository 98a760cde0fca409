"""The rounds in which a share consumer sends its verdicts and renewals, one at a time, and its end. Pure.

    round      begun by                                                   ends with
    verdicts   FlushAsked, EndAsked, `send`                               all answered; or put back and failed
    renewal    RenewAsked, `renew`                                        lost messages are no longer held

Owns the round in flight and the calls that wait for its end. A round takes all pending verdicts, or renews all held
messages, in as many requests as they need. Called by sharing.py, on both sides, under the shell's lock.
"""

from collections import deque
from typing import Literal

from msgspec import Struct

from ..calls.connections import Owner
from ..calls.events import Deliver
from ..machine import Answered, Effect, Failed
from ..protocol.errors import ErrorBody, ErrorCode, ProtocolError
from ..protocol.shares import Acknowledgement, AcknowledgeResult
from .acknowledgements import Holdings, Verdicts, merged, singles
from .acquired_ahead import Ahead
from .share_requests import LEAVE, ShareRequests

SEND_AT = 10_000
"""Pending acknowledgements are sent at the latest at this number, which also bounds one request."""
DONE = Answered(None, None)


class FlushAsked(Struct, frozen=True):
    """Send the pending verdicts; and acquire the records of the next poll, if one usually follows (Ahead)."""

    owner: Owner


class RenewAsked(Struct, frozen=True):
    owner: Owner


class EndAsked(Struct, frozen=True):
    """Send the pending verdicts and leave the group."""

    owner: Owner
    request_timeout_ms: int


class _Round(Struct, eq=False):
    """A round in flight."""

    is_renewal: bool
    said: Verdicts
    left: deque[Acknowledgement]
    """Acknowledgements that are not sent yet."""
    owners: list[Owner]
    ahead: int = 0
    """Number of records that the last request acquires."""
    asked_at: int = 0
    """The time of the request that acquires records; 0 if none is in flight."""
    part: list[Acknowledgement] = []
    """Acknowledgements of the request in flight."""

    def next_part(self) -> list[Acknowledgement]:
        self.part = [self.left.popleft() for _ in range(min(SEND_AT, len(self.left)))]
        return self.part


class Rounds:
    def __init__(self, requests: ShareRequests, holdings: Holdings, ahead: Ahead) -> None:
        self.state: Literal["open", "leaving", "left"] = "open"
        self.is_full = False
        """True once it was posted that there are SEND_AT pending verdicts."""
        self._requests = requests
        self._holdings = holdings
        self._ahead = ahead
        self._round: _Round | None = None
        self._next: deque[FlushAsked | RenewAsked | EndAsked] = deque()
        """Calls that wait for the round in flight to end."""
        self._ending: EndAsked | None = None

    @property
    def is_idle(self) -> bool:
        return self._round is None

    @property
    def asked_at(self) -> int:
        """Return the time of the request in flight, which acquires records."""
        assert self._round is not None
        return self._round.asked_at

    # The network thread.

    def ask(self, event: FlushAsked | RenewAsked | EndAsked, now: int) -> list[Effect]:
        self._next.append(event)
        return self.begin_next(now)

    def begin_next(self, now: int) -> list[Effect]:
        """Begin the calls that have waited for the end of a round."""
        if self._round is not None or not self._next:
            return []
        match self._next.popleft():
            case FlushAsked(owner=owner):
                ahead = self._ahead.on_flush(now)
                effects = self.send([owner], now, 0 if self._holdings.is_holding else ahead)
            case RenewAsked(owner=owner):
                effects = self.renew([owner], now)
            case EndAsked(owner=owner, request_timeout_ms=timeout_ms) as ending:
                self._ending = ending
                self._requests.timeout_ms = timeout_ms
                effects = self.send([owner], now)
        return effects + self.begin_next(now)

    def send(self, owners: list[Owner], now: int, ahead: int = 0) -> list[Effect]:
        return self._begin(self._verdicts(owners, ahead), now)

    def renew(self, owners: list[Owner], now: int) -> list[Effect]:
        said, lock_ms = self._holdings.renewals(), self._requests.lock_ms
        left = deque(each for tp, offsets in said.items() for each in merged(tp, offsets, lock_ms))
        return self._begin(_Round(True, said, left, owners), now)

    def _verdicts(self, owners: list[Owner], ahead: int = 0) -> _Round:
        said = self._holdings.take_said()
        self.is_full = False
        left = deque(each for tp, offsets in said.items() for each in merged(tp, offsets))
        return _Round(False, said, left, owners, ahead)

    def _begin(self, begun: _Round, now: int) -> list[Effect]:
        self._round = begun
        return self._continue(begun, now)

    def _continue(self, begun: _Round, now: int) -> list[Effect]:
        """Send the next request of the round, or end it."""
        part = begun.next_part()
        if not part:
            self._round = None
            if self._ending is not None and self._ending.owner in begun.owners:
                return self._leave()
            if begun.owners and not begun.is_renewal:
                self._ahead.on_flushed(now)
            return [Deliver(owner, DONE) for owner in begun.owners]
        if begun.ahead and not begun.left:
            count, begun.ahead, begun.asked_at = begun.ahead, 0, now
            return [self._requests.acknowledge_and_acquire(part, count)]
        return [self._requests.acknowledge(part)]

    def on_answer(self, results: list[AcknowledgeResult], now: int) -> list[Effect]:
        begun = self._round
        assert begun is not None
        begun.asked_at = 0
        begun.left += self._refused(begun, results)
        return self._continue(begun, now)

    def _refused(self, begun: _Round, results: list[AcknowledgeResult]) -> list[Acknowledgement]:
        """Note the acknowledgements that were refused. Return those to send again message by message.

        A message that is held once more has been delivered again: an earlier verdict must not reach that delivery.
        """
        again: list[Acknowledgement] = []
        for each, result in zip(begun.part, results, strict=True):
            if result.error is None:
                continue
            last = each.first_offset if each.last_offset is None else each.last_offset
            error = ProtocolError.from_body(result.error)
            is_range = error.code == ErrorCode.NOT_ACQUIRED and last > each.first_offset
            for one in singles(each, last) if is_range else [each]:
                if is_range and (begun.is_renewal or not self._holdings.holds(one)):
                    again.append(one)
                else:
                    self._holdings.refuse(one, error)
        return again

    def on_failure(self, error: ErrorBody, now: int) -> list[Effect]:
        begun = self._round
        assert begun is not None
        if (
            begun.asked_at and not error.retriable
        ):  # the records of the next poll are refused, not the verdicts
            begun.asked_at = 0
            begun.left.extendleft(reversed(begun.part))
            return self._continue(begun, now)
        self._round = None
        if not begun.is_renewal:
            self._holdings.put_back(begun.said)
        if self._ending is not None and self._ending.owner in begun.owners:
            self.state = "left"
        return [Deliver(owner, Failed(None, error)) for owner in begun.owners]

    def _leave(self) -> list[Effect]:
        """Release the held messages at once. Without a reply the end of the connection or the locks does so."""
        if not self._requests.has_acquired:
            return self.on_left()
        return [self._requests.leave(LEAVE)]

    def on_left(self) -> list[Effect]:
        assert self._ending is not None
        self.state = "left"
        return [Deliver(self._ending.owner, DONE)]

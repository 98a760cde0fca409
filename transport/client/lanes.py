"""One partition's side of an idempotent producer: the batches in flight, their order and sequences. Pure.

The broker remembers the last five batches of a producer id, answers a duplicate with the first reply, and refuses a
gap. So at most five batches are in flight, counted from the oldest unanswered one. After any failure all of them are
sent again, in order, with the same sequences: the broker recognises those already appended and appends the others.
Nothing is lost, duplicated or reordered.

    state        meaning                                       left by
    flowing      batches are sent as they come                 a failure -> draining
    draining     waiting for an answer to all in flight        the last one -> waiting
    waiting      until the backoff is over                     the timer -> flowing: all in flight are sent again
    held         as waiting, for the partition asked for it    the timer -> probing: the oldest is sent again, alone
    probing      waiting for the answer to that one            it is appended -> flowing; refused -> draining

A batch that is given up (too large, refused, too old) may leave a gap in the sequences, unless an unanswered attempt
appended it. The lane need not know. If there is a gap, the broker refuses the next batch as out of order although no
earlier batch lacks a reply. Only then is it certain that neither that batch nor any later one was appended, and the
lane starts again at sequence 0 in the next producer epoch (as in KIP-360), which also fences any copy still in transit.
A broker that has forgotten the producer id is a different case: batches without a reply may have been appended, so they
are reported as uncertain and never sent again. A lane's batches carry their topic id. A topic created again under the
same name checks it first and refuses them (UNKNOWN_TOPIC_ID): the old topic's records are deleted, and all batches in
flight start again in the new one.
"""

from collections import deque
from collections.abc import Iterator
from typing import Any, Protocol

from msgspec import UNSET, Struct, field

from ..addresses import TopicPartition
from ..batch import SEQUENCE_LIMIT
from ..machine import Receipt
from ..protocol.errors import ErrorBody, ErrorCode

MAX_IN_FLIGHT = 5
"""As many batches as a partition remembers of a producer id."""
MAX_EPOCH = 2**15 - 1
NOT_APPENDED = frozenset(
    {
        ErrorCode.BACKPRESSURE,
        ErrorCode.OVERLOADED,
        ErrorCode.THROTTLED,
        ErrorCode.STORAGE_FULL,
        ErrorCode.HELLO_REQUIRED,
    }
)
"""Retriable refusals after which the refused attempt has certainly written nothing."""
HELD_MS = 100
"""Pause of a lane after a backpressure refusal that names no delay."""
MOVED_MS = 100
"""Longest pause while another process leads: the next leader is known within a moment."""


class Batch(Protocol):
    """The parts of a batch that a lane uses."""

    @property
    def record_count(self) -> int: ...

    @property
    def created_ms(self) -> int: ...


class ProducerIdentity(Struct, frozen=True):
    producer_id: int
    epoch: int


class Flight(Struct, eq=False):
    """A batch that has been sent at least once."""

    batch: Batch
    sequence: int
    number: int
    """Position among the batches sent under this identity."""
    token: int = 0
    """Token of the attempt in flight; 0 if there is none. Replies to other attempts are stale."""
    is_doubtful: bool = False
    """True if an attempt left and ended without a reply: the batch may have been appended."""
    receipt: Receipt = field(default_factory=Receipt)
    """Receipt of the last attempt."""

    @property
    def may_be_appended(self) -> bool:
        return self.is_doubtful or (self.token != 0 and not self.receipt.is_unsent)


class Transmit(Struct, frozen=True):
    """Send a batch. Answered or Failed follows under the key `(lane, token)`.

    Without an identity (acks = 0) no reply follows, and the batch is done once sent.
    """

    lane: TopicPartition
    batch: Any
    identity: ProducerIdentity | None = None
    sequence: int = -1
    token: int = 0
    receipt: Receipt | None = None
    topic_id: str | None = None
    """Id of the topic that the sequence belongs to."""


class Outcome(Struct, frozen=True):
    """A batch is done: appended at `base_offset`, or failed with `error`."""

    lane: TopicPartition
    batch: Any
    base_offset: int = -1
    error: ErrorBody | None = None
    is_uncertain: bool = False
    """True if a failed batch may have been appended."""
    is_duplicate: bool = False
    """True if its dedup id was known: it was not written again."""


class PartitionSequence:
    """The batches of one partition, from the first attempt to the last answer."""

    def __init__(self, key: TopicPartition, tokens: Iterator[int], topic_id: str | None = None) -> None:
        self.key = key
        self.topic_id = topic_id
        """Id of the topic that the sequences belong to; None: any topic of the name."""
        self.identity: ProducerIdentity | None = None
        self.failures = 0
        self.retry_at: int | None = None
        self._tokens = tokens
        self._queue: deque[Batch] = deque()
        self._flights: deque[Flight] = deque()
        self._next_sequence = 0
        self._next_number = 0
        self._is_draining = False
        self._is_probing = False
        self.held_ms: int | None = None
        """Delay that the partition asked for when it refused for backpressure."""
        self.is_held = False
        """True from a refusal for backpressure until the next acknowledgement."""
        self.stopped_clock_ms = 0
        """Time before which no batch ages."""
        self._starts_again = False
        self._is_forgotten = False
        self._is_replaced = False
        self._last_error: ErrorBody | None = None

    def __len__(self) -> int:
        return len(self._queue) + len(self._flights)

    @property
    def is_idle(self) -> bool:
        """Return True if nothing is in flight or queued: a batch put now would be sent alone and at once.

        Only then is a batch that is not full worth sending. While another is in flight it had better grow until the
        reply arrives (like Nagle's algorithm in TCP): small messages then cost no more than the round trip.
        """
        return not self._queue and not self._flights and not self._is_stopped

    @property
    def is_drained(self) -> bool:
        """Return True if a failure occurred and nothing is in flight any more: time to set the backoff."""
        return self._is_draining and all(flight.token == 0 for flight in self._flights)

    @property
    def is_moved(self) -> bool:
        """Return True if the last refusal came from a replica that does not lead."""
        return self._last_error is not None and self._last_error.code == ErrorCode.NOT_LEADER

    @property
    def needs_identity(self) -> bool:
        return self.identity is None and bool(self._queue)

    @property
    def _is_stopped(self) -> bool:
        is_waiting = self._is_draining or self._is_probing or self.retry_at is not None
        return is_waiting or self.identity is None

    def put(self, batch: Batch) -> None:
        self._queue.append(batch)

    def transmit(self) -> list[Transmit]:
        """Return the batches to send now."""
        if self._is_stopped:
            return []
        sent: list[Transmit] = []
        for flight in self._flights:
            if flight.token == 0:
                sent.append(self._send(flight))  # noqa: PERF401 - a comprehension is a call
        while self._queue and self._is_in_window:
            batch = self._queue.popleft()
            flight = Flight(batch, self._next_sequence, self._next_number)
            self._next_number += 1
            self._next_sequence = (self._next_sequence + batch.record_count) % SEQUENCE_LIMIT
            self._flights.append(flight)
            sent.append(self._send(flight))
        return sent

    @property
    def _is_in_window(self) -> bool:
        """Return True if the broker would still remember the oldest in flight after one more batch,
        answered ones counted."""
        return not self._flights or self._next_number - self._flights[0].number < MAX_IN_FLIGHT

    def _send(self, flight: Flight) -> Transmit:
        assert self.identity is not None
        flight.token = next(self._tokens)
        flight.receipt = Receipt()
        numbers = (self.identity, flight.sequence, flight.token)
        return Transmit(self.key, flight.batch, *numbers, flight.receipt, self.topic_id)

    def _given_up(self, batch: Batch, error: ErrorBody, is_uncertain: bool) -> Outcome:
        return Outcome(self.key, batch, error=error, is_uncertain=is_uncertain)

    def acknowledge(self, token: int) -> Batch | None:
        """Return the batch that this reply is about; None if the reply is stale."""
        flight = self._flight(token)
        if flight is None:
            return None
        self._flights.remove(flight)
        self._is_probing = False
        self.failures = 0
        self._last_error = None
        return flight.batch

    def refuse(self, token: int, error: ErrorBody) -> Outcome | None:
        """Record a failed attempt. Return the outcome of the batch if it has to be given up."""
        flight = self._flight(token)
        if flight is None:
            return None
        flight.token = 0
        self._is_draining = True
        self._is_probing = False
        # After a batch without a reply both errors only mean that it has not arrived; it may be the very
        # first.
        is_head = flight is self._flights[0]
        if error.code == ErrorCode.OUT_OF_ORDER_SEQUENCE:
            self._starts_again |= is_head
        elif error.code == ErrorCode.UNKNOWN_PRODUCER:
            self._is_forgotten |= is_head
        elif error.code == ErrorCode.UNKNOWN_TOPIC_ID and self.topic_id is not None:
            self._is_replaced = True
            self.topic_id = None if error.topic_id is UNSET else error.topic_id
        elif error.code == ErrorCode.BACKPRESSURE:
            # Nothing was written, and nothing is wrong.
            wait_ms = error.retry_after_ms
            self.held_ms = HELD_MS if wait_ms is UNSET else wait_ms
            self._last_error = error
        elif error.retriable:
            flight.is_doubtful |= not flight.receipt.is_unsent and error.code not in NOT_APPENDED
            self._last_error = error
        else:
            self._flights.remove(flight)
            # The topic is gone, and so is everything written to its log.
            is_uncertain = flight.is_doubtful and error.code != ErrorCode.UNKNOWN_TOPIC
            return self._given_up(flight.batch, error, is_uncertain)
        return None

    def is_in_flight(self, token: int) -> bool:
        return self._flight(token) is not None

    def is_lost(self, token: int, error: ErrorBody) -> bool:
        """Return True if the refusal means that nothing sent under this identity can be placed any more."""
        is_head = bool(self._flights) and self._flights[0].token == token
        return is_head and error.code in (ErrorCode.OUT_OF_ORDER_SEQUENCE, ErrorCode.UNKNOWN_PRODUCER)

    def _flight(self, token: int) -> Flight | None:
        for flight in self._flights:
            if flight.token == token:
                return flight
        return None

    def drain(self, retry_at: int) -> list[Outcome]:
        """Begin the backoff after all attempts have ended. Give up batches that cannot be sent again safely."""
        self._is_draining = False
        lost: list[Outcome] = []
        if self._is_forgotten and not self._is_replaced:
            error = ErrorBody(ErrorCode.UNKNOWN_PRODUCER, "the partition has forgotten this producer")
            lost = [
                self._given_up(flight.batch, error, True) for flight in self._flights if flight.is_doubtful
            ]
            self._flights = deque(flight for flight in self._flights if not flight.is_doubtful)
        if self._is_forgotten or self._starts_again or self._is_replaced:
            self._start_again()
        if self._flights or self._queue:
            self.failures += self.held_ms is None
            self.retry_at = retry_at
        return lost

    def _start_again(self) -> None:
        assert self.identity is not None
        self._is_forgotten = self._starts_again = self._is_replaced = False
        self._queue.extendleft(flight.batch for flight in reversed(self._flights))
        self._flights.clear()
        self._next_sequence = 0
        epoch = self.identity.epoch + 1
        self.identity = ProducerIdentity(self.identity.producer_id, epoch) if epoch <= MAX_EPOCH else None

    def resume(self) -> list[Transmit]:
        """Resume after the backoff: everything in flight again, in order, then the queue; after a hold
        only the oldest."""
        self.retry_at = None
        was_held, self.held_ms = self.held_ms is not None, None
        if was_held and self._flights:
            self._is_probing = True
            return [self._send(self._flights[0])]
        return self.transmit()

    def expire(self, created_before: int) -> list[Outcome]:
        """Give up the batches that are too old, whatever their state."""
        reason = "not acknowledged within delivery_timeout_ms"
        if self._last_error is not None:
            reason += f"; last answer: {self._last_error.code}: {self._last_error.message}"
        error = ErrorBody(ErrorCode.TIMED_OUT, reason)
        expired: list[Outcome] = []
        if self.stopped_clock_ms >= created_before:
            return expired
        while self._flights and self._flights[0].batch.created_ms < created_before:
            flight = self._flights.popleft()
            self._is_probing = False
            expired.append(self._given_up(flight.batch, error, flight.may_be_appended))
        if not self._flights:
            while self._queue and self._queue[0].created_ms < created_before:
                expired.append(self._given_up(self._queue.popleft(), error, False))
        return expired

    def oldest_ms(self) -> int | None:
        """Return the creation time of the oldest batch, or the end of the time that does not count, if later."""
        oldest = self._flights[0].batch if self._flights else self._queue[0] if self._queue else None
        return None if oldest is None else max(oldest.created_ms, self.stopped_clock_ms)

    def give_up(self, error: ErrorBody) -> list[Outcome]:
        """Take everything out: the producer is closing."""
        given_up = [self._given_up(flight.batch, error, flight.may_be_appended) for flight in self._flights]
        given_up += [self._given_up(batch, error, False) for batch in self._queue]
        self._flights.clear()
        self._queue.clear()
        return given_up

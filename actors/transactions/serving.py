"""The requests to a coordinator of transactions, and its decisions. Pure.

Owns the entries as decided: the records follow, and every answer waits until they are durable. So the answer to
`end_transaction` is the commit point, and markers are sent after it. Called by machine.py, which flushes.

    request              entry                          decision
    init_producer        none                           a new producer id, epoch 0
                         is ending                      waits for the markers, TIMEOUT_MS; then CONCURRENT_TRANSACTIONS
                         Ongoing                        PrepareAbort; the answer waits as above
                         Empty, Complete*               the next epoch; the holder of the one before is fenced
                         (same holder, named by producer id and epoch: as above, but not fenced by another)
    add_to_transaction   the current epoch              Ongoing, with these participants
                         an older one, or unknown       these are sent its marker: an abort, if the outcome is unknown
    end_transaction      the current epoch              PrepareCommit | PrepareAbort, the next epoch
                         is ending (the one before)     waits as above
                         the one before, same outcome   answered as the first time
                         anything else                  PRODUCER_FENCED, TRANSACTION_ABORTED, INVALID_TRANSACTION
    (time)               Ongoing for too long           PrepareAbort
"""

from collections import deque
from typing import NamedTuple, Never

from msgspec import structs

from ...transport.machine import LoopEffect, Received, Reply
from ...transport.producer_ids import transactional_producer_id
from ...transport.protocol.data import InitProducer, InitProducerReply
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.message import Done, Request
from ...transport.protocol.transactions import (
    ID_EXPIRY_MS,
    LAST_EPOCH,
    AddToTransaction,
    EndTransaction,
    EndTransactionReply,
    ListTransactions,
    ListTransactionsReply,
    TransactionDescription,
)
from ..journal.recorder import Recorder
from .entry import Ended, TransactionEntry, Why, topic_partitions, topic_partitions_of
from .markers import Markers
from .records import Change

REQUESTS: tuple[type[Request], ...] = (InitProducer, AddToTransaction, EndTransaction, ListTransactions)
MAX_IDS = 100_000
MAX_NAMED = 5
"""Maximum number of participants that an error names."""
MAX_PARKED = 10
"""Maximum number of requests that wait for one transaction to complete."""
TIMEOUT_MS = 1_000
"""The longest time that they wait."""
SPARE_NUMBERS = 2
"""Numbers for producer ids that are kept in reserve."""
OVERDUE_AGAIN_MS = 1_000
"""The delay before another attempt to end an overdue transaction for which there was no number."""


class _Parked(NamedTuple):
    asked: Received
    until: int


class TransactionRequests:
    def __init__(
        self,
        number: int,
        endpoint: str | None,
        entries: dict[str, TransactionEntry],
        recorder: Recorder[Change, Never],
        markers: Markers,
        now: int,
    ) -> None:
        self._number = number
        self._endpoint = endpoint
        """The endpoint sent to each new holder."""
        self._entries = entries
        self._recorder = recorder
        self._markers = markers
        self._changes: dict[str, Change] = {}
        self._lazy: dict[str, Change] = {}
        """Completions, recorded together with other changes: the next start would find them out anyway."""
        self._recording: set[str] = set()
        """Transactional ids whose changes are being appended."""
        self._deadlines: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._parked: dict[str, deque[_Parked]] = {}
        self._numbers: deque[int] = deque()
        self._wanting: deque[Received] = deque()
        self.wall_offset_ms = 0
        """The lead of the wall clock over `now`."""
        # Times may have been recorded before a reboot of the machine, by a clock that was hours ahead.
        for name, entry in entries.items():
            if entry.changed_ms > now:
                entries[name] = structs.replace(entry, changed_ms=now)
            if entry.state == "Ongoing":
                self._deadlines[name] = now + entry.timeout_ms
            self._know(name, entry)

    def _know(self, name: str, entry: TransactionEntry) -> None:
        before = self._deadlines.pop(name, None)
        if entry.deadline_ms is not None:
            self._deadlines[name] = entry.deadline_ms if before is None else min(before, entry.deadline_ms)
        self._names[entry.producer_id] = name
        if entry.ended is not None:
            self._names[entry.ended.producer_id] = name

    # -- decisions

    def take(self) -> list[Change]:
        """Return the changes to record now."""
        changes = [*self._lazy.values(), *self._changes.values()] if self._changes else []
        if changes:
            self._recording.update(change.transactional_id for change in changes)
            self._lazy, self._changes = {}, {}
        return changes

    def record_completions(self) -> None:
        """Record completions that have waited long enough."""
        self._changes.update(self._lazy)
        self._lazy = {}

    def _decide(self, name: str, entry: TransactionEntry | None) -> None:
        self._lazy.pop(name, None)
        self._changes[name] = Change(name, entry)
        if entry is None:
            del self._entries[name]
            self._names = {known: other for known, other in self._names.items() if other != name}
        else:
            self._entries[name] = entry
            self._know(name, entry)

    def _answer(
        self, asked: Received, body: InitProducerReply | EndTransactionReply | Done | ListTransactionsReply
    ) -> list[LoopEffect]:
        """Answer once all decisions so far are durable."""
        if self._endpoint is not None and isinstance(body, InitProducerReply | EndTransactionReply):
            body.endpoint = self._endpoint
        return self._recorder.reply(asked.sender, body, is_gathered=bool(self._changes))

    # -- requests

    def on_request(self, asked: Received, now: int) -> list[LoopEffect]:
        try:
            self._recorder.check_room(len(self._changes))
            return self._on_request(asked, now)
        except ProtocolError as error:
            return [Reply(asked.sender, error.body)]

    def _on_request(self, asked: Received, now: int) -> list[LoopEffect]:
        match asked.request:
            case InitProducer() as request:
                return self._on_init(asked, request, now)
            case AddToTransaction() as request:
                return self._on_add(asked, request, now)
            case EndTransaction() as request:
                return self._on_end(asked, request, now)
            case ListTransactions():
                entries = sorted(self._entries.items())
                found = [_described(name, entry, self.wall_offset_ms) for name, entry in entries]
                return self._answer(asked, ListTransactionsReply(transactions=found))
        raise AssertionError(f"unknown request {asked.request!r}")

    def _on_init(self, asked: Received, request: InitProducer, now: int) -> list[LoopEffect]:
        name = request.transactional_id
        assert name is not None, "the gateway sends others to the controller"
        entry = self._entries.get(name)
        if entry is None:
            return self._on_first(asked, request, name, now)
        if entry.is_ending:
            return self._park(name, asked, now)
        is_same = _is_same_holder(entry, request)
        if request.producer_id is not None and not is_same:
            raise ProtocolError(ErrorCode.PRODUCER_FENCED, f"transactional id {name!r} has another holder")
        next_id = self._next_id(entry)
        if next_id is None:
            return self._want(asked)
        why: Why = "asked" if is_same else "fenced"
        if entry.state == "Ongoing":
            self._decide(name, entry.decided(False, why, next_id, now))
            return self._park(name, asked, now)
        if is_same and (request.producer_id, request.producer_epoch) != (
            entry.producer_id,
            entry.producer_epoch,
        ):
            # Its last transaction has ended, and the resulting producer id and epoch are not given out yet.
            return self._answer(
                asked, InitProducerReply(producer_id=entry.producer_id, producer_epoch=entry.producer_epoch)
            )
        entry = entry.reopened(next_id, request.transaction_timeout_ms, why, now)
        self._decide(name, entry)
        return self._answer(
            asked, InitProducerReply(producer_id=entry.producer_id, producer_epoch=entry.producer_epoch)
        )

    def _on_first(self, asked: Received, request: InitProducer, name: str, now: int) -> list[LoopEffect]:
        if request.producer_id is not None:
            raise ProtocolError(ErrorCode.PRODUCER_FENCED, f"transactional id {name!r} is no longer known")
        if len(self._entries) >= MAX_IDS:
            raise ProtocolError(ErrorCode.OVERLOADED, f"there are {MAX_IDS} transactional ids")
        if not self._numbers:
            return self._want(asked)
        producer_id = transactional_producer_id(self._number, self._numbers.popleft())
        self._decide(name, TransactionEntry("Empty", producer_id, 0, request.transaction_timeout_ms, now))
        return self._answer(asked, InitProducerReply(producer_id=producer_id, producer_epoch=0))

    def _on_add(self, asked: Received, request: AddToTransaction, now: int) -> list[LoopEffect]:
        identity = (request.producer_id, request.producer_epoch)
        name = self._names.get(request.producer_id)
        entry = None if name is None else self._entries[name]
        if name is not None and entry is not None and identity == (entry.producer_id, entry.producer_epoch):
            if entry.is_ending:
                raise ProtocolError(
                    ErrorCode.CONCURRENT_TRANSACTIONS, "the previous transaction is still being ended"
                )
            joined = entry.joined(request.partitions, request.groups, now)
            if (joined.partitions, joined.groups) != (entry.partitions, entry.groups):
                self._decide(name, joined)
            return self._answer(asked, Done())
        is_ahead = entry is not None and request.producer_id == entry.producer_id
        if is_ahead and entry is not None and request.producer_epoch > entry.producer_epoch:
            raise ProtocolError(
                ErrorCode.INVALID_TRANSACTION, f"there is no epoch {request.producer_epoch} yet"
            )
        if name is not None and (name in self._changes or name in self._recording):
            # A crash may still undo the outcome, so it must not be answered yet.
            raise ProtocolError(ErrorCode.CONCURRENT_TRANSACTIONS, "the end is still being recorded")
        ended = Ended(*identity, False, "fenced")
        if entry is not None and entry.ended is not None and identity == _identity(entry.ended):
            ended = entry.ended
        tps = sorted(topic_partitions_of(request.partitions))
        return [Reply(asked.sender, Done()), *self._markers.send_late(ended, tps, request.groups)]

    def _on_end(self, asked: Received, request: EndTransaction, now: int) -> list[LoopEffect]:
        identity = (request.producer_id, request.producer_epoch)
        name = self._names.get(request.producer_id)
        if name is None:
            raise ProtocolError(
                ErrorCode.INVALID_TRANSACTION, f"producer {request.producer_id} has no transactions"
            )
        entry = self._entries[name]
        current = (entry.producer_id, entry.producer_epoch)
        if identity != current:
            return self._on_repeated_end(asked, request, entry)
        if entry.is_ending:
            return self._park(name, asked, now)
        has_participants = request.partitions or request.groups or entry.state == "Ongoing"
        if not has_participants:
            return self._answer(asked, EndTransactionReply(producer_id=current[0], producer_epoch=current[1]))
        next_id = self._next_id(entry)
        if next_id is None:
            return self._want(asked)
        joined = entry.joined(request.partitions, request.groups, now)
        self._decide(name, joined.decided(request.commit, "asked", next_id, now))
        return self._answer(asked, EndTransactionReply(producer_id=next_id[0], producer_epoch=next_id[1]))

    def _on_repeated_end(
        self, asked: Received, request: EndTransaction, entry: TransactionEntry
    ) -> list[LoopEffect]:
        identity = (request.producer_id, request.producer_epoch)
        ended = entry.ended
        if ended is None or identity != _identity(ended) or ended.why == "fenced":
            if (
                identity > (entry.producer_id, entry.producer_epoch)
                and request.producer_id == entry.producer_id
            ):
                raise ProtocolError(
                    ErrorCode.INVALID_TRANSACTION, f"there is no epoch {request.producer_epoch} yet"
                )
            raise ProtocolError(ErrorCode.PRODUCER_FENCED, "another producer has the transactional id now")
        if request.commit == ended.is_committed:
            body = EndTransactionReply(producer_id=entry.producer_id, producer_epoch=entry.producer_epoch)
            return self._answer(asked, body)
        if ended.why == "timeout":
            raise ProtocolError(
                ErrorCode.TRANSACTION_ABORTED, "the transaction was open for longer than its timeout"
            )
        outcome = "committed" if ended.is_committed else "aborted"
        raise ProtocolError(ErrorCode.INVALID_TRANSACTION, f"the transaction has been {outcome}")

    # -- waiting

    def _park(self, name: str, asked: Received, now: int) -> list[LoopEffect]:
        waiting = self._parked.setdefault(name, deque())
        if len(waiting) >= MAX_PARKED:
            raise self._still_ending(name)
        waiting.append(_Parked(asked, now + TIMEOUT_MS))
        return []

    def next_timeout(self) -> int | None:
        """Return the time at which the next waiting request times out."""
        return min((waiting[0].until for waiting in self._parked.values()), default=None)

    def time_out(self, now: int) -> list[LoopEffect]:
        """Fail requests that have waited too long. Their senders may repeat them."""
        effects: list[LoopEffect] = []
        for name, waiting in list(self._parked.items()):
            while waiting and waiting[0].until <= now:
                effects.append(Reply(waiting.popleft().asked.sender, self._still_ending(name).body))
            if not waiting:
                del self._parked[name]
        return effects

    def _still_ending(self, name: str) -> ProtocolError:
        missing = self._markers.unanswered(name)
        who = ", ".join(missing[:MAX_NAMED]) + (" and others" if len(missing) > MAX_NAMED else "")
        why = f"{who} has not answered" if missing else "its record is not durable"
        message = f"the previous transaction is still being ended: {why}"
        return ProtocolError(ErrorCode.CONCURRENT_TRANSACTIONS, message)

    def _want(self, asked: Received) -> list[LoopEffect]:
        """Park a request until there is a number for a producer id."""
        if len(self._wanting) >= MAX_IDS:
            raise ProtocolError(ErrorCode.OVERLOADED, "too many requests wait for producer ids")
        self._wanting.append(asked)
        return []

    @property
    def is_wanting_numbers(self) -> bool:
        return len(self._numbers) < SPARE_NUMBERS + len(self._wanting)

    def on_number(self, number: int, now: int) -> list[LoopEffect]:
        self._numbers.append(number)
        return self.on_request(self._wanting.popleft(), now) if self._wanting else []

    def _next_id(self, entry: TransactionEntry) -> tuple[int, int] | None:
        """Return the next producer id and epoch; None while there is no number for a new producer id."""
        if entry.producer_epoch < LAST_EPOCH:
            return entry.producer_id, entry.producer_epoch + 1
        if not self._numbers:
            return None
        return transactional_producer_id(self._number, self._numbers.popleft()), 0

    # -- outcomes

    def begin(self) -> tuple[list[LoopEffect], list[str]]:
        """Resend markers after the replay, because they may not have been written."""
        return self._send_markers([(name, entry) for name, entry in self._entries.items() if entry.is_ending])

    def on_durable(self, changes: list[Change]) -> tuple[list[LoopEffect], list[str]]:
        self._recording.difference_update(change.transactional_id for change in changes)
        return self._send_markers(
            [
                (each.transactional_id, each.entry)
                for each in changes
                if each.entry is not None and each.entry.is_ending
            ]
        )

    def _send_markers(self, ending: list[tuple[str, TransactionEntry]]) -> tuple[list[LoopEffect], list[str]]:
        effects: list[LoopEffect] = []
        finished: list[str] = []
        for name, entry in ending:
            more, done = self._markers.send(name, entry)
            effects += more
            finished += done
        return effects, finished

    def on_complete(self, names: list[str], now: int) -> list[LoopEffect]:
        """Complete transactions whose participants have all answered."""
        effects: list[LoopEffect] = []
        for name in names:
            entry = self._entries[name] = self._entries[name].completed(now)
            self._lazy[name] = Change(name, entry)
            waiting = self._parked.pop(name, deque())
            for parked in waiting:
                effects += self.on_request(parked.asked, now)
        return effects

    @property
    def has_waiting_completions(self) -> bool:
        """True if completions wait that no other change will take along."""
        return bool(self._lazy) and not self._changes

    # -- time

    def next_deadline(self) -> int | None:
        return min(self._deadlines.values(), default=None)

    def abort_overdue(self, now: int) -> None:
        """Abort transactions that have exceeded their timeout."""
        for name in [name for name, at in self._deadlines.items() if at <= now]:
            entry = self._entries[name]
            next_id = self._next_id(entry)
            if next_id is None:
                self._deadlines[name] = now + OVERDUE_AGAIN_MS
            else:
                self._decide(name, entry.decided(False, "timeout", next_id, now))

    def forget_unused(self, now: int) -> None:
        for name, entry in list(self._entries.items()):
            is_busy = entry.state == "Ongoing" or entry.is_ending
            if not is_busy and entry.changed_ms + ID_EXPIRY_MS <= now:
                assert entry.moved("Dead", now).state == "Dead"
                self._decide(name, None)


def _identity(ended: Ended) -> tuple[int, int]:
    return ended.producer_id, ended.producer_epoch


def _is_same_holder(entry: TransactionEntry, request: InitProducer) -> bool:
    """Return True if the requester is the last holder of this transactional id."""
    given = (request.producer_id, request.producer_epoch)
    if given == (entry.producer_id, entry.producer_epoch):
        return True
    return entry.ended is not None and given == _identity(entry.ended) and entry.ended.why != "fenced"


def _described(name: str, entry: TransactionEntry, wall_offset_ms: int) -> TransactionDescription:
    return TransactionDescription(
        transactional_id=name,
        state=entry.state,
        producer_id=entry.producer_id,
        producer_epoch=entry.producer_epoch,
        timeout_ms=entry.timeout_ms,
        started_ms=None if entry.started_ms is None else entry.started_ms + wall_offset_ms,
        partitions=topic_partitions(entry.partitions),
        groups=list(entry.groups),
    )

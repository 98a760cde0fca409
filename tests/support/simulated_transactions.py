"""A coordinator of transactions without processes: its machine, its partition in memory, participants that remember.

Calls wait in `calls` until `answer`, `lose_answer` or `drain`, timers until `advance`; so a test chooses what is in
flight when the coordinator dies.
"""

from typing import Any

from model_partition import ModelPartition
from planaria.actors.journal.effects import BecomeReady, Started
from planaria.actors.transactions.machine import TransactionsMachine
from planaria.transport.machine import (
    Answered,
    Call,
    CancelTimer,
    Failed,
    Received,
    Reply,
    Sender,
    SetTimer,
    Stop,
    TimerFired,
)
from planaria.transport.protocol.control import EnsureGroup
from planaria.transport.protocol.data import (
    Fetch,
    FetchReply,
    InitProducer,
    InitProducerReply,
    Produce,
    ProduceReply,
)
from planaria.transport.protocol.errors import ErrorBody, ErrorCode
from planaria.transport.protocol.message import Done
from planaria.transport.protocol.topics import CatalogTopic, WatchCatalog, WatchCatalogReply
from planaria.transport.protocol.transactions import (
    AddToTransaction,
    EndGroupTransaction,
    EndTransaction,
    ListTransactions,
    Marker,
    WriteMarkers,
)

LOST = ErrorBody(ErrorCode.TIMED_OUT, "no answer in time", True)
REFUSED = ErrorBody(ErrorCode.INVALID_REQUEST, "what is that", False)


class SimulatedTransactions:
    """Replies go to `replies` by the request's number; `markers` is what each participant was told, in order."""

    def __init__(self) -> None:
        self.now = 1_700_000_000_000
        self.log = ModelPartition()
        self.topics = {"T"}
        self.version = 1
        self.markers: list[tuple[str, Marker]] = []
        self.refused: set[tuple[int, int]] = set()
        """Transactions whose markers partitions cannot take."""
        self.calls: list[Call] = []
        self.timers: dict[Any, int] = {}
        self.replies: dict[int, Any] = {}
        self.numbers = 0
        self.starts = 0
        self.is_ready = False
        self.is_controller_up = True
        self.fired: list[Any] = []
        self.machine: TransactionsMachine
        self._requests = 0
        self.start()
        self.drain()

    def start(self) -> None:
        """A next incarnation; whatever the last one had in flight is lost."""
        self.starts += 1
        self.calls, self.timers = [], {}
        self.is_ready = False
        self.machine = TransactionsMachine(
            "__transactions", 0, starter=f"run.{self.starts}", endpoint=f"ipc://{self.starts}"
        )
        self.handle(Started())

    # Requests

    def ask(self, request: Any) -> int:
        self._requests += 1
        self.handle(Received(Sender((b"x",), self._requests), request))
        return self._requests

    def request(self, request: Any) -> Any:
        """Ask, let everything become durable, and take the answer."""
        number = self.ask(request)
        self.drain()
        for _ in range(100):
            if number in self.replies:
                break
            self.advance(100)  # what failed before is tried again
        return self.replies[number]

    def begin(self, name: str = "x", **fields: Any) -> tuple[int, int]:
        return identity(self.request(InitProducer(transactional_id=name, **fields)))

    def add(self, who: tuple[int, int], *partitions: int) -> Any:
        request = AddToTransaction(
            producer_id=who[0], producer_epoch=who[1], partitions={"T": list(partitions)}
        )
        return self.request(request)

    def end(self, who: tuple[int, int], commit: bool = True, partitions: tuple[int, ...] = (0,)) -> Any:
        return self.request(ending(who, commit, partitions))

    def states(self) -> dict[str, str]:
        return {each.transactional_id: each.state for each in self.request(ListTransactions()).transactions}

    def told(self, who: tuple[int, int]) -> set[tuple[str, bool]]:
        """Which participants know of a transaction, and of which end."""
        return {
            (address, marker.committed)
            for address, marker in self.markers
            if (marker.producer_id, marker.producer_epoch) == who
        }

    # Effects

    def handle(self, event: Any) -> None:
        for effect in self.machine.handle(event, self.now):
            match effect:
                case Reply(to=sender, body=body):
                    assert isinstance(sender.id, int)
                    self.replies[sender.id] = body
                case Call():
                    self.calls.append(effect)
                case SetTimer(key=key, at=at):
                    self.timers[key] = at
                case CancelTimer(key=key):
                    self.timers.pop(key, None)
                case BecomeReady():
                    self.is_ready = True
                case Stop():
                    pass
                case _:
                    raise AssertionError(effect)

    def advance(self, duration_ms: int) -> None:
        end = self.now + duration_ms
        while (due := min(self.timers.values(), default=end + 1)) <= end:
            self.now = max(self.now, due)
            for key in [key for key, at in self.timers.items() if at <= self.now]:
                del self.timers[key]
                self.fired.append(key)
                self.handle(TimerFired(key))
            self.drain()
        self.now = end

    # Calls

    def answerable(self) -> list[Call]:
        return [call for call in self.calls if not self._is_parked(call)]

    def _is_parked(self, call: Call) -> bool:
        return isinstance(call.request, WatchCatalog) and call.request.after_version == self.version

    def answer(self, call: Call) -> None:
        if self._is_refused(call):
            self.fail(call, REFUSED)
            return
        if call.address == "controller" and not self.is_controller_up:
            self.fail(call)
            return
        self.calls.remove(call)
        self.handle(Answered(call.key, *self._outcome(call)))

    def _is_refused(self, call: Call) -> bool:
        named = call.request.markers if isinstance(call.request, WriteMarkers) else []
        return not self.refused.isdisjoint((each.producer_id, each.producer_epoch) for each in named)

    def lose_answer(self, call: Call) -> None:
        """It is done, and nobody hears of it."""
        self.calls.remove(call)
        self._outcome(call)
        self.handle(Failed(call.key, LOST))

    def fail(self, call: Call, error: ErrorBody = LOST) -> None:
        self.calls.remove(call)
        self.handle(Failed(call.key, error))

    def drain(self) -> None:
        while calls := self.answerable():
            self.answer(calls[0])

    def _outcome(self, call: Call) -> tuple[Any, ...]:
        match call.request:
            case WatchCatalog():
                topics = [CatalogTopic(topic, topic, 4, 1_000_000) for topic in sorted(self.topics)]
                return (WatchCatalogReply(version=self.version, topics=topics),)
            case InitProducer():
                self.numbers += 1
                return (InitProducerReply(producer_id=self.numbers, producer_epoch=0),)
            case Produce():
                result = self.log.produce(bytes(call.payload[0]))
                return (ProduceReply(batches=[result], high_watermark=self.log.end_offset),)
            case Fetch(offset=offset):
                frames, next_offset = self.log.read(offset, 1_000_000)
                body = FetchReply(
                    topic="__transactions", partition=0, log_start_offset=0,
                    high_watermark=self.log.end_offset, next_offset=next_offset,
                )  # fmt: skip
                return body, (b"".join(frames),)
            case EnsureGroup():
                pass
            case WriteMarkers(markers=markers):
                self.markers += [(call.address, marker) for marker in markers]
            case EndGroupTransaction(producer_id=producer_id, producer_epoch=epoch, committed=committed):
                self.markers.append((call.address, Marker(producer_id, epoch, committed)))
            case _:
                raise AssertionError(call)
        return (Done(),)


def identity(reply: Any) -> tuple[int, int]:
    return reply.producer_id, reply.producer_epoch


def ending(who: tuple[int, int], commit: bool, partitions: tuple[int, ...] = (0,)) -> EndTransaction:
    places = {"T": list(partitions)} if partitions else {}
    return EndTransaction(producer_id=who[0], producer_epoch=who[1], commit=commit, partitions=places)

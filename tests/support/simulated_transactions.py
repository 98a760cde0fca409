"""A coordinator of transactions without processes: its machine, its partition in memory, participants that remember."""

from typing import Any

from model_partition import ModelPartition
from planaria.actors.transactions.machine import TransactionsMachine
from planaria.actors.transactions.process import TransactionsActor
from planaria.transport.addresses import CONTROLLER
from planaria.transport.machine import (
    Call,
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
from simulated_actor import LOST, SimulatedActor

REFUSED = ErrorBody(ErrorCode.INVALID_REQUEST, "what is that", False)


class SimulatedTransactions(SimulatedActor):
    """Coordinator; `markers` lists the markers that each participant received, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.log = ModelPartition()
        self.topics = {"T"}
        self.markers: list[tuple[str, Marker]] = []
        self.refused: set[tuple[int, int]] = set()
        """Transactions whose markers partitions cannot take."""
        self.numbers = 0
        self.is_controller_up = True
        self.machine: TransactionsMachine
        self.run()

    def start(self) -> None:
        self.launch(
            lambda context, _: TransactionsActor(context),
            "transactions/0",
            {"topic": "__transactions", "number": 0, "node": "n1"},
        )

    # Requests

    def request(self, request: Any) -> Any:
        """Send a request, let everything become durable, and take the answer."""
        number = self.ask(request)
        self.drain()
        for _ in range(100):
            if number in self.replies:
                break
            self.advance(100)  # retries the failed calls
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
        """Return the participants that received an end of the transaction, with that end."""
        return {
            (address, marker.committed)
            for address, marker in self.markers
            if (marker.producer_id, marker.producer_epoch) == who
        }

    def advance(self, milliseconds: int, *_: Any) -> None:
        super().advance(milliseconds, self.drain)

    # Calls

    def _is_refused(self, call: Call) -> bool:
        named = call.request.markers if isinstance(call.request, WriteMarkers) else []
        return not self.refused.isdisjoint((each.producer_id, each.producer_epoch) for each in named)

    def _outcome(self, call: Call) -> Any:
        if self._is_refused(call):
            return REFUSED
        if call.address == CONTROLLER and not self.is_controller_up:
            return LOST
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
    tps = {"T": list(partitions)} if partitions else {}
    return EndTransaction(producer_id=who[0], producer_epoch=who[1], commit=commit, partitions=tps)

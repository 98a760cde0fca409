"""The routing of data requests to their partition. Pure.

topic or partition unknown     the controller is asked once; then UNKNOWN_TOPIC or UNKNOWN_PARTITION
partition never up yet         the request waits briefly, because a topic is usable as soon as it is created
partition down                 PARTITION_OFFLINE with the reason, retriable
partition up                   forwarded unchanged
"""

from msgspec import structs

from ...transport.addresses import is_internal, partition_address
from ...transport.codec import encode_header
from ...transport.machine import Call, Cast, Effect, Received
from ...transport.protocol.data import Fetch, ListOffsets, Produce, ProduceReply, Publish
from ...transport.protocol.errors import ErrorBody, ErrorCode, ProtocolError
from ...transport.protocol.topics import CatalogTopic, DeleteRecords
from .forwarding import CALL_TIMEOUT_MS, forward
from .peers import Peers
from .publish import PRODUCE_TIMEOUT_MS, Publisher
from .schedule_routes import ScheduleRoutes
from .tickets import Tickets
from .topic_table import TopicTable
from .waiting import Attempt, WaitingRoom

PartitionRequest = Produce | Fetch | ListOffsets | DeleteRecords

NO_TICKET = 0
START_TIMEOUT_MS = 5_000
"""The time for which a request waits for a partition's first start."""


class PartitionRoutes:
    def __init__(
        self,
        tickets: Tickets,
        table: TopicTable,
        peers: Peers,
        waiting_room: WaitingRoom,
        publisher: Publisher,
        schedules: ScheduleRoutes,
    ) -> None:
        self._tickets = tickets
        self._table = table
        self._peers = peers
        self._waiting_room = waiting_room
        self._publisher = publisher
        self._schedules = schedules

    def pass_unacknowledged(self, event: Received, request: Produce) -> list[Effect]:
        """Forward a produce with acks = 0 if the partition is up or sleeps; otherwise it is lost, as the mode allows."""
        entry = self._table.get(request.topic)
        is_there = entry is not None and 0 <= request.partition < entry.partitions
        if not is_there or is_internal(request.topic):
            return []
        address = partition_address(request.topic, request.partition)
        if self._peers.next_of_sleeper(address) is not None:
            # A cast does not wake a sleeping actor, so it is called; the answer belongs to no ticket.
            awaited = Produce(topic=request.topic, partition=request.partition, acks=1)
            return [Call(("forward", NO_TICKET), address, awaited, ProduceReply, payload=event.payload)]
        return [
            Cast(address, Produce(topic=request.topic, partition=request.partition, acks=0), event.payload)
        ]

    def route(self, attempt: Attempt, request: PartitionRequest | Publish, now: int) -> list[Effect]:
        """Raises ProtocolError for a request that is refused."""
        if is_internal(request.topic) and not isinstance(request, Fetch | ListOffsets):
            raise ProtocolError(ErrorCode.FORBIDDEN, f"topic {request.topic[:250]!r} is internal")
        refusal = self._refusal(request)
        if refusal is not None:
            if attempt.has_asked:
                raise refusal
            return self._table.ask(attempt)
        entry = self._table.get(request.topic)
        assert entry is not None
        starting = self._starting_address(request, entry, now)
        if starting is not None and (attempt.deadline is None or now < attempt.deadline):
            return self._wait(attempt, starting, now)
        if isinstance(request, Publish):
            waiting = self._schedules.prepare(attempt, request, now)
            if waiting is not None:
                return waiting
            schedulers = self._schedules.schedulers
            return self._publisher.on_publish(attempt.number, request, entry, schedulers, now)
        return self._forward(attempt, request)

    def _refusal(self, request: PartitionRequest | Publish) -> ProtocolError | None:
        entry = self._table.get(request.topic)
        if entry is None:
            return ProtocolError(ErrorCode.UNKNOWN_TOPIC, f"there is no topic {request.topic[:250]!r}")
        if request.partition is None or 0 <= request.partition < entry.partitions:
            return None
        return ProtocolError(
            ErrorCode.UNKNOWN_PARTITION,
            f"partition: topic {request.topic!r} has the partitions 0 to {entry.partitions - 1}, "
            f"not {request.partition}",
        )

    def _starting_address(
        self, request: PartitionRequest | Publish, entry: CatalogTopic, now: int
    ) -> str | None:
        """Return a needed partition whose first start is not over. Raises ProtocolError."""
        if isinstance(request, Publish):
            partitions = self._publisher.partitions_needed(request, entry, now)
        else:
            partitions = (request.partition,)
        addresses = (partition_address(entry.topic, partition) for partition in partitions)
        return next((address for address in addresses if self._peers.is_starting(address)), None)

    def _wait(self, attempt: Attempt, address: str, now: int) -> list[Effect]:
        deadline = now + START_TIMEOUT_MS if attempt.deadline is None else attempt.deadline
        waiting = Attempt(
            number=attempt.number, event=attempt.event, has_asked=attempt.has_asked, deadline=deadline
        )
        return self._waiting_room.park(address, waiting, deadline)

    def _forward(self, attempt: Attempt, request: PartitionRequest) -> list[Effect]:
        if isinstance(request, Produce | Fetch) and request.client_id:
            # The quota is enforced here; a name would tell the partition that it was not.
            request = structs.replace(request, client_id="")
            event = attempt.event
            raw = encode_header(request, event.sender.is_json)
            attempt = structs.replace(attempt, event=structs.replace(event, request=request, raw=raw))
        address = partition_address(request.topic, request.partition)
        if not self._peers.takes_calls(address):
            message = self._peers.why_down(address)
            return self._tickets.answer(attempt.number, ErrorBody(ErrorCode.PARTITION_OFFLINE, message, True))
        if isinstance(request, Fetch):
            return [forward(attempt, address, request.max_wait_ms + CALL_TIMEOUT_MS)]
        timeout_ms = PRODUCE_TIMEOUT_MS if isinstance(request, Produce) else CALL_TIMEOUT_MS
        return [forward(attempt, address, timeout_ms)]

"""The routing of a `publish`: it waits for the actors that its records need, then it is split into batches. Pure.

topic or partition unknown        the controller is asked once; then it is refused
a needed partition is starting    the request waits; one that is down fails only its own records
delayed records                   the schedulers are created with the first of them, and awaited
"""

from ...transport.addresses import DELAYED_TOPIC, Address, is_internal, partition_address, scheduler_address
from ...transport.machine import Effect
from ...transport.protocol.data import Publish
from ...transport.protocol.delayed import scheduler_of
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.topics import CatalogTopic
from .actor_kinds import PARTITION, SCHEDULER, refusal_of
from .delays import scheduled_ids
from .peers import Peers
from .publish import Publisher
from .router import Router
from .topic_table import TopicTable
from .waiting import Attempt


class PublishRoutes:
    def __init__(
        self, router: Router, table: TopicTable, peers: Peers, publisher: Publisher, gateway: str
    ) -> None:
        """`gateway` names this incarnation, uniquely among all."""
        self._router = router
        self._table = table
        self._peers = peers
        self._publisher = publisher
        self._gateway = gateway

    def route(self, attempt: Attempt, request: Publish, now: int) -> list[Effect]:
        """Raises ProtocolError for a request that is refused."""
        if is_internal(request.topic):
            raise ProtocolError(ErrorCode.FORBIDDEN, f"topic {request.topic[:250]!r} is internal")
        entry = self._table.get(request.topic)
        refusal = refusal_of(entry, request.topic, request.partition)
        if refusal is not None:
            return self._router.ask(attempt, refusal)
        assert entry is not None
        starting = self._starting_partition(request, entry, now)
        if starting is not None and not attempt.is_overdue(now):
            return self._router.wait(attempt, PARTITION, starting, now)
        ids = scheduled_ids(request, f"{self._gateway}.{attempt.number}")
        schedulers = self._table.partitions(DELAYED_TOPIC)
        if ids and not schedulers:
            return self._router.create(attempt, DELAYED_TOPIC)
        needed = sorted({scheduler_of(each, schedulers) for each in ids.values()})
        for address in map(scheduler_address, needed):
            if not self._peers.takes_calls(address):
                return self._router.wait(attempt, SCHEDULER, address, now)
        return self._publisher.on_publish(attempt, request, entry, ids, schedulers, now)

    def _starting_partition(self, request: Publish, entry: CatalogTopic, now: int) -> Address | None:
        """Return a needed partition whose first start is not over. Raises ProtocolError."""
        needed = self._publisher.partitions_needed(request, entry, now)
        addresses = (partition_address(entry.topic, partition) for partition in needed)
        return next((address for address in addresses if self._peers.is_starting(address)), None)

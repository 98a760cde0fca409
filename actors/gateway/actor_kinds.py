"""The kinds of actors that requests are routed to: the address for a request, and the result while it is not up. Pure.

kind           address is unknown                       not up                                      then
controller     never                                    kept for a while (`controller_calls.py`)
supervisor     never                                    never
partition      no such topic or partition               waits for a first start, not for a restart  PARTITION_OFFLINE
coordinator    never; started by `ensure_group`         waits, unless it is quarantined             ACTOR_UNAVAILABLE
scheduler,     no internal topic: created by            waits, unless it is quarantined             ACTOR_UNAVAILABLE
 transactions    `ensure_internal_actors`
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from msgspec import Struct

from ...transport.addresses import (
    CONTROLLER,
    DELAYED_TOPIC,
    SUPERVISOR,
    TRANSACTIONS_TOPIC,
    Address,
    coordinator_address,
    is_internal,
    partition_address,
    scheduler_address,
    transactions_address,
)
from ...transport.producer_ids import coordinator_of
from ...transport.protocol.data import Fetch, InitProducer, ListOffsets, Produce
from ...transport.protocol.delayed import CancelScheduled, ListScheduled, page_of, scheduler_of
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.topics import CatalogTopic, DeleteRecords
from ...transport.protocol.transactions import AddToTransaction, EndTransaction, coordinator_for

Topics: TypeAlias = Mapping[str, CatalogTopic]

PARTITION_START_MS = 5_000
"""The time for which a request waits for a partition's first start."""
ACTOR_START_MS = 10_000
"""The time for which a request waits for another actor to come up."""


class ActorKind(Struct, frozen=True, kw_only=True):
    address_of: Callable[[Any, Topics], Address | ProtocolError]
    """Return the address for a request; an error if the table knows none, which the controller may correct. Raises
    ProtocolError for an invalid request."""
    is_fixed: bool = False
    """Calls need no look into the directory."""
    unavailable: ErrorCode = ErrorCode.ACTOR_UNAVAILABLE
    start_timeout_ms: int = ACTOR_START_MS
    awaits_restart: bool = True
    has_groups: bool = False
    """Each serves one group, and the controller starts it when it is needed."""
    topic: str | None = None
    """The internal topic that belongs to these actors."""


def _partition(
    request: Produce | Fetch | ListOffsets | DeleteRecords, topics: Topics
) -> Address | ProtocolError:
    if is_internal(request.topic) and not isinstance(request, Fetch | ListOffsets):
        raise ProtocolError(ErrorCode.FORBIDDEN, f"topic {request.topic[:250]!r} is internal")
    refusal = refusal_of(topics.get(request.topic), request.topic, request.partition)
    return partition_address(request.topic, request.partition) if refusal is None else refusal


def refusal_of(entry: CatalogTopic | None, topic: str, partition: int | None) -> ProtocolError | None:
    """Return the refusal of a topic or partition that does not exist; None if both do."""
    if entry is None:
        return ProtocolError(ErrorCode.UNKNOWN_TOPIC, f"there is no topic {topic[:250]!r}")
    if partition is None or 0 <= partition < entry.partitions:
        return None
    return ProtocolError(
        ErrorCode.UNKNOWN_PARTITION,
        f"partition: topic {topic!r} has the partitions 0 to {entry.partitions - 1}, not {partition}",
    )


def _partitions(topics: Topics, topic: str) -> int:
    entry = topics.get(topic)
    return 0 if entry is None else entry.partitions


def _coordinator(request: Any, _: Topics) -> Address:
    return coordinator_address(request.group)


def _scheduler(request: ListScheduled | CancelScheduled, topics: Topics) -> Address | ProtocolError:
    count = _partitions(topics, DELAYED_TOPIC)
    if isinstance(request, CancelScheduled):
        if count:
            return scheduler_address(scheduler_of(request.scheduled_id, count))
        message = f"message {request.scheduled_id[:250]!r} is not scheduled: no message was ever scheduled"
        return ProtocolError(ErrorCode.UNKNOWN_SCHEDULED_ID, message)
    number, _ = page_of(request.after)
    if not count:
        return ProtocolError(ErrorCode.UNKNOWN_SCHEDULED_ID, "no message was ever scheduled")
    if number >= count:
        raise ProtocolError(ErrorCode.INVALID_REQUEST, "after: is not the `next` of a page")
    return scheduler_address(number)


def _transactions(
    request: InitProducer | AddToTransaction | EndTransaction, topics: Topics
) -> Address | ProtocolError:
    count = _partitions(topics, TRANSACTIONS_TOPIC)
    if isinstance(request, InitProducer):
        assert request.transactional_id is not None, "others are the controller's"
        if not count:
            return ProtocolError(ErrorCode.INVALID_TRANSACTION, "there is no coordinator yet")
        return transactions_address(coordinator_for(request.transactional_id, count))
    number = coordinator_of(request.producer_id)
    if number is not None and number < count:
        return transactions_address(number)
    message = f"producer_id: {request.producer_id} does not belong to a transactional_id"
    error = ProtocolError(ErrorCode.INVALID_TRANSACTION, message)
    if count:
        raise error
    return error


CONTROLLED = ActorKind(address_of=lambda *_: CONTROLLER, is_fixed=True)
SUPERVISED = ActorKind(address_of=lambda *_: SUPERVISOR, is_fixed=True)
PARTITION = ActorKind(
    address_of=_partition,
    unavailable=ErrorCode.PARTITION_OFFLINE,
    start_timeout_ms=PARTITION_START_MS,
    awaits_restart=False,
)
COORDINATOR = ActorKind(
    address_of=_coordinator,
    has_groups=True,
)
SCHEDULER = ActorKind(address_of=_scheduler, topic=DELAYED_TOPIC)
TRANSACTIONS = ActorKind(address_of=_transactions, topic=TRANSACTIONS_TOPIC)

"""The table of requests: the kind of actor each goes to, its time limit, and the room it takes meanwhile. Pure.

A request without a kind of actor is answered in the gateway: `hello`, `cancel`, `metadata` (`metadata.py`), `publish`
(`publish_routes.py`), `list_transactions` (`transaction_lists.py`).
"""

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from ...transport.protocol.cluster import CLUSTER_REQUESTS
from ...transport.protocol.data import Fetch, InitProducer, ListOffsets, Produce, Publish
from ...transport.protocol.delayed import CancelScheduled, ListScheduled, ListScheduledReply
from ...transport.protocol.deployments import DEPLOYMENT_REQUESTS
from ...transport.protocol.groups import (
    CommitOffsets,
    DeleteGroup,
    DescribeGroup,
    FetchOffsets,
    FetchOffsetsReply,
    GroupHeartbeat,
    LeaveGroup,
    ListGroups,
    ListGroupsReply,
    PauseGroup,
    ResetOffsets,
    ResumeGroup,
)
from ...transport.protocol.message import Reply, Request
from ...transport.protocol.mirrors import MIRROR_REQUESTS
from ...transport.protocol.operations import Kill, KillReply, Revive, ReviveReply, Status, StatusReply
from ...transport.protocol.quotas import ListQuotas, RemoveQuota, SetQuota
from ...transport.protocol.security import SECURITY_REQUESTS
from ...transport.protocol.session import Cancel, Hello, Metadata
from ...transport.protocol.shares import Acknowledge, Acquire, ConfigureShareGroup
from ...transport.protocol.topics import (
    AlterTopic,
    CreateTopic,
    DeleteRecords,
    DeleteTopic,
    DescribeTopic,
    ListTopics,
    ListTopicsReply,
)
from ...transport.protocol.transactions import AddToTransaction, EndTransaction, ListTransactions
from .actor_kinds import (
    CONTROLLED,
    COORDINATOR,
    PARTITION,
    SCHEDULER,
    SUPERVISED,
    TRANSACTIONS,
    ActorKind,
)

CALL_TIMEOUT_MS = 10_000
PRODUCE_TIMEOUT_MS = 30_000
CONTROLLER_TIMEOUT_MS = 60_000
"""A topic of many partitions takes long to come up."""
STATUS_WEIGHT = 32
"""High, to protect the supervisor."""


class Route(Struct, frozen=True, kw_only=True):
    """The routing of one type of request."""

    to: ActorKind | None
    timeout_ms: int = CALL_TIMEOUT_MS
    """The time for an answer beyond the waiting time of the request itself."""
    creates: bool = False
    """The actor is created if there is none."""
    is_poll: bool = False
    """The request may wait for changes (`max_wait_ms`): then it takes the room of polls, and its actor is notified when
    the requester is gone."""
    may_be_cut: bool = False
    """A stop of the gateway need not wait for the answer."""
    weight: int = 1
    """The weight of a small request at its actor (`lanes.py`)."""
    reply_type: type[Reply] | None = None
    """None: neither request nor answer are decoded again."""
    names_member: bool = False
    """The request names a member of a group or share group, which may be gone when its connection is."""
    if_none_exists: Callable[[], Reply] | None = None
    """Make the answer when there is no such actor."""


_ADMIN = Route(to=CONTROLLED, timeout_ms=CONTROLLER_TIMEOUT_MS)
_DATA = Route(to=PARTITION)
_GROUP = Route(to=COORDINATOR)
_NEW_GROUP = Route(to=COORDINATOR, creates=True)
_TRANSACTION = Route(to=TRANSACTIONS)
_HERE = Route(to=None)

TRANSACTIONAL_PRODUCER = Route(to=TRANSACTIONS, creates=True)

ROUTES: dict[type[Request], Route] = {
    Hello: _HERE,
    Cancel: _HERE,
    Metadata: Route(to=None, is_poll=True, may_be_cut=True),
    Status: Route(to=SUPERVISED, reply_type=StatusReply, may_be_cut=True, weight=STATUS_WEIGHT),
    Kill: Route(to=SUPERVISED, reply_type=KillReply),
    Revive: Route(to=SUPERVISED, reply_type=ReviveReply),
    CreateTopic: _ADMIN,
    AlterTopic: _ADMIN,
    DeleteTopic: _ADMIN,
    ListTopics: Route(to=CONTROLLED, timeout_ms=CONTROLLER_TIMEOUT_MS, reply_type=ListTopicsReply),
    DescribeTopic: _ADMIN,
    InitProducer: _ADMIN,
    ListGroups: Route(to=CONTROLLED, timeout_ms=CONTROLLER_TIMEOUT_MS, reply_type=ListGroupsReply),
    DeleteGroup: _ADMIN,
    SetQuota: _ADMIN,
    RemoveQuota: _ADMIN,
    ListQuotas: _ADMIN,
    **dict.fromkeys((*CLUSTER_REQUESTS, *SECURITY_REQUESTS, *DEPLOYMENT_REQUESTS, *MIRROR_REQUESTS), _ADMIN),
    Produce: Route(to=PARTITION, timeout_ms=PRODUCE_TIMEOUT_MS),
    Publish: _HERE,
    Fetch: Route(to=PARTITION, is_poll=True, may_be_cut=True),
    ListOffsets: _DATA,
    DeleteRecords: _DATA,
    GroupHeartbeat: Route(to=COORDINATOR, creates=True, is_poll=True, may_be_cut=True, names_member=True),
    CommitOffsets: _NEW_GROUP,
    FetchOffsets: Route(to=COORDINATOR, if_none_exists=lambda: FetchOffsetsReply(offsets=[])),
    LeaveGroup: _GROUP,
    DescribeGroup: _GROUP,
    ResetOffsets: _GROUP,
    PauseGroup: _GROUP,
    ResumeGroup: _GROUP,
    Acquire: Route(to=COORDINATOR, creates=True, is_poll=True, may_be_cut=True, names_member=True),
    Acknowledge: Route(to=COORDINATOR, names_member=True),
    ConfigureShareGroup: _NEW_GROUP,
    ListScheduled: Route(
        to=SCHEDULER, may_be_cut=True, if_none_exists=lambda: ListScheduledReply(messages=[])
    ),
    CancelScheduled: Route(to=SCHEDULER),
    AddToTransaction: _TRANSACTION,
    EndTransaction: _TRANSACTION,
    ListTransactions: _HERE,
}


def max_wait_ms_of(request: Any, route: Route) -> int:
    """Return the time for which a request may wait for changes."""
    return request.max_wait_ms if route.is_poll else 0


def route_of(request: Request) -> Route:
    """Return the route of a request. Only `init_producer` has two: a transactional id has a coordinator of its own."""
    if type(request) is InitProducer and request.transactional_id is not None:
        return TRANSACTIONAL_PRODUCER
    return ROUTES[type(request)]

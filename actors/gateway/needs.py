"""The permissions that each request needs. Pure.

A request that is not in the table is refused to everyone but `admin`, so that a new one is not open by mistake; a rule
of the tests holds the table complete. NOTHING needs a principal, and no right.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

from ...transport.addresses import is_internal
from ...transport.protocol.cluster import CLUSTER_REQUESTS
from ...transport.protocol.data import Fetch, InitProducer, ListOffsets, Produce, Publish
from ...transport.protocol.delayed import CancelScheduled, ListScheduled
from ...transport.protocol.deployments import (
    ChangeDeployment,
    Deploy,
    ListDeployments,
    ReadDeploymentOutput,
)
from ...transport.protocol.groups import (
    CommitOffsets,
    DeleteGroup,
    DescribeGroup,
    FetchOffsets,
    GroupHeartbeat,
    LeaveGroup,
    ListGroups,
    PauseGroup,
    ResetOffsets,
    ResumeGroup,
)
from ...transport.protocol.message import Request
from ...transport.protocol.mirrors import ChangeMirror, CreateMirror, ListMirrors, PromoteMirror
from ...transport.protocol.operations import Kill, Revive, Status
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
)
from ...transport.protocol.transactions import AddToTransaction, EndTransaction, ListTransactions
from ...transport.security.rights import CLUSTER, Need, Right

Needs: TypeAlias = tuple[Need, ...]

READS: tuple[Right, ...] = ("consume", "queue")
"""Either lets a principal read a topic: a member of a share group fetches its acquired records."""
# The answers to `list_topics`, `list_groups` and `metadata` of all topics have only those with any right on them.
ANY_ON_TOPIC: tuple[Right, ...] = ("produce", "consume", "queue", "manage")
ANY_ON_GROUP: tuple[Right, ...] = ("consume", "queue", "manage")
MANAGES = Need(("manage",), CLUSTER)
OPERATES = Need(("operate",), CLUSTER)
IS_ADMIN = Need(("admin",), CLUSTER)
NOTHING: Needs = ()


def _topic(*rights: Right) -> Callable[[Any], Needs]:
    def needs(request: Any) -> Needs:
        # The broker's own topics hold records of every topic and group.
        if is_internal(request.topic):
            return (OPERATES,)
        return (Need(rights, "topic", request.topic),)

    return needs


def _group(*rights: Right) -> Callable[[Any], Needs]:
    return lambda request: (Need(rights, "group", request.group),)


def _fixed(*needs: Need) -> Callable[[Any], Needs]:
    return lambda _: needs


def _heartbeat(request: GroupHeartbeat) -> Needs:
    return (Need(("consume",), "group", request.group), *_topics(("consume",), request.topics or ()))


def _acquire(request: Acquire) -> Needs:
    return (Need(("queue",), "group", request.group), *_topics(("queue",), request.topics))


def _topics(rights: tuple[Right, ...], topics: Any) -> Needs:
    return tuple(Need(rights, "topic", topic) for topic in topics)


def _commit(request: CommitOffsets) -> Needs:
    topics = dict.fromkeys(offset.topic for offset in request.offsets)
    return (Need(("consume",), "group", request.group), *_topics(("consume",), topics))


def _configure(request: ConfigureShareGroup) -> Needs:
    own = Need(("manage",), "group", request.group)
    # The broker writes its dead letters for those who could do it themselves.
    return (own, Need(("produce",), "topic", request.dead_letter)) if request.dead_letter else (own,)


def _init_producer(request: InitProducer) -> Needs:
    if request.transactional_id is None:
        return NOTHING
    return (Need(("produce",), "transaction", request.transactional_id),)


def _end(request: AddToTransaction | EndTransaction) -> Needs:
    groups = tuple(Need(("consume",), "group", group) for group in request.groups)
    return (*_topics(("produce",), request.partitions), *groups)


NEEDS: dict[type[Request], Callable[[Any], Needs]] = {
    Hello: _fixed(),
    Cancel: _fixed(),
    Metadata: lambda request: _topics(ANY_ON_TOPIC, [t for t in request.topics or () if not is_internal(t)]),
    Produce: _topic("produce"),
    Publish: _topic("produce"),
    InitProducer: _init_producer,
    AddToTransaction: _end,
    EndTransaction: _end,
    Fetch: _topic(*READS),
    ListOffsets: _topic(*READS),
    DeleteRecords: _topic("manage"),
    CreateTopic: _topic("manage"),
    AlterTopic: _topic("manage"),
    DeleteTopic: _topic("manage"),
    DescribeTopic: _topic(*ANY_ON_TOPIC),
    GroupHeartbeat: _heartbeat,
    CommitOffsets: _commit,
    FetchOffsets: _group("consume", "manage"),
    LeaveGroup: _group("consume"),
    DescribeGroup: _group(*ANY_ON_GROUP),
    ResetOffsets: _group("manage"),
    DeleteGroup: _group("manage"),
    PauseGroup: _group("manage"),
    ResumeGroup: _group("manage"),
    Acquire: _acquire,
    Acknowledge: _group("queue"),
    ConfigureShareGroup: _configure,
    ListTopics: _fixed(),
    ListGroups: _fixed(),
    ListScheduled: _fixed(MANAGES),
    CancelScheduled: _fixed(MANAGES),
    ListTransactions: _fixed(OPERATES),
    Status: _fixed(OPERATES),
    Kill: _fixed(OPERATES),
    Revive: _fixed(OPERATES),
    SetQuota: _fixed(OPERATES),
    RemoveQuota: _fixed(OPERATES),
    ListQuotas: _fixed(OPERATES),
    Deploy: _fixed(IS_ADMIN),
    ChangeDeployment: _fixed(IS_ADMIN),
    ListDeployments: _fixed(OPERATES),
    ReadDeploymentOutput: _fixed(OPERATES),
    CreateMirror: _fixed(IS_ADMIN),
    ChangeMirror: _fixed(OPERATES),
    PromoteMirror: _fixed(OPERATES),
    ListMirrors: _fixed(OPERATES),
    **dict.fromkeys(CLUSTER_REQUESTS, _fixed(OPERATES)),
    **dict.fromkeys(SECURITY_REQUESTS, _fixed(IS_ADMIN)),
}


def needs_of(request: Request) -> Needs:
    found = NEEDS.get(type(request))
    return (IS_ADMIN,) if found is None else found(request)

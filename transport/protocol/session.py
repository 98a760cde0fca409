"""The session API group: the greeting, and the endpoints of topics.

    C: hello(version, client_id, token | user,         S: limits, instance_id, run_directory, nodes, principal
             password)
    C: cancel(request_id)                              not answered
    C: metadata(topics, groups, after_version,         S: version, topics, their partitions and endpoints,
                max_wait_ms)                               endpoints of the groups' coordinators, nodes

`metadata` is a long poll: with `after_version` it is parked until the directory has changed past that version or
`max_wait_ms` have passed. A client on the same machine (the file `instance` in `run_directory` holds `instance_id`) may
connect to the endpoints that the reply names of partitions and coordinators, which has none with authentication; any
other sends everything to the gateway, or to those of the nodes that lead.
"""

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

from .data import MAX_WAIT_MS, WaitMilliseconds
from .message import MAX_FRAME_BYTES, MAX_FRAMES, PROTOCOL_VERSION, Reply, Request, RequestId


class Hello(Request, tag="hello", frozen=True):
    version: int = PROTOCOL_VERSION
    client_id: str = ""
    """The client's name for itself: quotas use it."""
    token: Annotated[str, Meta(max_length=200)] = ""
    user: Annotated[str, Meta(max_length=200)] = ""
    password: Annotated[str, Meta(max_length=1_000)] = ""
    """A token, or user and password, open a session for the connection's key. Only over an encrypted connection."""

    def __repr__(self) -> str:
        return f"Hello(client_id={self.client_id!r})"


class Node(Struct, frozen=True):
    """A node of the cluster that is running."""

    node: str
    endpoint: str
    """The endpoint for clients."""


class HelloReply(Reply):
    version: int
    server: str
    """Name and version of the broker, such as `planaria/0.1.0`."""
    instance_id: str
    """Changes with every start of the supervisor."""
    run_directory: str
    max_frame_bytes: int = MAX_FRAME_BYTES
    max_frames: int = MAX_FRAMES
    max_fetch_bytes: int = MAX_FRAME_BYTES
    max_wait_ms: int = MAX_WAIT_MS
    nodes: list[Node] | UnsetType = UNSET
    """Set by a node of a cluster: all nodes that it knows to run, usually itself included; not those that it takes for
    dead, so that no client waits for their answers."""
    principal: str | UnsetType = UNSET
    """The name under which the rights of this connection are checked; set by a broker with authentication."""
    expires_ms: int | UnsetType = UNSET
    """The time at which its credentials expire, in ms since the epoch; 0: never."""


class Cancel(Request, tag="cancel", frozen=True):
    """The sender withdraws one of its requests. It gets no reply, unless that was already in transit."""

    request_id: RequestId = None
    """Id of a request on this connection, in the same envelope; None: all of them."""


class Metadata(Request, tag="metadata", frozen=True):
    topics: list[str] | None = None
    """None requests every topic except the internal ones."""
    groups: Annotated[list[str], msgspec.Meta(max_length=10_000)] = field(default_factory=list)
    """Consumer groups and share groups whose coordinators' endpoints are requested. Changes of them wake no poll."""
    after_version: int | None = None
    max_wait_ms: WaitMilliseconds = 0


class PartitionMetadata(Struct):
    partition: int
    online: bool
    incarnation: int = 0
    endpoint: str | None = None
    """The partition's own endpoint, for a client on the broker's machine; None while it is offline, and for a
    client under a quota."""
    reason: str | None = None
    """The reason why it is offline."""
    node: str | UnsetType = UNSET
    """The node that leads it, if that is another one than the answering one. Unset for a client under a quota."""


class TopicMetadata(Struct):
    topic: str
    topic_id: str
    """Differs between a topic and its successor of the same name."""
    max_message_bytes: int
    partitions: list[PartitionMetadata]


class GroupMetadata(Struct):
    group: str
    endpoint: str | None = None
    """The own endpoint of the group's coordinator, for a client on the broker's machine; None while it sleeps, is
    down or does not exist, and for a client under a quota: the gateway then takes the group's requests."""
    node: str | UnsetType = UNSET
    """The node of the coordinator, if that is another one than the answering one. Unset for a client under a quota."""


class MetadataReply(Reply):
    version: int
    instance_id: str
    topics: list[TopicMetadata]
    unknown_topics: list[str] = field(default_factory=list)
    groups: list[GroupMetadata] | UnsetType = UNSET
    """Set if groups were requested."""
    nodes: list[Node] | UnsetType = UNSET
    """As in the reply to `hello`. Changes of them wake no poll."""

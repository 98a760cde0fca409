"""A group's member as the coordinator's records hold it, and the limits on a member's own fields.

Owns the struct and its derived sets; changes no state (a Member is frozen, a change is a new one). Used by state.py,
which keeps the applied ones, and member_decisions.py, which makes the next ones.
"""

from collections.abc import Iterable, Mapping

from msgspec import Struct

from ...transport.addresses import TopicPartition
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.groups import AssignorName, GroupHeartbeat
from .assignors import DEFAULT_ASSIGNOR

MAX_MEMBERS = 1_000
MAX_TOPICS = 1_000
MAX_NAME_LENGTH = 256
"""Longest member id, instance id, client id and topic, in characters."""


class Member(Struct, frozen=True, kw_only=True):
    member_id: str
    instance_id: str | None = None
    client_id: str = ""
    topics: tuple[str, ...] = ()
    """Subscribed topics, ascending."""
    session_timeout_ms: int = 10_000
    assignor: AssignorName | None = None
    replaced: str | None = None
    """The member id of a static member's previous process, which is fenced."""
    generation: int = 0
    """The generation in which its assignment changed last."""
    target: frozenset[TopicPartition] = frozenset()
    """The partitions the assignor wants the member to have."""
    held: dict[TopicPartition, int] = {}
    """The partitions granted and not released yet, with the generation of each grant."""

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions the member should own now."""
        return self.target.intersection(self.held)

    @property
    def is_settled(self) -> bool:
        return self.target == self.held.keys()

    @property
    def heartbeat_interval_ms(self) -> int:
        return self.session_timeout_ms // 3

    @property
    def order(self) -> tuple[str, str]:
        """Sort key among the members: a static member keeps its position over a restart."""
        return (self.instance_id or self.member_id, self.member_id)


def preferred_assignor(members: Iterable[Member]) -> AssignorName:
    """Return the assignor requested by most members; on a tie the first by name; the default if none is requested."""
    votes: dict[AssignorName, int] = {}
    for member in members:
        if member.assignor is not None:
            votes[member.assignor] = votes.get(member.assignor, 0) + 1
    return min(votes, key=lambda name: (-votes[name], name), default=DEFAULT_ASSIGNOR)


def flattened(partitions: Mapping[str, Iterable[int]]) -> frozenset[TopicPartition]:
    return frozenset(
        TopicPartition(topic, partition) for topic, numbers in partitions.items() for partition in numbers
    )


def checked_topics(topics: Iterable[str]) -> tuple[str, ...]:
    """Return a subscription in its stored form. Raises ProtocolError if it is too large."""
    chosen = tuple(sorted(set(topics)))
    if len(chosen) > MAX_TOPICS:
        raise ProtocolError(ErrorCode.INVALID_REQUEST, f"topics: {len(chosen)} given, {MAX_TOPICS} allowed")
    for topic in chosen:
        check_name("topics", topic)
    return chosen


def check_identity(request: GroupHeartbeat) -> None:
    """Raise ProtocolError if one of a joining member's own names is too long."""
    check_name("member_id", request.member_id or "")
    check_name("instance_id", request.instance_id or "")
    check_name("client_id", request.client_id)


def check_name(field: str, name: str) -> None:
    if len(name) > MAX_NAME_LENGTH:
        raise ProtocolError(
            ErrorCode.INVALID_REQUEST, f"{field}: {len(name)} characters, {MAX_NAME_LENGTH} allowed"
        )

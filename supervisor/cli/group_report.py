"""Reports of `planaria group describe` and `list`: the coordinators' answers, joined with the ends of the logs."""

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from msgspec import Struct

from ...transport.addresses import Address, TopicPartition, coordinator_address
from ...transport.client.descriptions import GroupDescription, GroupMember, GroupPause
from ...transport.protocol.errors import ErrorCode, ProtocolError
from .retries import RetryingRecord, of_hosted

if TYPE_CHECKING:
    from ...transport.client.client import Client
    from ...transport.client.descriptions import BrokerStatus


ASKED_AT_ONCE = 16


class GroupEntry(Struct, kw_only=True):
    group: str
    type: str | None
    """None when the group's coordinator does not run, or is asleep."""
    state: str | None
    """`asleep` when the coordinator is asleep: the group is empty."""
    paused: GroupPause | None = None


def entries_of(client: "Client") -> list[GroupEntry]:
    """Return every group. Requests the coordinators' states concurrently, waits for none and wakes none."""
    states = {actor.address: actor.state for actor in client.status().actors}

    def entry_of(group: str) -> GroupEntry | None:
        actor_state = states.get(coordinator_address(group))
        if actor_state != "ready":
            return GroupEntry(group=group, type=None, state="asleep" if actor_state == "asleep" else None)
        try:
            found = client.describe_group(group)
        except ProtocolError as error:
            if error.code != ErrorCode.UNKNOWN_GROUP:
                raise
            return None  # deleted meanwhile
        return GroupEntry(group=group, type=found.type, state=found.state, paused=found.paused)

    with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
        return [entry for entry in pool.map(entry_of, sorted(client.list_groups())) if entry is not None]


class PartitionReport(Struct, kw_only=True):
    topic: str
    partition: int
    committed: int | None
    log_end_offset: int | None
    """None when the partition is offline or its topic is gone."""
    lag: int | None
    member_id: str | None
    metadata: str = ""


class GroupReport(Struct, kw_only=True):
    group: str
    state: str
    generation: int
    assignor: str
    lag: int | None
    """Sum over the partitions whose lag is known; None when none is."""
    members: list[GroupMember]
    partitions: list[PartitionReport]
    paused: GroupPause | None
    alarms: list[str]
    """Alarms of its coordinator and its hosted members."""
    retrying_count: int
    retrying: list[RetryingRecord]


def report_on(client: "Client", found: GroupDescription) -> GroupReport:
    committed = {(entry.topic, entry.partition): entry for entry in found.offsets}
    owners = {
        (topic, partition): member.member_id
        for member in found.members
        for topic, partitions in member.assignment.items()
        for partition in partitions
    }
    tps = sorted(committed.keys() | owners.keys())
    ends = log_ends(client, sorted({topic for topic, _ in tps}))
    rows = []
    for topic, partition in tps:
        entry = committed.get((topic, partition))
        start, end = ends.get(TopicPartition(topic, partition), (None, None))
        # Without a committed offset, or with one before the log's start, reading begins at the log's start.
        read = start if entry is None or start is None else max(entry.offset, start)
        rows.append(
            PartitionReport(
                topic=topic,
                partition=partition,
                committed=entry.offset if entry is not None else None,
                log_end_offset=end,
                lag=max(0, end - read) if end is not None and read is not None else None,
                member_id=owners.get((topic, partition)),
                metadata=entry.metadata if entry is not None else "",
            )
        )
    status = client.status()
    retrying = of_hosted(status, found.group)
    lags = [row.lag for row in rows if row.lag is not None]
    return GroupReport(
        group=found.group,
        state=found.state,
        generation=found.generation,
        assignor=found.assignor,
        lag=sum(lags) if lags or not rows else None,
        members=found.members,
        partitions=rows,
        paused=found.paused,
        alarms=alarms_of(status, found.group),
        retrying_count=retrying.count,
        retrying=retrying.records,
    )


def alarms_of(status: "BrokerStatus", group: str) -> list[str]:
    """Return the alarms of the group's coordinator and its hosted members."""
    return [
        f"{actor.address}: {alarm}"
        for actor in status.actors
        if Address.parse(actor.address).group == group
        for alarm in actor.alarms
    ]


def log_ends(client: "Client", topics: list[str]) -> dict[TopicPartition, tuple[int, int]]:
    """Return the first and the next offset of every online partition. A deleted topic has none."""
    ends: dict[TopicPartition, tuple[int, int]] = {}
    for topic in topics:
        try:
            found = client.describe_topic(topic)
        except ProtocolError as error:
            if error.code != ErrorCode.UNKNOWN_TOPIC:
                raise
            continue
        for partition in found.partitions:
            if partition.log_start_offset is not None and partition.high_watermark is not None:
                ends[TopicPartition(topic, partition.partition)] = (
                    partition.log_start_offset,
                    partition.high_watermark,
                )
    return ends

"""Requests of operators to a broker: topics, groups, offsets, the supervision tree. Part of the client.

Requests that may be done twice are retried until the client's request timeout. `create_topic` and `delete_topic` are
tried once; if that attempt has no answer, again in a way that takes the first one's success for their own.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Literal, TypeVar, Unpack, cast

from msgspec import structs

from ..addresses import GATEWAY, TopicPartition, partition_address
from ..keywords import QuotaSettings, TopicSettings
from ..machine import Call, Payload
from ..protocol.data import Fetch, FetchReply, Isolation, ListOffsets, ListOffsetsReply
from ..protocol.delayed import CancelScheduled, ListScheduled, ListScheduledReply, ScheduledMessage
from ..protocol.errors import ErrorCode, ProtocolError
from ..protocol.groups import (
    DeleteGroup,
    DescribeGroup,
    DescribeGroupReply,
    FetchOffsets,
    FetchOffsetsReply,
    ListGroups,
    ListGroupsReply,
    PartitionOffset,
    ResetOffsets,
)
from ..protocol.message import Done, Reply, Request
from ..protocol.operations import Kill, KillReply, Revive, ReviveReply, SignalName, Status, StatusReply
from ..protocol.quotas import ListQuotas, ListQuotasReply, Quota, QuotaChange, RemoveQuota, SetQuota
from ..protocol.shares import ConfigureShareGroup, ConfigureShareGroupReply
from ..protocol.topics import (
    AlterTopic,
    CreateTopic,
    DeleteRecords,
    DeleteRecordsReply,
    DeleteTopic,
    DescribeTopic,
    DescribeTopicReply,
    ListTopics,
    ListTopicsReply,
    TopicConfigChange,
    TopicSummary,
)
from ..protocol.transactions import ListTransactions, ListTransactionsReply, TransactionDescription
from .commits import as_offsets
from .errors import TopicExists, UnknownTopic
from .network import Network
from .options import known
from .schedule import milliseconds_at

ReplyT = TypeVar("ReplyT", bound=Reply)
SCHEDULED_PAGE = 1_000
"""Delayed messages asked for at once."""
OffsetPoint = Literal["earliest", "latest"] | int | datetime
"""A datetime or a timestamp in milliseconds: the first offset at or after it."""


class Admin:
    """The operator's half of a client."""

    def __init__(self, network: Network, request_timeout_ms: int) -> None:
        self._network = network
        self._request_timeout_ms = request_timeout_ms

    def _ask(self, request: Request, reply_type: type[ReplyT], *, is_retried: bool = True) -> ReplyT:
        timeout_ms = self._request_timeout_ms
        return self._network.call(GATEWAY, request, reply_type, timeout_ms=timeout_ms, is_retried=is_retried)

    # Topics.

    def create_topic(
        self, topic: str, partitions: int = 1, *, if_not_exists: bool = False, **config: Unpack[TopicSettings]
    ) -> DescribeTopicReply:
        """Create a topic; `config` takes the fields of TopicConfig, such as `retention_ms`.

        Raises a ProtocolError with code TOPIC_EXISTS when there is one; with `if_not_exists` the existing one is
        returned as it is. If an attempt has no answer, an existing topic with the very partitions and configuration
        asked for counts as created: it is this call's own, or equal to it.
        """
        wanted = TopicConfigChange(**known(TopicConfigChange, config))
        request = CreateTopic(topic=topic, partitions=partitions, config=wanted, if_not_exists=if_not_exists)
        try:
            return self._ask(request, DescribeTopicReply, is_retried=if_not_exists)
        except ProtocolError as error:
            if if_not_exists or not error.retriable:
                raise
        found = self._ask(structs.replace(request, if_not_exists=True), DescribeTopicReply)
        is_same = len(found.partitions) == partitions and all(
            getattr(found.config, name) == value for name, value in config.items()
        )
        if not is_same:
            raise TopicExists(ErrorCode.TOPIC_EXISTS, f"topic {topic!r} exists and is different")
        return found

    def delete_topic(self, topic: str) -> None:
        """Delete a topic and its data. Raises UnknownTopic when it does not exist, TimedOut."""
        try:
            self._ask(DeleteTopic(topic=topic), Done, is_retried=False)
            return
        except ProtocolError as error:
            if not error.retriable:
                raise
        try:
            self._ask(DeleteTopic(topic=topic), Done)
        except ProtocolError as error:
            if error.code != ErrorCode.UNKNOWN_TOPIC:
                raise

    def alter_topic(
        self, topic: str, partitions: int | None = None, **config: Unpack[TopicSettings]
    ) -> DescribeTopicReply:
        """Change a topic's configuration; partitions can grow, never shrink."""
        change = TopicConfigChange(**known(TopicConfigChange, config))
        return self._ask(AlterTopic(topic=topic, partitions=partitions, config=change), DescribeTopicReply)

    def describe_topic(self, topic: str) -> DescribeTopicReply:
        """Return a topic's configuration and, for each partition, its offsets, size in bytes and state.

        Raises UnknownTopic, TimedOut.
        """
        return self._ask(DescribeTopic(topic=topic), DescribeTopicReply)

    def list_topics(self, *, internal: bool = False) -> list[TopicSummary]:
        """Return the name and number of partitions of each topic; with `internal`, of the broker's own topics, too.

        Raises TimedOut.
        """
        return self._ask(ListTopics(internal=internal), ListTopicsReply).topics

    # Offsets and data of partitions.

    def delete_records(self, topic: str, partition: int, before_offset: int = -1) -> int:
        """Delete what is below an offset (-1: everything readable); the new first readable offset."""
        request = DeleteRecords(topic=topic, partition=partition, before_offset=before_offset)
        return self._ask_partition(topic, partition, request, DeleteRecordsReply).log_start_offset

    def list_offsets(
        self,
        topic: str,
        partition: int,
        at: OffsetPoint = "latest",
        *,
        isolation: Isolation = "read_uncommitted",
    ) -> ListOffsetsReply:
        """The offset at a point of a partition's log; -1 when no record is that young.

        With `isolation` "read_committed" the log ends where the first open transaction begins.
        """
        point = milliseconds_at(at) if isinstance(at, datetime) else at
        request = ListOffsets(topic=topic, partition=partition, at=point, isolation=isolation)
        return self._ask_partition(topic, partition, request, ListOffsetsReply)

    def fetch(
        self,
        topic: str,
        partition: int,
        offset: int,
        *,
        max_bytes: int = 1024 * 1024,
        max_wait_ms: int = 0,
    ) -> tuple[FetchReply, Payload]:
        """Whole batches from `offset` on, as they are stored; the first may begin before it."""
        request = Fetch(
            topic=topic,
            partition=partition,
            offset=offset,
            max_bytes=max_bytes,
            max_wait_ms=max_wait_ms,
            format="batches",
        )
        timeout_ms = self._request_timeout_ms + max_wait_ms
        ask = Call(
            None,
            partition_address(topic, partition),
            request,
            FetchReply,
            timeout_ms=timeout_ms,
            is_retried=True,
        )
        answer = self._network.exchange(ask)
        return answer.reply, answer.payload

    def _ask_partition(
        self, topic: str, partition: int, request: Request, reply_type: type[ReplyT]
    ) -> ReplyT:
        address = partition_address(topic, partition)
        return self._network.call(address, request, reply_type, timeout_ms=self._request_timeout_ms)

    # Delayed messages.

    def list_scheduled(self, topic: str | None = None, limit: int = 1_000) -> list[ScheduledMessage]:
        """Messages that are held back, at most `limit`, in the order in which each scheduler got them."""
        found: list[ScheduledMessage] = []
        after: str | None = None
        while len(found) < limit:
            page = min(limit - len(found), SCHEDULED_PAGE)
            reply = self._ask(ListScheduled(topic=topic, limit=page, after=after), ListScheduledReply)
            found += reply.messages
            after = reply.next
            if after is None:
                break
        return found

    def cancel_scheduled(self, scheduled_id: str) -> None:
        """Call a delayed message off; once this returns it will not be delivered.

        Raises a ProtocolError with code UNKNOWN_SCHEDULED_ID when none of that name is held back any more.
        """
        self._ask(CancelScheduled(scheduled_id=scheduled_id), Done)

    # Transactions.

    def list_transactions(self) -> list[TransactionDescription]:
        """Every transactional id that is known, and how its last transaction stands."""
        return self._ask(ListTransactions(), ListTransactionsReply).transactions

    # Groups.

    def list_groups(self) -> list[str]:
        """Return the names of all consumer groups and share groups. Raises TimedOut."""
        return self._ask(ListGroups(), ListGroupsReply).groups

    def describe_group(self, group: str) -> DescribeGroupReply:
        """Return a group's type, state, members and committed offsets. Raises UnknownGroup, TimedOut."""
        return self._ask(DescribeGroup(group=group), DescribeGroupReply)

    def configure_share_group(
        self,
        group: str,
        *,
        lock_ms: int | None = None,
        max_deliveries: int | None = None,
        dead_letter: str | None = None,
        start: Literal["earliest", "latest"] | None = None,
    ) -> ConfigureShareGroupReply:
        """Make a share group, or change one; what is None stays as it is. An empty `dead_letter` is none.

        Raises a ProtocolError with code INVALID_GROUP when it is a consumer group.
        """
        request = ConfigureShareGroup(
            group=group, lock_ms=lock_ms, max_deliveries=max_deliveries, dead_letter=dead_letter, start=start
        )
        return self._ask(request, ConfigureShareGroupReply)

    def group_offsets(self, group: str) -> dict[TopicPartition, int]:
        """Everything the group has committed."""
        return by_partition(
            self._ask(FetchOffsets(group=group, require_stable=False), FetchOffsetsReply).offsets
        )

    def group_lag(self, group: str) -> dict[TopicPartition, int | None]:
        """Return the number of messages between each committed offset of a consumer group and the end of its partition.

        Offsets that transactions and compaction left without a message count, too. None: the partition is offline or
        was deleted. Raises UnknownGroup when the group does not exist, TimedOut.
        """
        committed = by_partition(self.describe_group(group).offsets)
        ends: dict[TopicPartition, tuple[int, int]] = {}
        for topic in sorted({tp.topic for tp in committed}):
            with suppress(UnknownTopic):
                for each in self.describe_topic(topic).partitions:
                    if each.online:
                        ends[TopicPartition(topic, each.partition)] = (
                            each.log_start_offset,
                            each.high_watermark,
                        )
        return {
            tp: max(0, ends[tp][1] - max(offset, ends[tp][0])) if tp in ends else None
            for tp, offset in committed.items()
        }

    def reset_offsets(self, group: str, offsets: Mapping[TopicPartition, int]) -> None:
        """Set committed offsets by (topic, partition). Raises GroupNotEmpty while the group has members.

        A topic or partition that does not exist is UNKNOWN_TOPIC or UNKNOWN_PARTITION; then no offset is set.
        """
        self._ask(ResetOffsets(group=group, offsets=as_offsets(offsets)), Done)

    def delete_group(self, group: str) -> None:
        """Delete a group without members, and its offsets. Raises UnknownGroup, GroupNotEmpty."""
        self._ask(DeleteGroup(group=group), Done)

    # Quotas.

    def set_quota(self, client_id: str, **rates: Unpack[QuotaSettings]) -> None:
        """Limit what a client id may do in a second; `rates` are fields of Quota, -1 takes one away.

        `client_id` "default" is for every client that has no quota of its own, each by itself. Omitted rates stay.
        """
        self._ask(SetQuota(client_id=client_id, quota=QuotaChange(**known(QuotaChange, rates))), Done)

    def remove_quota(self, client_id: str) -> None:
        """The default quota holds for this client again, if there is one. UNKNOWN_QUOTA when it has none of its own."""
        try:
            self._ask(RemoveQuota(client_id=client_id), Done, is_retried=False)
            return
        except ProtocolError as error:
            if not error.retriable:
                raise
        try:
            self._ask(RemoveQuota(client_id=client_id), Done)
        except ProtocolError as error:
            if error.code != ErrorCode.UNKNOWN_QUOTA:
                raise

    def list_quotas(self) -> dict[str, Quota]:
        """The quotas that were set, by client id."""
        return self._ask(ListQuotas(), ListQuotasReply).quotas

    # The supervision tree.

    def status(self) -> StatusReply:
        """Return the state, process id and alarms of each actor of the broker. Raises TimedOut."""
        return self._ask(Status(), StatusReply)

    def kill(self, address: str, signal: str = "SIGKILL") -> KillReply:
        """Send a signal to an actor; tried once, for the second kill would hit its successor."""
        request = Kill(address=address, signal=cast(SignalName, signal))
        return self._ask(request, KillReply, is_retried=False)

    def revive(self, address: str) -> ReviveReply:
        """Start an actor that is quarantined or waits for its restart; `state` of the reply is what it was in.

        An actor in any other state is left alone.
        """
        return self._ask(Revive(address=address), ReviveReply)


def by_partition(offsets: Sequence[PartitionOffset]) -> dict[TopicPartition, int]:
    return {TopicPartition(item.topic, item.partition): item.offset for item in offsets}

"""Administrative calls about topics and the logs of their partitions. Part of Client and Broker.

`create_topic` and `delete_topic` are tried once; if that attempt has no answer, again in a way that takes the first
one's success for their own. Other requests are retried until the request timeout.
"""

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, TypeAlias, Unpack, overload

from msgspec import structs

from ..addresses import TopicPartition
from ..durations import in_milliseconds
from ..keywords import TopicSettings
from ..log_access.reader import PartitionReader
from ..machine import Payload
from ..protocol.data import FetchReply, Isolation, ListOffsets, ListOffsetsReply
from ..protocol.errors import ErrorCode, ProtocolError
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
)
from .admin_requests import AdminRequests
from .descriptions import (
    LogPosition,
    TopicDescription,
    TopicSummary,
    described,
    described_position,
    described_topic,
)
from .errors import TopicExists
from .options import known
from .schedule import milliseconds_at

LogEnd: TypeAlias = Literal["earliest", "latest"]
_log = logging.getLogger(__name__)


class TopicAdmin(AdminRequests):
    """Create, change, describe and delete topics; find offsets and delete records in their logs."""

    def create_topic(
        self, topic: str, partitions: int = 1, *, if_not_exists: bool = False, **config: Unpack[TopicSettings]
    ) -> TopicDescription:
        """Create a topic with a number of partitions, 1 to 10,000, and the settings of TopicSettings.

            client.create_topic("ORDERS", 3, retention_ms=timedelta(days=1))
            client.create_topic("ORDERS", 3, if_not_exists=True)

        With `if_not_exists` an existing topic is returned as it is; a setting that differs from `config` is reported by
        a warning in the log. Raises TopicExists when the topic exists, with `if_not_exists` only when it has fewer
        partitions; InvalidOption for an unknown setting, ProtocolError with INVALID_CONFIG or INVALID_TOPIC, TimedOut.
        If an attempt has no reply, an existing topic with the requested partitions and settings counts as created.
        """
        settings = in_milliseconds(config)
        wanted = TopicConfigChange(**known(TopicConfigChange, settings))
        request = CreateTopic(topic=topic, partitions=partitions, config=wanted, if_not_exists=if_not_exists)
        try:
            found = self._ask(request, DescribeTopicReply, is_retried=if_not_exists)
        except ProtocolError as error:
            if if_not_exists or not error.retriable:
                raise
        else:
            if if_not_exists:
                _compare(found, partitions, settings)
            self._network.topics.replace(topic, found.topic_id)
            return described_topic(found)
        found = self._ask(structs.replace(request, if_not_exists=True), DescribeTopicReply)
        if len(found.partitions) != partitions or _differing(found, settings):
            raise TopicExists(ErrorCode.TOPIC_EXISTS, f"topic {topic!r} exists and is different")
        self._network.topics.replace(topic, found.topic_id)
        return described_topic(found)

    def delete_topic(self, topic: str) -> None:
        """Delete a topic and its data.

            client.delete_topic("ORDERS")

        Raises UnknownTopic, ProtocolError with FORBIDDEN for an internal topic, TimedOut.
        """
        self._ask_once(DeleteTopic(topic=topic), lambda error: error.code == ErrorCode.UNKNOWN_TOPIC)
        self._network.topics.replace(topic)

    def alter_topic(
        self, topic: str, partitions: int | None = None, **config: Unpack[TopicSettings]
    ) -> TopicDescription:
        """Change settings of a topic, or add partitions. Omitted settings keep their values.

            client.alter_topic("ORDERS", retention_ms=timedelta(days=7))
            client.alter_topic("ORDERS", 6)

        With more partitions, messages of a key may go to another partition than before. Raises UnknownTopic,
        InvalidOption for an unknown setting, ProtocolError with INVALID_CONFIG for a wrong one or for fewer partitions,
        TimedOut.
        """
        change = TopicConfigChange(**known(TopicConfigChange, in_milliseconds(config)))
        request = AlterTopic(topic=topic, partitions=partitions, config=change)
        return described_topic(self._ask(request, DescribeTopicReply))

    def describe_topic(self, topic: str) -> TopicDescription:
        """Return a topic's settings and, for each partition, its offsets, size in bytes and state.

            for partition in client.describe_topic("ORDERS").partitions:
                print(partition.partition, partition.log_end_offset, partition.size_bytes)

        Raises UnknownTopic, TimedOut.
        """
        return described_topic(self._ask(DescribeTopic(topic=topic), DescribeTopicReply))

    def list_topics(self, *, internal: bool = False) -> list[TopicSummary]:
        """Return the name and number of partitions of each topic; with `internal`, of the broker's own topics, too.

            names = [summary.topic for summary in client.list_topics()]

        Raises TimedOut.
        """
        found = self._ask(ListTopics(internal=internal), ListTopicsReply).topics
        return [described(TopicSummary, each) for each in found]

    def delete_records(self, topic: str, partition: int, before_offset: int | None = None) -> int:
        """Delete the records below an offset (None: all that consumers can read).

            first = client.delete_records("ORDERS", 0, before_offset=1_000)

        Returns the first offset that can be read afterwards. Raises UnknownTopic, ProtocolError with UNKNOWN_PARTITION
        or OFFSET_OUT_OF_RANGE, TimedOut.
        """
        below = -1 if before_offset is None else before_offset
        request = DeleteRecords(topic=topic, partition=partition, before_offset=below)
        return self._ask_partition(topic, partition, request, DeleteRecordsReply).log_start_offset

    @overload
    def list_offsets(
        self, topic: str, partition: int, at: LogEnd = "latest", *, isolation: Isolation = "read_uncommitted"
    ) -> LogPosition: ...

    @overload
    def list_offsets(
        self, topic: str, partition: int, at: datetime | int, *, isolation: Isolation = "read_uncommitted"
    ) -> LogPosition | None: ...

    def list_offsets(
        self,
        topic: str,
        partition: int,
        at: LogEnd | datetime | int = "latest",
        *,
        isolation: Isolation = "read_uncommitted",
    ) -> LogPosition | None:
        """Return the offset at a point of a partition's log: "earliest", "latest", or the first at or after a time.

            end = client.list_offsets("ORDERS", 0).offset
            found = client.list_offsets("ORDERS", 0, datetime(2026, 1, 31, 12))

        A time is a datetime, local without a zone, or milliseconds since the epoch; the result is None when no record
        is that recent. With `isolation` "read_committed" the log ends where the first open transaction begins. Raises
        UnknownTopic, ProtocolError with UNKNOWN_PARTITION, TimedOut.
        """
        point = milliseconds_at(at) if isinstance(at, datetime) else at
        request = ListOffsets(topic=topic, partition=partition, at=point, isolation=isolation)
        found = self._ask_partition(topic, partition, request, ListOffsetsReply)
        return described_position(found) if found.offset >= 0 else None

    def _fetch(
        self, topic: str, partition: int, offset: int, *, max_bytes: int = 1024 * 1024
    ) -> tuple[FetchReply, Payload]:
        """Return the whole batches from `offset` on that are there now, as stored; the first may begin before it."""
        reader, timeout_ms = (
            PartitionReader(TopicPartition(topic, partition), offset),
            self._request_timeout_ms,
        )
        ask = reader.fetch(None, max_bytes=max_bytes, request_timeout_ms=timeout_ms, is_retried=True)
        answer = self._network.exchange(ask)
        return answer.reply, answer.payload


def _compare(found: DescribeTopicReply, partitions: int, config: Mapping[str, Any]) -> None:
    """Warn of settings that differ from those declared. Raises TopicExists for fewer partitions."""
    for name, value in _differing(found, config).items():
        here = getattr(found.config, name)
        _log.warning("topic %s has %s = %r, not %r; alter_topic changes it", found.topic, name, here, value)
    count = len(found.partitions)
    if count < partitions:
        here = "1 partition" if count == 1 else f"{count} partitions"
        raise TopicExists(
            ErrorCode.TOPIC_EXISTS,
            f"topic {found.topic!r} exists with {here}, not {partitions}; alter_topic can add partitions",
        )


def _differing(found: DescribeTopicReply, config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if getattr(found.config, name) != value}

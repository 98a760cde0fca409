"""Descriptions hold the fields of replies, with None in the place of the wire's -1 and of fields that are left out."""

from typing import Any

import msgspec
import pytest
from msgspec import UNSET

from planaria import GroupDescription, Quota, ScheduledMessage, TopicConfig, TransactionDescription
from planaria.transport.client import descriptions, mirror_descriptions
from planaria.transport.client.descriptions import (
    described,
    described_mirror,
    described_position,
    described_quota,
    described_topic,
)
from planaria.transport.protocol import (
    data,
    delayed,
    groups,
    mirrored,
    mirrors,
    operations,
    quotas,
    shares,
    topics,
    transactions,
)

# Description -> the part of the protocol with the same fields.
MODULES = (descriptions.__name__, mirror_descriptions.__name__)
PAIRS: list[tuple[type, type]] = [
    (descriptions.TopicSummary, topics.TopicSummary),
    (descriptions.PartitionDescription, topics.PartitionDescription),
    (mirror_descriptions.MirrorFork, mirrored.Fork),
    (mirror_descriptions.MirrorCut, mirrored.Cut),
    (mirror_descriptions.MirrorLag, mirrors.PartitionLag),
    (mirror_descriptions.MirroredTopic, mirrors.MirroredTopic),
    (mirror_descriptions.TopicMirror, mirrored.TopicMirror),
    (descriptions.TopicDescription, topics.DescribeTopicReply),
    (descriptions.GroupMember, groups.MemberDescription),
    (descriptions.GroupPause, groups.GroupPause),
    (descriptions.GroupDescription, groups.DescribeGroupReply),
    (descriptions.HeldRange, shares.HeldRange),
    (descriptions.RetryingRange, shares.RetryingRange),
    (descriptions.SharePartition, shares.SharePartitionDescription),
    (descriptions.ShareGroupSettings, shares.ConfigureShareGroupReply),
    (descriptions.ShareGroupDescription, shares.ShareDescription),
    (descriptions.Quota, quotas.Quota),
    (descriptions.ScheduledMessage, delayed.ScheduledMessage),
    (descriptions.TransactionDescription, transactions.TransactionDescription),
    (descriptions.RecordInFlight, operations.InFlight),
    (descriptions.RecordRetrying, operations.Retrying),
    (descriptions.RetryReport, operations.RetryReport),
    (descriptions.Durations, operations.Durations),
    (descriptions.LogReport, operations.LogReport),
    (descriptions.GroupPosition, operations.GroupPosition),
    (descriptions.GroupReport, operations.GroupReport),
    (descriptions.ActorStatus, operations.ActorStatus),
    (descriptions.BrokerStatus, operations.StatusReply),
    (descriptions.KilledActor, operations.KillReply),
]


@pytest.mark.parametrize(("shown", "sent"), PAIRS, ids=lambda each: each.__name__)
def test_a_description_leaves_nothing_out(shown: Any, sent: Any) -> None:
    fields = set(sent.__struct_fields__) - {"id"}
    if "report" in fields:  # shown as part of the actor
        fields = fields - {"report"} | set(operations.ActorReport.__struct_fields__)
    assert set(shown.__struct_fields__) == fields


def test_a_mirror_is_described_with_its_settings() -> None:
    spec = mirrors.MirrorSpec(source="tcp://a:1", topics=("T*",), is_failback=True)
    found = described_mirror(mirrors.MirrorReport(mirror="m", spec=spec, state="running"))
    assert (found.source, found.topic_patterns, found.group_patterns) == ("tcp://a:1", ["T*"], ["*"])
    assert (found.failback, found.bytes_per_second, found.topics) == (True, -1, [])


def test_every_description_is_frozen_documented_and_compared() -> None:
    kinds = [
        each
        for each in {**vars(descriptions), **vars(mirror_descriptions)}.values()
        if isinstance(each, type) and issubclass(each, msgspec.Struct)
    ]
    own = {each for each in kinds if each.__module__ in MODULES}
    others = {descriptions.CommittedOffset, descriptions.LogPosition, mirror_descriptions.MirrorDescription}
    assert own - {shown for shown, _ in PAIRS} == others
    for kind in own:
        assert kind.__struct_config__.frozen
        assert kind.__doc__


def test_figures_of_an_offline_partition_are_absent() -> None:
    reply = topics.DescribeTopicReply(
        topic="T",
        topic_id="1",
        config=topics.TopicConfig(retention_ms=5),
        partitions=[
            topics.PartitionDescription(partition=0, online=False, reason="quarantined"),
            topics.PartitionDescription(
                partition=1,
                online=True,
                leader_epoch=0,
                log_start_offset=0,
                high_watermark=3,
                log_end_offset=4,
                size_bytes=0,
            ),
        ],
    )
    found = described_topic(reply)
    assert found.config == TopicConfig(retention_ms=5)
    offline, online = found.partitions
    assert (offline.log_end_offset, offline.size_bytes, offline.reason) == (None, None, "quarantined")
    assert (online.log_start_offset, online.log_end_offset, online.size_bytes) == (0, 4, 0)


def test_what_a_group_has_committed() -> None:
    reply = groups.DescribeGroupReply(
        group="g",
        state="stable",
        generation=2,
        assignor="sticky",
        members=[],
        offsets=[groups.PartitionOffset("T", 0, 7, "m", topic_id=UNSET)],
    )
    (offset,) = described(GroupDescription, reply).offsets
    assert (offset.topic_partition, offset.offset, offset.metadata) == (("T", 0), 7, "m")


def test_bytes_stay_bytes() -> None:
    sent = delayed.ScheduledMessage(
        scheduled_id="s", topic="T", key=b"\xff", deliver_at_ms=1, scheduled_at_ms=0, size_bytes=1
    )
    assert described(ScheduledMessage, sent).key == b"\xff"


def test_an_absent_rate_is_none() -> None:
    assert described_quota(quotas.Quota(produce_bytes=5)) == Quota(
        produce_bytes=5, fetch_bytes=None, produce_requests=None, fetch_requests=None
    )


def test_a_position_without_a_time() -> None:
    assert described_position(data.ListOffsetsReply(offset=3, timestamp_ms=-1)).timestamp_ms is None
    assert described_position(data.ListOffsetsReply(offset=3, timestamp_ms=9)).timestamp_ms == 9


def test_an_idle_transactional_id() -> None:
    sent = transactions.TransactionDescription(
        transactional_id="t", state="Empty", producer_id=1, producer_epoch=0, timeout_ms=5
    )
    found = described(TransactionDescription, sent)
    assert (found.started_ms, found.partitions, found.groups) == (None, {}, [])

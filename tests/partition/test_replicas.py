"""The leader's side of replication: which fetches it parks, and how it answers them when it has written."""

from typing import Any

import pytest

from log_batches import batch
from planaria.actors.log.epochs import EpochTable
from planaria.actors.log.producers import ProducerStates
from planaria.actors.partition.arguments import PartitionArguments
from planaria.actors.partition.effects import Effect, OpenedLog, Read, Written
from planaria.actors.partition.fresh import FreshBatches
from planaria.actors.partition.replicas import Replicas
from planaria.actors.partition.replication import Watermarks
from planaria.transport.machine import Call, Received, Reply, Sender
from planaria.transport.protocol.errors import ErrorBody, ErrorCode
from planaria.transport.protocol.links import AdmitCatchUp
from planaria.transport.protocol.replication import Lead, Member, ReplicaFetch, ReplicaFetchReply
from planaria.transport.protocol.topics import TopicConfig

EPOCH = 3
END = 5
"""The end of the leader's log, whose last batch is of epoch 2."""


class Leading:
    """The replicas of a partition as node a leads it, with b in sync and c not."""

    def __init__(self) -> None:
        arguments = PartitionArguments(
            topic="ORDERS",
            partition=0,
            topic_id="t1",
            config=TopicConfig(),
            directory="",
            node="a",
            data_id="a1",
        )
        lead = Lead(
            topic="ORDERS",
            partition=0,
            topic_id="t1",
            leader_epoch=EPOCH,
            replicas={"a": "a1", "b": "b1", "c": "c1"},
            in_sync=(Member("a", "a1"), Member("b", "b1")),
        )
        log = OpenedLog(
            leader_epoch=EPOCH,
            log_start_offset=0,
            log_end_offset=END,
            size_bytes=500,
            producers=ProducerStates(),
            epochs=EpochTable([(1, 0), (2, 3)]),
        )
        self.marks = Watermarks(0, END, END)
        self.replicas = Replicas(arguments, lead, log, self.marks, 0)

    def fetch(self, replica: str, **changes: Any) -> list[Effect]:
        fields: dict[str, Any] = {"leader_epoch": EPOCH, "fetch_offset": END, "last_epoch": 2} | changes
        request = ReplicaFetch(
            topic="ORDERS",
            topic_id="t1",
            partition=0,
            replica=replica,
            data_id=f"{replica}1",
            durable_offset=END,
            **fields,
        )
        return self.replicas.on_fetch(Received(Sender((replica.encode(),), None), request), request, 0)

    def write(self, offset: int = END) -> list[Effect]:
        frame, header = batch(offset, [b"value"], epoch=EPOCH)
        self.marks.written_offset = header.next_offset
        return self.replicas.on_written(Written(header.next_offset, FreshBatches([frame], [header])), 0)

    @property
    def parked_count(self) -> int:
        return len(self.replicas.fetches.view.parked)


@pytest.fixture
def leading() -> Leading:
    return Leading()


def test_a_follower_in_sync_that_waits_gets_the_batches_of_the_turn_without_a_read(leading: Leading) -> None:
    leading.fetch("b")
    assert leading.parked_count == 1
    [reply] = leading.write()
    assert isinstance(reply, Reply)
    assert isinstance(reply.body, ReplicaFetchReply)
    frame, _ = batch(END, [b"value"], epoch=EPOCH)
    assert [bytes(each) for each in reply.payload] == [bytes(frame)]
    assert leading.parked_count == 0


def test_batches_for_a_replica_that_is_not_in_sync_wait_for_the_link(leading: Leading) -> None:
    leading.fetch("c")
    [ask] = leading.write()
    assert isinstance(ask, Call)
    assert isinstance(ask.request, AdmitCatchUp)
    [reply] = leading.replicas.on_admitted(ask.key)
    assert isinstance(reply, Reply)
    assert len(reply.payload) == 1


@pytest.mark.parametrize("changes", [{"max_bytes": 1}, {}], ids=["too large", "a gap"])
def test_other_batches_are_read(leading: Leading, changes: dict[str, int]) -> None:
    leading.fetch("b", **changes)
    [read] = leading.write(END if changes else END + 1)
    assert isinstance(read, Read)
    assert read.max_bytes == changes.get("max_bytes", 1024 * 1024)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"leader_epoch": EPOCH - 1}, ErrorCode.FENCED_LEADER_EPOCH),
        ({"leader_epoch": EPOCH + 1}, ErrorCode.UNKNOWN_LEADER_EPOCH),
        ({"replica": "d"}, ErrorCode.UNKNOWN_LEADER_EPOCH),
    ],
)
def test_a_fetch_at_the_end_of_the_log_is_refused_as_any_other(
    leading: Leading, changes: dict[str, Any], code: ErrorCode
) -> None:
    [reply] = leading.fetch(changes.pop("replica", "b"), **changes)
    assert isinstance(reply, Reply)
    assert isinstance(reply.body, ErrorBody)
    assert (reply.body.code, leading.parked_count) == (code, 0)


@pytest.mark.parametrize("last_epoch", [0, 1, EPOCH])
def test_a_log_of_equal_length_and_another_last_epoch_diverges(leading: Leading, last_epoch: int) -> None:
    [reply] = leading.fetch("b", last_epoch=last_epoch)
    assert isinstance(reply, Reply)
    assert isinstance(reply.body, ReplicaFetchReply)
    assert reply.body.diverging is not None
    assert leading.parked_count == 0

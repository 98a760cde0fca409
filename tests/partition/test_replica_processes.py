"""Replicas as real processes on real directories: acknowledged by all, killed, led by another, equal in the end."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from msgspec import UNSET

from patience import TIMEOUT_MS
from planaria.transport.batch import build, decode_records, split
from planaria.transport.codec import decode_reply, encode_header
from planaria.transport.protocol.data import Expected, Fetch, FetchReply, Produce, ProduceReply
from planaria.transport.protocol.errors import ErrorBody, ErrorCode
from planaria.transport.protocol.message import Request
from planaria.transport.protocol.replication import ReachLeader, ReachLeaderReply
from planaria.transport.protocol.topics import DescribePartition, DescribePartitionReply, TopicConfig
from replica_processes import ReplicaProcesses

pytestmark = pytest.mark.processes


@pytest.fixture
def replicas(data_dir: Path, run_dir: Path) -> Iterator[ReplicaProcesses]:
    with ReplicaProcesses(
        data_dir, run_dir, TopicConfig(segment_bytes=20_000, key_versions=True)
    ) as processes:
        yield processes


def a_batch(value: bytes) -> bytes:
    return build([(b"key", value, 0, None)], first_timestamp_ms=1_000, max_timestamp_ms=1_000)


def produce(replicas: ReplicaProcesses, node: str, first: int, count: int) -> None:
    """Produce batches with four of them in flight; each is acknowledged by all at its offset."""
    numbers = range(first, first + count)
    for number in numbers:
        replicas.send(node, Produce(id=number, topic="ORDERS", partition=0), [a_batch(b"%d" % number * 20)])
        if number >= first + 3:
            answered(replicas, node, number - 3)
    for number in numbers[-3:]:
        answered(replicas, node, number)


def answered(replicas: ReplicaProcesses, node: str, number: int) -> None:
    reply, _ = replicas.receive(node, ProduceReply)
    assert not isinstance(reply, ErrorBody), reply
    assert (reply.id, reply.batches[0].base_offset) == (number, number)


def end_of(replicas: ReplicaProcesses, node: str) -> int:
    reply, _ = replicas.ask(node, DescribePartition(), DescribePartitionReply)
    return int(reply.description.log_end_offset)


def log_of(replicas: ReplicaProcesses, node: str) -> list[bytes]:
    """Return the batches in the files of a node."""
    paths = sorted(replicas.directory(node).glob("*.log"))
    return [bytes(frame) for path in paths for _, frame in split(path.read_bytes().rstrip(b"\0") + bytes(8))]


def versions_expected(replicas: ReplicaProcesses, node: str, version: int) -> list[Any]:
    """Publish a record that expects a version of its key; return the refusals."""
    request = Produce(topic="ORDERS", partition=0, expected=[Expected(key_version=version)])
    reply, _ = replicas.ask(node, request, ProduceReply, [a_batch(b"x")])
    return [(each.error.code, each.error.present) for each in reply.batches if each.error is not None]


def test_a_leader_is_killed_and_nothing_acknowledged_is_lost(replicas: ReplicaProcesses) -> None:
    replicas.start("a", "b", "c")
    replicas.assign("a", 1, "abc", "a", "b", "c")
    produce(replicas, "a", 0, 200)
    refusal, _ = replicas.ask("b", Produce(topic="ORDERS", partition=0), ProduceReply, [a_batch(b"x")])
    assert (refusal.code, refusal.leader, refusal.retriable) == (ErrorCode.NOT_LEADER, "a", True)
    replicas.kill("a")
    replicas.assign("b", 2, "bc", "b", "c")
    assert versions_expected(replicas, "b", 5) == [(ErrorCode.CONFLICT, 199)]
    produce(replicas, "b", 200, 100)
    replicas.start("a")
    replicas.assign("b", 2, "bc", "a")
    replicas.until(lambda: end_of(replicas, "a") == 300)
    found, offset = [], 0
    while offset < 300:
        request = Fetch(topic="ORDERS", partition=0, offset=offset)
        reply, payload = replicas.ask("b", request, FetchReply)
        found += [
            record[1] for header, frame in split(payload[0]) for record in decode_records(frame, header)
        ]
        offset = reply.next_offset
    assert found == [b"%d" % number * 20 for number in range(300)]
    for node in "abc":
        replicas.until(lambda node=node: end_of(replicas, node) == 300)  # type: ignore[misc]
    logs = [log_of(replicas, node) for node in "abc"]
    assert len(logs[0]) == 300
    assert logs[0] == logs[1] == logs[2]


def test_a_leader_alone_below_the_minimum_takes_only_what_may_be_lost(replicas: ReplicaProcesses) -> None:
    replicas.start("a")
    replicas.assign("a", 1, "a", "a")
    refusal, _ = replicas.ask("a", Produce(topic="ORDERS", partition=0), ProduceReply, [a_batch(b"x")])
    assert (refusal.code, refusal.retriable) == (ErrorCode.NOT_ENOUGH_REPLICAS, True)
    reply, _ = replicas.ask("a", Produce(topic="ORDERS", partition=0, acks=1), ProduceReply, [a_batch(b"x")])
    assert (reply.batches[0].base_offset, reply.batches[0].error, reply.throttle_ms) == (0, None, UNSET)
    assert reply.high_watermark == 0, "it is not committed"


def test_followers_fetch_straight_from_the_leaders_process_and_others_do_not(
    replicas: ReplicaProcesses,
) -> None:
    replicas.start("a", "b")
    replicas.assign("a", 1, "ab", "a", "b")
    ask = ReachLeader(topic="ORDERS", topic_id="t1", partition=0, leader_epoch=1)
    endpoint = replicas.ask("a", ask, ReachLeaderReply)[0].endpoint

    def of_node(keys: tuple[bytes, bytes] | None, request: Request, wait_ms: int) -> bytes | None:
        """Return the header of the answer at the endpoint; None if there is none."""
        with zmq.Context() as context, context.socket(zmq.DEALER) as node:
            node.linger = 0
            if keys is not None:
                node.curve_publickey, node.curve_secretkey = keys
                node.curve_serverkey = replicas.peer_keys.public_key.encode()
            node.connect(endpoint)
            node.send_multipart([b"1", b"", encode_header(request)])
            return node.recv_multipart()[2] if node.poll(wait_ms) else None

    own = replicas.peer_keys
    keys = (own.public_key.encode(), own.secret_key.encode())
    assert of_node(None, ask, 300) is None
    assert of_node(zmq.curve_keypair(), ask, 300) is None
    for request, code in (
        (Produce(topic="ORDERS", partition=0), "FORBIDDEN"),
        (Fetch(topic="ORDERS", partition=0, offset=0), "FORBIDDEN"),
        (ReachLeader(topic="ORDERS", topic_id="t1", partition=0, leader_epoch=2), "UNKNOWN_LEADER_EPOCH"),
    ):
        header = of_node(keys, request, TIMEOUT_MS)
        assert header is not None
        refusal = decode_reply(header, ReachLeaderReply)
        assert isinstance(refusal, ErrorBody)
        assert refusal.code == code
    if sys.platform == "linux":
        replicas.until(lambda: connections_at(int(endpoint.rpartition(":")[2])) == 1)
    produce(replicas, "a", 0, 20)  # the first ones go by the way that the parked fetch has taken
    replicas.kill("a")


def connections_at(port: int) -> int:
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    fields = [line.split() for line in lines]
    return sum(each[3] == "01" and int(each[1].rpartition(":")[2], 16) == port for each in fields)

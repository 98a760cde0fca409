"""Clients restricted to the gateway are redirected from a partition's own endpoint; no others are."""

import pytest
from msgspec import structs

from planaria.actors.log.producers import ProducerStates
from planaria.actors.partition.arguments import PartitionArguments
from planaria.actors.partition.effects import OpenedLog
from planaria.actors.partition.machine import PartitionMachine
from planaria.transport.machine import Received, Reply, Sender
from planaria.transport.protocol.data import Fetch, FetchReply, Produce, ProduceReply
from planaria.transport.protocol.errors import ErrorBody, ErrorCode
from planaria.transport.protocol.quotas import QuotasInForce
from planaria.transport.protocol.topics import DeleteRecords, TopicConfig
from planaria.transport.request_context import RequestContext
from simulated_partition import SimulatedPartition, a_batch


def ask(partition: SimulatedPartition, request: Produce | Fetch) -> object:
    reply = partition.ask(request, [a_batch(b"v")] if isinstance(request, Produce) else ())
    assert reply is not None
    return reply.body


@pytest.mark.parametrize("is_fetch", [False, True])
def test_who_is_under_a_quota_is_sent_to_the_gateway(is_fetch: bool) -> None:
    partition = SimulatedPartition()

    def outcome(client_id: str) -> str:
        if is_fetch:
            body = ask(partition, Fetch(topic="ORDERS", partition=0, offset=0, client_id=client_id))
        else:
            body = ask(partition, Produce(topic="ORDERS", partition=0, client_id=client_id))
        if isinstance(body, ErrorBody):
            assert (body.code, body.retriable) == (ErrorCode.ACTOR_UNAVAILABLE, True)
            return "sent away"
        assert isinstance(body, FetchReply if is_fetch else ProduceReply)
        return "served"

    assert outcome("greedy") == "served"
    assert partition.ask(QuotasInForce(clients=frozenset({"greedy"}))) is None
    assert [outcome(client) for client in ("greedy", "other", "")] == ["sent away", "served", "served"]
    partition.ask(QuotasInForce(exempt=frozenset({"greedy"}), default=True))
    # Requests without a client name come from the broker's own actors.
    assert [outcome(client) for client in ("greedy", "other", "")] == ["served", "sent away", "served"]


def test_a_request_that_the_gateway_has_admitted_is_served() -> None:
    partition = SimulatedPartition()
    partition.ask(QuotasInForce(clients=frozenset({"greedy"})))
    admitted = RequestContext(client_id="greedy", connection=b"c", is_admitted=True)
    named = Fetch(topic="ORDERS", partition=0, offset=0, client_id="greedy")
    received = structs.replace(partition.received(named), context=admitted)
    [reply] = partition.turn(received)
    assert isinstance(reply.body, FetchReply)


def test_records_of_an_internal_topic_are_deleted_by_nobody() -> None:
    machine = PartitionMachine(
        PartitionArguments(topic="__offsets", partition=0, topic_id="", config=TopicConfig(), directory=""),
        OpenedLog(
            leader_epoch=0,
            log_start_offset=0,
            log_end_offset=5,
            size_bytes=500,
            producers=ProducerStates(),
        ),
        incarnation=1,
    )
    request = DeleteRecords(topic="__offsets", partition=0, before_offset=5)
    [reply] = machine.handle(Received(Sender((b"c",), 1), request), 1)
    assert isinstance(reply, Reply)
    assert isinstance(reply.body, ErrorBody)
    assert reply.body.code == ErrorCode.FORBIDDEN

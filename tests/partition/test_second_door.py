"""Clients that must go through the gateway are sent there from a partition's own endpoint; nobody else is."""

import pytest

from planaria.transport.protocol.data import Fetch, FetchReply, Produce, ProduceReply
from planaria.transport.protocol.errors import ErrorBody, ErrorCode
from planaria.transport.protocol.quotas import QuotasInForce
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
    # Without a name it is the gateway that asks, or one of the broker's own.
    assert [outcome(client) for client in ("greedy", "other", "")] == ["served", "sent away", "served"]

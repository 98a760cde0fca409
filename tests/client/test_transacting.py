"""The transactional producer's machine: legal states only, and each lost answer explained."""

import random

import pytest

from planaria.transport.addresses import TopicPartition
from planaria.transport.client.errors import (
    DeliveryFailed,
    ProducerFenced,
    TimedOut,
    TransactionAborted,
    TransactionUncertain,
)
from planaria.transport.client.options import ProducerOptions
from planaria.transport.client.transacting import PREDECESSORS, Transacting
from planaria.transport.machine import Call
from planaria.transport.protocol.data import InitProducer, InitProducerReply
from planaria.transport.protocol.errors import ErrorCode, PlanariaError, ProtocolError
from planaria.transport.protocol.groups import CommitOffsets
from planaria.transport.protocol.transactions import EndTransaction, EndTransactionReply

P, Q = TopicPartition("T", 0), TopicPartition("T", 1)
FAILED = DeliveryFailed(ErrorCode.MESSAGE_TOO_LARGE, "too large", retriable=False)
FENCED = ProducerFenced(ErrorCode.PRODUCER_FENCED, "another one")


def machine() -> Transacting:
    return Transacting(ProducerOptions(transactional_id="t"))


def claimed(epoch: int = 0) -> Transacting:
    found = machine()
    assert found.claim() is not None
    found.on_claimed(InitProducerReply(producer_id=7, producer_epoch=epoch))
    return found


def ending(*, is_commit: bool = True) -> Transacting:
    found = claimed()
    found.begin()
    found.on_done(P, None)
    found.end(is_commit=is_commit)
    return found


def end_request(found: Transacting) -> EndTransaction:
    call = found.end_call()
    assert call is not None
    assert isinstance(call.request, EndTransaction)
    return call.request


def sent(call: Call | None) -> None:
    """Record an attempt, as the exchange does."""
    assert call is not None
    assert call.receipt is not None
    call.receipt.is_kept = True
    call.receipt.sends = 1


def test_a_commit_names_what_was_written_and_gives_the_next_identity() -> None:
    found = claimed()
    assert found.claim() is None
    identity = found.begin()
    found.on_done(Q, None)
    found.on_done(P, None)
    commit = found.offsets(CommitOffsets(group="g", offsets=[]))
    assert (commit.producer_id, commit.producer_epoch) == (identity.producer_id, identity.epoch)
    found.end(is_commit=True)
    request = end_request(found)
    assert (request.commit, request.partitions, request.groups) == (True, {"T": [0, 1]}, ["g"])
    found.on_ended(EndTransactionReply(producer_id=7, producer_epoch=1))
    assert found.claim() is None
    assert found.begin().epoch == 1
    found.end(is_commit=True)
    request = end_request(found)
    assert (request.partitions, request.groups, request.producer_epoch) == ({}, [], 1)


def test_a_commit_with_a_failed_message_is_an_abort() -> None:
    found = claimed()
    found.begin()
    found.on_done(P, FAILED)
    found.on_done(P, None)
    found.end(is_commit=True)
    assert not end_request(found).commit
    with pytest.raises(TransactionAborted) as raised:
        found.on_ended(EndTransactionReply(producer_id=7, producer_epoch=1))
    assert raised.value.__cause__ is FAILED
    assert found.state == "idle"


def test_an_abort_is_no_error_whatever_failed() -> None:
    found = ending(is_commit=False)
    found.on_done(P, FAILED)
    assert not end_request(found).commit
    found.on_ended(EndTransactionReply(producer_id=7, producer_epoch=1))
    assert found.state == "idle"


def test_an_unknown_outcome_is_settled_by_the_next_claim() -> None:
    found = ending()
    sent(found.end_call())
    explained = found.on_end_failed(TimedOut("no reply"))
    assert isinstance(explained, TransactionUncertain)
    call = found.claim()
    assert call is not None
    assert isinstance(call.request, InitProducer)
    assert (call.request.producer_id, call.request.producer_epoch) == (7, 0)
    found.on_claim_failed(TimedOut("no reply"))
    assert found.state == "uncertain"
    assert found.claim() is not None
    found.on_claimed(InitProducerReply(producer_id=7, producer_epoch=3))
    assert found.begin().epoch == 3


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ProtocolError(ErrorCode.TRANSACTION_ABORTED, "timed out"), TransactionAborted),
        (ProtocolError(ErrorCode.ACTOR_UNAVAILABLE, "", retriable=True), TransactionUncertain),
        (ProtocolError(ErrorCode.FORBIDDEN, ""), ProtocolError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (FENCED, ProducerFenced),
    ],
)
def test_the_errors_of_an_end(error: BaseException, kind: type[BaseException]) -> None:
    found = ending()
    sent(found.end_call())
    assert type(found.on_end_failed(error)) is kind
    assert found.state == ("fenced" if error is FENCED else "uncertain")


def test_an_end_that_never_left_is_an_abort_and_not_uncertain() -> None:
    found = ending()
    call = found.end_call()
    assert call is not None
    assert call.receipt is not None
    call.receipt.is_kept = True
    explained = found.on_end_failed(TimedOut("no connection"))
    assert isinstance(explained, TransactionAborted)
    assert isinstance(explained.__cause__, TimedOut)


def test_an_end_that_was_interrupted_before_it_was_asked_for_is_not_sent() -> None:
    found = ending()
    found.on_end_failed(KeyboardInterrupt())
    assert found.end_call() is None
    assert found.claim() is not None
    assert found.end_call() is None


def test_a_fenced_producer_stays_fenced() -> None:
    found = machine()
    found.claim()
    found.on_claim_failed(FENCED)
    for _ in range(2):
        with pytest.raises(ProducerFenced):
            found.claim()


def test_one_transaction_at_a_time() -> None:
    found = claimed()
    found.refuse_while_open()
    found.begin()
    with pytest.raises(PlanariaError, match="open already"):
        found.refuse_while_open()
    found.end(is_commit=True)
    with pytest.raises(PlanariaError, match="open already"):
        found.refuse_while_open()


@pytest.mark.parametrize("seed", range(30))
def test_random_walks_take_legal_steps_and_never_commit_a_failed_message(seed: int) -> None:
    choose = random.Random(seed)
    found = machine()
    epoch = 0
    has_failed = False
    used: list[int] = []
    for _ in range(200):
        before = found.state
        match before:
            case "unclaimed" | "uncertain":
                assert found.claim() is not None
            case "claiming":
                if choose.random() < 0.3:
                    found.on_claim_failed(choose.choice([TimedOut(""), KeyboardInterrupt()]))
                else:
                    epoch += 1
                    found.on_claimed(InitProducerReply(producer_id=7, producer_epoch=epoch))
            case "idle":
                has_failed = False
                used.append(found.begin().epoch)
            case "open":
                if choose.random() < 0.5:
                    error = FAILED if choose.random() < 0.1 else None
                    has_failed = has_failed or error is not None
                    found.on_done(choose.choice([P, Q]), error)
                else:
                    found.end(is_commit=choose.random() < 0.7)
            case "ending":
                request = end_request(found)
                assert not (request.commit and has_failed)
                if choose.random() < 0.3:
                    found.on_end_failed(choose.choice([TimedOut(""), KeyboardInterrupt()]))
                else:
                    epoch += 1
                    try:
                        found.on_ended(EndTransactionReply(producer_id=7, producer_epoch=epoch))
                    except TransactionAborted:
                        assert has_failed
        assert found.state == before or before in PREDECESSORS[found.state]
    assert len(used) == len(set(used)), "an identity was used twice"

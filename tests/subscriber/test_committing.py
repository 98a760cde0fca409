"""Commits: a certain failure is distinguished from an unknown outcome."""

from types import TracebackType
from typing import Any, Self

import pytest

from planaria.actors.subscriber.committing import AtomicCommits, PlainCommits, Spoiled, Undecided
from planaria.actors.subscriber.dead_letter_publisher import DeadLetterPublisher
from planaria.actors.subscriber.effects import (
    Commit,
    DeadLetterFailed,
    DeadLetterPublished,
    DeadLetterRecord,
    PublishDeadLetter,
)
from planaria.actors.subscriber.threads import EventQueue
from planaria.transport.client.errors import (
    CommitFailed,
    DeliveryFailed,
    ProducerFenced,
    TransactionAborted,
    TransactionUncertain,
    UnknownTopic,
)
from planaria.transport.protocol.errors import PlanariaError
from planaria.transport.publication import Publication

ORDER = Commit(
    {("A", 0): 7},
    {("A", 0): "done ahead (epoch 0): 1"},
    (Publication("OUT", b"one", b"k", {"a": "b"}), Publication("OUT", b"two", partition=3, timestamp_ms=5)),
)


class FakeTransactions:
    """A producer of transactions and its transaction, which records its calls and fails at one step."""

    def __init__(self, **failures: Exception) -> None:
        self.failures = failures
        self.steps: list[object] = []

    def take(self, step: str, *what: object) -> None:
        self.steps.append((step, *what))
        if step in self.failures:
            raise self.failures[step]

    def claim(self) -> None:
        self.take("claim")

    def transaction(self) -> Self:
        self.take("begin")
        return self

    def publish(self, topic: str, value: bytes, key: bytes | None, **options: object) -> None:
        self.take("publish", topic, value, key, {name: each for name, each in options.items() if each})

    def commit_offsets(self, consumer: object, offsets: object, metadata: object) -> None:
        self.take("offsets", consumer, offsets, metadata)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.take("abort" if kind else "commit")


def commit(**failures: Exception) -> list[Any]:
    transactions = FakeTransactions(**failures)
    AtomicCommits(transactions).commit("consumer", ORDER)  # type: ignore[arg-type]
    return transactions.steps


def test_outputs_and_offsets_are_in_one_transaction() -> None:
    assert commit() == [
        ("begin",),
        ("publish", "OUT", b"one", b"k", {"headers": {"a": "b"}}),
        ("publish", "OUT", b"two", None, {"partition": 3, "timestamp_ms": 5}),
        ("offsets", "consumer", ORDER.offsets, ORDER.metadata),
        ("commit",),
    ]


def aborted_by(cause: Exception) -> TransactionAborted:
    error = TransactionAborted("TRANSACTION_ABORTED", "a message of it failed")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "failures",
    [
        {"commit": aborted_by(DeliveryFailed("TIMED_OUT", "not acknowledged", retriable=True))},
        {"commit": aborted_by(DeliveryFailed("OUT_OF_ORDER_SEQUENCE", "a hole"))},
        {"commit": aborted_by(ProducerFenced("PRODUCER_FENCED", "its transaction took too long"))},
        {"commit": TransactionAborted("TRANSACTION_ABORTED", "it took too long")},
        {"offsets": CommitFailed("NOT_ASSIGNED", "gone")},
    ],
)
def test_what_was_aborted_can_be_said_again(failures: dict[str, Exception]) -> None:
    with pytest.raises(PlanariaError) as raised:
        commit(**failures)
    assert not isinstance(raised.value, Undecided)


@pytest.mark.parametrize(
    "failures",
    [
        {"commit": TransactionUncertain("TIMED_OUT", "no answer")},
        {"commit": ProducerFenced("PRODUCER_FENCED", "somebody else has it")},
        {"begin": ProducerFenced("PRODUCER_FENCED", "somebody else has it")},
        {"commit": aborted_by(DeliveryFailed("INVALID_BATCH", "a bug"))},
    ],
)
def test_from_what_cannot_be_known_or_done_nobody_goes_on(failures: dict[str, Exception]) -> None:
    with pytest.raises(Undecided):
        commit(**failures)


@pytest.mark.parametrize(
    "failures",
    [
        {"publish": UnknownTopic("OUT")},
        {"commit": aborted_by(DeliveryFailed("UNKNOWN_TOPIC", "gone"))},
        {"commit": aborted_by(DeliveryFailed("UNKNOWN_PARTITION", "it has fewer now"))},
        {"commit": aborted_by(DeliveryFailed("MESSAGE_TOO_LARGE", "it takes smaller ones now"))},
    ],
)
def test_when_an_output_topic_has_changed_the_records_are_handled_again(
    failures: dict[str, Exception],
) -> None:
    with pytest.raises(Spoiled):
        commit(**failures)


def test_the_transactional_id_is_claimed_before_the_group_is_joined() -> None:
    transactions = FakeTransactions()
    AtomicCommits(transactions).prepare()  # type: ignore[arg-type]
    assert transactions.steps == [("claim",)]
    # A failed request now is repeated by the first transaction.
    AtomicCommits(FakeTransactions(claim=PlanariaError("no answer"))).prepare()  # type: ignore[arg-type]


def test_without_transactions_the_offsets_alone_are_committed() -> None:
    said: list[object] = []

    class FakeConsumer:
        def commit(self, *what: object) -> None:
            said.extend(what)

    PlainCommits().commit(FakeConsumer(), ORDER)  # type: ignore[arg-type]
    assert said == [ORDER.offsets, ORDER.metadata]


@pytest.mark.parametrize("is_taken", [True, False])
def test_a_letter_for_a_transaction_is_only_looked_at(is_taken: bool) -> None:
    inbox = EventQueue()

    def check(message: Publication) -> None:
        if not is_taken:
            raise UnknownTopic(message.topic)

    letter = DeadLetterRecord("A.dlq", b"k", b"v", {"dead-letter-reason": "no"}, "dead-letter/1")
    dead_letter_publisher = DeadLetterPublisher(None, inbox, check, is_only_checked=True)  # type: ignore[arg-type]
    event = dead_letter_publisher._send(PublishDeadLetter(4, letter))
    inbox.close()
    if is_taken:
        assert event == DeadLetterPublished(
            4, (Publication("A.dlq", b"v", b"k", {"dead-letter-reason": "no"}),)
        )
    else:
        assert isinstance(event, DeadLetterFailed)
        assert "unknown topic 'A.dlq'" in event.reason

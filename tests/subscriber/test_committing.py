"""Commits: a certain failure is distinguished from an unknown outcome."""

from collections.abc import Coroutine
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
from planaria.actors.subscriber.tasks import Tasks
from planaria.actors.subscriber.threads import Inbox
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


def result_of(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that waits for nothing."""
    with pytest.raises(StopIteration):
        coroutine.send(None)


class FakeTransactions:
    """A producer of transactions and its transaction, which records its calls and fails at one step."""

    def __init__(self, **failures: Exception) -> None:
        self.failures = failures
        self.steps: list[object] = []

    def take(self, step: str, *what: object) -> None:
        self.steps.append((step, *what))
        if step in self.failures:
            raise self.failures[step]

    async def claim(self) -> None:
        self.take("claim")

    def transaction(self) -> Self:
        self.take("begin")
        return self

    async def _hand_over(self, topic: str, value: bytes, key: bytes | None, **options: object) -> None:
        self.take("publish", topic, value, key, {name: each for name, each in options.items() if each})

    async def commit_offsets(self, consumer: object, offsets: object, metadata: object) -> None:
        self.take("offsets", consumer, offsets, metadata)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.take("abort" if kind else "commit")


def commit(**failures: Exception) -> list[Any]:
    transactions = FakeTransactions(**failures)
    result_of(AtomicCommits(transactions).commit("consumer", ORDER))  # type: ignore[arg-type]
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
        {"commit": aborted_by(UnknownTopic("OUT"))},
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
    result_of(AtomicCommits(transactions).prepare())  # type: ignore[arg-type]
    assert transactions.steps == [("claim",)]
    # A failed request now is repeated by the first transaction.
    result_of(AtomicCommits(FakeTransactions(claim=PlanariaError("no answer"))).prepare())  # type: ignore[arg-type]


def test_without_transactions_the_offsets_alone_are_committed() -> None:
    said: list[object] = []

    class FakeConsumer:
        async def commit(self, *what: object) -> None:
            said.extend(what)

    result_of(PlainCommits().commit(FakeConsumer(), ORDER))  # type: ignore[arg-type]
    assert said == [ORDER.offsets, ORDER.metadata]


class FakeProducer:
    """Knows its topic or not, and acknowledges at once or fails."""

    def __init__(self, refusal: Exception | None = None, failure: Exception | None = None) -> None:
        self.refusal, self.failure = refusal, failure
        self.published: list[tuple[Any, ...]] = []

    async def _check(self, topic: str, size_bytes: int) -> None:
        if self.refusal is not None:
            raise self.refusal

    async def publish(self, topic: str, value: bytes, **options: Any) -> None:
        self.published.append((topic, value, options))
        if self.failure is not None:
            raise self.failure


def sent(producer: FakeProducer, *, is_only_checked: bool) -> Any:
    """Return the event of one dead letter."""
    inbox, events = Inbox(), []
    tasks = Tasks(inbox)
    letter = DeadLetterRecord("A.dlq", b"k", b"v", {"dead-letter-reason": "no"}, "dead-letter/1")
    publisher = DeadLetterPublisher(producer, tasks, events.append, is_only_checked=is_only_checked)  # type: ignore[arg-type]
    publisher.send(PublishDeadLetter(4, letter))
    tasks.run()
    inbox.close()
    [event] = events
    return event


def test_a_letter_for_a_transaction_is_only_looked_at() -> None:
    producer = FakeProducer()
    message = Publication("A.dlq", b"v", b"k", {"dead-letter-reason": "no"})
    assert sent(producer, is_only_checked=True) == DeadLetterPublished(4, (message,))
    assert not producer.published


def test_a_letter_is_published_with_the_id_that_makes_a_repeat_harmless() -> None:
    producer = FakeProducer()
    assert sent(producer, is_only_checked=False) == DeadLetterPublished(4)
    options = {"key": b"k", "headers": {"dead-letter-reason": "no"}, "dedup_id": "dead-letter/1"}
    assert producer.published == [("A.dlq", b"v", options)]


@pytest.mark.parametrize("is_only_checked", [True, False])
@pytest.mark.parametrize("step", ["refusal", "failure"])
def test_a_letter_that_is_refused_or_lost_is_reported(step: str, is_only_checked: bool) -> None:
    event = sent(FakeProducer(**{step: UnknownTopic("A.dlq")}), is_only_checked=is_only_checked)
    if step == "failure" and is_only_checked:
        assert isinstance(event, DeadLetterPublished)
    else:
        assert isinstance(event, DeadLetterFailed)
        assert "unknown topic 'A.dlq'" in event.reason

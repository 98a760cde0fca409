"""The handler on its thread: loaded, run, noted, its failures described."""

import select
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from planaria import Context, PlanariaError, Reject, Release
from planaria.actors.subscriber.effects import HandlerReturned, PriorAttempt, Run
from planaria.actors.subscriber.flight_recorder import FlightRecorder
from planaria.actors.subscriber.handler import (
    failure_of,
)
from planaria.actors.subscriber.threads import Inbox, ThreadFailed, WorkThread
from planaria.actors.subscriber.worker import Workers
from planaria.transport.batch import RecordFields
from planaria.transport.client.delivery import Delivery
from planaria.transport.client.errors import DeliveryFailed, UnknownTopic
from planaria.transport.client.options import InvalidOption
from planaria.transport.client.producer_batch import ProducerBatch
from planaria.transport.publication import Publication
from subscriber_script import FakeMessage, messages


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    inbox = Inbox()
    yield inbox
    inbox.close()


def heard(inbox: Inbox) -> Any:
    """Return the next event, which must be alone."""
    readable, _, _ = select.select([inbox.fileno()], [], [], 10)
    assert readable, "nothing was posted"
    [event] = inbox.take()
    return event


@pytest.fixture
def recorder(tmp_path: Path) -> FlightRecorder:
    return FlightRecorder(tmp_path / "billing-1.flight")


class Outlet:
    """Takes the handlers' publications; `acknowledge` sets their outcomes."""

    def __init__(self) -> None:
        self.sent: list[Publication] = []
        self._batches: list[ProducerBatch] = []
        self._are_sent = threading.Condition()

    def check(self, message: Publication) -> None:
        if message.topic == "NOWHERE":
            raise UnknownTopic("NOWHERE")

    def send(self, message: Publication) -> Delivery:
        with self._are_sent:
            self.sent.append(message)
            batch = ProducerBatch(message.topic, 0, 1_000, 100, 0, threading.Lock(), lambda _: None)
            self._batches.append(batch)
            self._are_sent.notify_all()
        return Delivery(batch, RecordFields(None, b"", 0, None))

    def acknowledge(self, *errors: Exception | None) -> None:
        """Set the outcomes of the awaited messages."""
        with self._are_sent:
            assert self._are_sent.wait_for(lambda: len(self._batches) >= len(errors), 10)
        for batch, error in zip(self._batches, errors, strict=True):
            with batch.lock:
                batch.error, batch.is_done = error, True
                gates, batch.gates = batch.gates, []
            for gate in gates:
                gate.open()


NOW_MS = 1_700_000_000_000


def workers_of(
    handler: Any, recorder: FlightRecorder, inbox: Inbox, outlet: Outlet | None = None, **options: Any
) -> Workers:
    outlet = outlet or Outlet()
    usual = {"check": outlet.check, "send": outlet.send, "now_ms": lambda: NOW_MS}
    return Workers(handler, recorder, inbox, **{**usual, **options})


def test_runs_records_in_order_and_notes_each(recorder: FlightRecorder, inbox: Inbox, tmp_path: Path) -> None:
    seen: list[tuple[int, list[PriorAttempt]]] = []
    copy = tmp_path / "copy.flight"

    def handler(message: FakeMessage) -> None:
        # State that a successor would read if the process died here.
        copy.write_bytes((tmp_path / "billing-1.flight").read_bytes())
        seen.append((message.offset, FlightRecorder(copy).prior_attempts()))

    workers_of(handler, recorder, inbox).run(Run(1, messages("A", 0, 4, 5), 3))
    assert heard(inbox) == HandlerReturned(1, 2)
    assert seen == [(4, [PriorAttempt("A", 0, 4, 3, "killed")]), (5, [PriorAttempt("A", 0, 5, 1, "killed")])]
    assert recorder.prior_attempts() == []


@pytest.mark.parametrize(
    ("error", "reason", "kind"),
    [
        (ValueError("no\nnot this"), "ValueError: no\nnot this", "builtins.ValueError"),
        (SystemExit(3), "SystemExit: 3", "builtins.SystemExit"),
    ],
)
def test_a_failure_ends_the_run_and_is_charged(
    recorder: FlightRecorder, inbox: Inbox, error: BaseException, reason: str, kind: str
) -> None:
    def handler(message: FakeMessage) -> None:
        if message.offset == 5:
            raise error

    workers_of(handler, recorder, inbox).run(Run(1, messages("A", 0, 4, 5, 6), 1))
    ran = heard(inbox)
    assert (ran.done, ran.failure.reason, ran.failure.exception) == (1, reason, kind)
    assert "in handler" in ran.failure.traceback
    assert "in _run" not in ran.failure.traceback
    [prior_attempt] = recorder.prior_attempts()
    assert prior_attempt.first_failed_ms == prior_attempt.last_failed_ms > 0
    assert (prior_attempt.key, prior_attempt.offset, prior_attempt.attempts, prior_attempt.cause) == (
        ("A", 0),
        5,
        1,
        "failed",
    )


@pytest.mark.parametrize(
    ("error", "verdict", "attempts"),
    [(Release("later"), "released", 2), (Reject("never"), "rejected", 3), (ValueError("no"), "failed", 3)],
)
def test_what_is_raised_decides_what_is_charged(
    recorder: FlightRecorder, inbox: Inbox, error: Exception, verdict: str, attempts: int
) -> None:
    def handler(_: FakeMessage) -> None:
        raise error

    workers_of(handler, recorder, inbox).run(Run(1, messages("A", 0, 4), 3, 6, 111, 222))
    ran = heard(inbox)
    assert (ran.done, ran.verdict) == (0, verdict)
    [prior_attempt] = recorder.prior_attempts()
    assert (prior_attempt.cause, prior_attempt.attempts, prior_attempt.handed) == (verdict, attempts, 7)
    assert prior_attempt.first_failed_ms == 111
    assert (prior_attempt.last_failed_ms == 222) == (verdict == "released")


def test_an_exception_that_cannot_even_be_printed_is_a_failure(
    recorder: FlightRecorder, inbox: Inbox
) -> None:
    class Hostile(Exception):
        def __str__(self) -> str:
            raise RuntimeError("not even this")

    def handler(_: FakeMessage) -> None:
        raise Hostile

    workers_of(handler, recorder, inbox).run(Run(1, messages("A", 0, 4), 1))
    assert "Hostile" in heard(inbox).failure.reason


def test_what_has_no_utf8_is_told_escaped() -> None:
    failure = failure_of(FileNotFoundError(2, "No such file", b"caf\xe9".decode("utf-8", "surrogateescape")))
    assert failure.reason == "FileNotFoundError: [Errno 2] No such file: 'caf\\udce9'"
    for raised in (ValueError("\udce9"), Reject("\udce9")):
        failure = failure_of(raised)
        assert failure.reason.endswith(": \\udce9")
        assert failure.traceback.encode().endswith(b"\\udce9\n")


def test_a_long_traceback_is_bounded(recorder: FlightRecorder, inbox: Inbox) -> None:
    def handler(_: FakeMessage) -> None:
        raise ValueError("x" * 1_000_000)

    workers_of(handler, recorder, inbox).run(Run(1, messages("A", 0, 4), 1))
    assert len(heard(inbox).failure.traceback) <= 8_000


def test_a_worker_told_to_stop_finishes_the_record_at_hand_alone(
    recorder: FlightRecorder, inbox: Inbox
) -> None:
    workers: list[Workers] = []
    workers.append(workers_of(lambda _: workers[0].stop(), recorder, inbox))
    workers[0].run(Run(1, messages("A", 0, 4, 5, 6), 1))
    assert heard(inbox) == HandlerReturned(1, 1)


def test_what_was_taken_back_from_a_worker_is_not_begun(recorder: FlightRecorder, inbox: Inbox) -> None:
    handled: list[int] = []
    workers: list[Workers] = []

    def handler(record: FakeMessage) -> None:
        handled.append(record.offset)
        if record.offset == 5:
            assert workers[0].recall(0) == 2
            assert workers[0].recall(0) == 0

    workers.append(workers_of(handler, recorder, inbox))
    workers[0].run(Run(1, messages("A", 0, 4, 5, 6, 7), 1))
    assert heard(inbox) == HandlerReturned(1, 2)
    assert handled == [4, 5]


def test_a_thread_that_fails_says_so(inbox: Inbox) -> None:
    WorkThread("test", inbox).order(lambda _: 1 // 0, None)
    failed = heard(inbox)
    assert isinstance(failed, ThreadFailed)
    assert isinstance(failed.error, ZeroDivisionError)


def test_nothing_posted_by_many_threads_is_lost(inbox: Inbox) -> None:
    threads = [WorkThread(f"test-{number}", inbox) for number in range(4)]
    for count in range(1_000):
        for number, thread in enumerate(threads):
            thread.order(lambda tp: tp, (number, count))
    found: list[tuple[int, int]] = []
    while len(found) < 4_000:
        readable, _, _ = select.select([inbox.fileno()], [], [], 10)
        assert readable, f"only {len(found)} arrived"
        found += inbox.take()
    for number in range(4):
        assert [count for thread, count in found if thread == number] == list(range(1_000))


# Publishing.


def echo(message: FakeMessage, context: Context) -> None:
    context.publish("OUT", {"at": message.offset}, key="k", headers={"a": "b"})


def test_a_record_is_done_when_what_was_made_of_it_is_durable(recorder: FlightRecorder, inbox: Inbox) -> None:
    outlet = Outlet()
    workers_of(echo, recorder, inbox, outlet).run(Run(1, messages("A", 0, 4, 5), 1))
    outlet.acknowledge(None, None)
    assert heard(inbox) == HandlerReturned(1, 2)
    headers = {"a": "b", "content-type": "application/json"}
    assert outlet.sent == [Publication("OUT", b'{"at":%d}' % at, b"k", headers) for at in (4, 5)]
    # A successor must not count them as done: they may have gone with their process.
    assert recorder.recovered().finished == []
    assert recorder.in_progress() == []


def test_the_first_record_of_which_something_is_not_durable_has_failed(
    recorder: FlightRecorder, inbox: Inbox
) -> None:
    outlet = Outlet()
    workers_of(echo, recorder, inbox, outlet).run(Run(1, messages("A", 0, 4, 5, 6), 2, 3, 111, 222))
    outlet.acknowledge(None, DeliveryFailed("STORAGE_FULL", "no room"), None)
    ran = heard(inbox)
    assert (ran.done, ran.failure.reason) == (
        1,
        "planaria.transport.client.errors.DeliveryFailed: STORAGE_FULL: no room",
    )
    [prior_attempt] = recorder.prior_attempts()
    assert (prior_attempt.offset, prior_attempt.attempts, prior_attempt.handed, prior_attempt.cause) == (
        5,
        1,
        1,
        "failed",
    )


def test_nothing_of_a_failed_call_is_published(recorder: FlightRecorder, inbox: Inbox) -> None:
    def handler(message: FakeMessage, context: Context) -> None:
        echo(message, context)
        if message.offset == 5:
            raise ValueError("no")

    outlet = Outlet()
    workers_of(handler, recorder, inbox, outlet).run(Run(1, messages("A", 0, 4, 5), 1))
    outlet.acknowledge(None)
    assert heard(inbox).done == 1
    assert len(outlet.sent) == 1


def test_in_a_transaction_what_is_published_goes_with_the_run(recorder: FlightRecorder, inbox: Inbox) -> None:
    def handler(message: FakeMessage, context: Context) -> None:
        if message.offset != 5:
            echo(message, context)
        if message.offset == 7:
            raise ValueError("no")

    workers_of(handler, recorder, inbox, send=None).run(Run(1, messages("A", 0, 4, 5, 6, 7), 1))
    ran = heard(inbox)
    assert (ran.done, sorted(ran.published)) == (3, [4, 6])
    assert [each.value for each in ran.published[6]] == [b'{"at":6}']
    # None of them is done before its transaction is: a successor delivers them again.
    assert recorder.recovered().finished == []
    assert [prior_attempt.offset for prior_attempt in recorder.prior_attempts()] == [7]


@pytest.mark.parametrize("is_transactional", [True, False])
def test_of_a_stuck_run_is_known_what_came_before(
    recorder: FlightRecorder, inbox: Inbox, is_transactional: bool
) -> None:
    stuck, let_go = threading.Event(), threading.Event()

    def handler(message: FakeMessage, context: Context) -> None:
        if message.offset == 6:
            stuck.set()
            let_go.wait(10)
        echo(message, context)

    outlet = Outlet()
    workers = workers_of(handler, recorder, inbox, outlet, **({"send": None} if is_transactional else {}))
    workers.run(Run(1, messages("A", 0, 4, 5, 6), 1))
    assert stuck.wait(10)
    assert sorted(workers.so_far(0).published) == ([4, 5] if is_transactional else [])
    assert workers.so_far(0).undelivered == (None if is_transactional else 0)
    if not is_transactional:
        outlet.acknowledge(None, DeliveryFailed("STORAGE_FULL", "no room"))
        assert workers.so_far(0).undelivered == 1
    let_go.set()
    assert heard(inbox).done == (3 if is_transactional else 1)


def test_what_cannot_be_published_fails_in_the_handler(recorder: FlightRecorder, inbox: Inbox) -> None:
    def handler(message: FakeMessage, context: Context) -> None:
        context.publish("NOWHERE", b"")

    workers_of(handler, recorder, inbox).run(Run(1, messages("A", 0, 4), 1))
    assert "unknown topic 'NOWHERE'" in heard(inbox).failure.reason


def test_a_context_is_of_no_use_after_its_call(recorder: FlightRecorder, inbox: Inbox) -> None:
    kept: list[Context] = []
    workers_of(lambda _, context: kept.append(context), recorder, inbox).run(Run(1, messages("A", 0, 4), 1))
    heard(inbox)
    with pytest.raises(PlanariaError, match="the handler has returned"):
        kept[0].publish("OUT", b"")
    with pytest.raises(InvalidOption, match="must be text"):
        Context(lambda _: None).publish("OUT", b"", headers={"a": 1})

"""A failure is reported when nothing waits for it, and only after its publisher had the time to wait."""

import threading

import pytest

from planaria.transport.client.producer_batch import ProducerBatch
from planaria.transport.client.unawaited import JUDGE, MAX_HELD, PERIOD_MS, UnawaitedFailures
from planaria.transport.machine import SetTimer

ERROR = RuntimeError("full")


def failed() -> ProducerBatch:
    batch = ProducerBatch("T", 0, 1000, 1000, 0, threading.Lock(), lambda _batch: None)
    batch.append((0, None, b"v", None))
    return batch


def test_a_failure_waits_for_its_publisher(caplog: pytest.LogCaptureFixture) -> None:
    failures = UnawaitedFailures()
    batch = failed()
    assert failures.note(batch, ERROR, 0) == [SetTimer(JUDGE, PERIOD_MS)]
    assert failures.judge(PERIOD_MS) == [SetTimer(JUDGE, 2 * PERIOD_MS)]
    batch.is_awaited = True
    assert failures.judge(2 * PERIOD_MS) == []
    failures.close()
    assert caplog.text == ""


def test_the_last_failure_before_a_judgement_has_a_whole_period(caplog: pytest.LogCaptureFixture) -> None:
    failures = UnawaitedFailures()
    failures.note(failed(), ERROR, 0)
    failures.judge(PERIOD_MS)
    assert failures.note(failed(), ERROR, 2 * PERIOD_MS - 1) == []
    failures.judge(2 * PERIOD_MS)
    assert "1 messages failed" in caplog.text
    caplog.clear()
    failures.judge(3 * PERIOD_MS)
    assert (
        "1 messages failed, and the program did not check their deliveries; the last ones to T/0: full"
        in caplog.text
    )


def test_a_flood_of_failures_is_not_held(caplog: pytest.LogCaptureFixture) -> None:
    failures = UnawaitedFailures()
    for _ in range(3 * MAX_HELD):
        failures.note(failed(), ERROR, 0)
    failures.judge(PERIOD_MS)
    assert f"{2 * MAX_HELD} messages failed" in caplog.text
    assert len(caplog.records) == 1


def test_closing_reports_at_once(caplog: pytest.LogCaptureFixture) -> None:
    failures = UnawaitedFailures()
    failures.note(failed(), ERROR, 0)
    failures.close()
    assert "1 messages failed" in caplog.text

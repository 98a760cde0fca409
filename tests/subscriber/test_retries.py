"""Operators' view of records that failed and wait for their next attempt."""

from planaria.actors.subscriber.effects import PriorAttempt, Run
from planaria.transport.protocol.operations import MAX_RETRYING_SHOWN
from subscriber_script import FakeMessage, Script, messages


def started(*prior_attempts: PriorAttempt, **changed: object) -> Script:
    script = Script(prior_attempts, **changed)
    script.start()
    return script


def test_a_failed_record_is_shown_until_it_is_at_hand_again() -> None:
    script = started()
    script.now = 1_000
    script.polled(FakeMessage("A", 0, 7, key=b"order-\xff17"))
    assert script.machine.retrying().count == 0
    script.ran(failure="ValueError:\n  no amount")
    report = script.machine.retrying()
    [record] = report.records
    assert (report.count, record.topic, record.partition, record.offset) == (1, "A", 0, 7)
    assert (record.key, record.reason) == ("order-\\xff17", "ValueError: no amount")
    assert (record.attempts, record.first_failed_ms, record.next_try_ms) == (1, 1_000, 1_100)
    assert not record.parked
    script.after(100)
    assert script.machine.retrying().count == 0, "it is at hand"
    script.ran(failure="again")
    [record] = script.machine.retrying().records
    assert (record.attempts, record.first_failed_ms, record.next_try_ms) == (2, 1_000, 1_300)
    script.after(200)
    script.ran()
    assert script.machine.retrying().count == 0


def test_a_parked_record_says_so() -> None:
    script = started(retries=0)
    script.polled(*messages("A", 0, 0))
    script.ran(failure="no")
    [record] = script.machine.retrying().records
    assert (record.parked, record.next_try_ms) == (True, 10_000)


def test_what_an_earlier_process_has_tried_is_shown() -> None:
    script = started(PriorAttempt("A", 0, 3, 2, "killed", 2, 111, 222))
    script.now = 1_000
    script.polled(*messages("A", 0, 3))
    [record] = script.machine.retrying().records
    assert (record.attempts, record.first_failed_ms, record.next_try_ms) == (2, 111, 1_200)
    assert record.reason


def test_a_record_of_a_partition_that_has_gone_is_not_shown() -> None:
    script = started()
    script.polled(*messages("A", 0, 0))
    script.ran(failure="no")
    script.lost(0)
    assert script.machine.retrying().count == 0


def test_of_many_the_next_ones_are_shown_and_all_are_counted() -> None:
    script = started(concurrency=200, breaker_window=0, backoff_ms=1_000)
    script.polled(*(FakeMessage("A", 0, offset, key=str(offset).encode()) for offset in range(150)))
    for run in [effect for effect in script.take_effects() if isinstance(effect, Run)]:
        script.now += 1
        script.run = run
        script.ran(failure="no")
    report = script.machine.retrying()
    assert (report.count, len(report.records)) == (150, MAX_RETRYING_SHOWN)
    times = [record.next_try_ms for record in report.records]
    assert times == sorted(times)


def test_a_record_that_keeps_failing_is_an_alarm_until_it_is_done() -> None:
    script = started(retry_alarm_ms=1_000, backoff_ms=[300])
    script.now = 50
    script.polled(*messages("A", 0, 5))
    for _ in range(3):
        script.ran(failure="ValueError: no amount")
        assert script.alarms == ()
        script.after(300)
    script.ran(failure="ValueError: no amount")
    assert script.alarms == (), "900 ms"
    script.after(100)
    told = "retrying: A/0 offset 5 has been failing for more than 1 s, 4 times: ValueError: no amount"
    assert script.alarms == (told,), "it need not fail once more"
    script.after(200)
    script.ran(failure="ValueError: no amount")
    assert script.alarms == (told.replace("4 times", "5 times"),)
    script.after(300)
    script.ran()
    assert script.alarms == ()

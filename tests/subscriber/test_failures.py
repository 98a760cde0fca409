"""The three verbs, the two counts, parking and its alarm, the waits: scene by scene."""

import random
from typing import Any

import pytest

from planaria.actors.subscriber.backoff import backoff_ms, longest_backoff_ms
from planaria.actors.subscriber.effects import PriorAttempt, PublishDeadLetter, RecordsPolled, Verdict
from planaria.actors.subscriber.machine import SubscriberMachine
from planaria.actors.subscriber.timers import RetryDue
from planaria.transport.machine import SetTimer
from subscriber_script import FakeMessage, Script, messages, options


def started(**changed: object) -> Script:
    script = Script(**changed)
    script.start()
    return script


def letter_headers(script: Script) -> dict[str, str]:
    return next(
        effect.dead_letter.headers
        for effect in reversed(script.effects)
        if isinstance(effect, PublishDeadLetter)
    )


# Release.


def test_a_released_record_is_given_out_again_at_once_after_those_that_wait() -> None:
    script = started(retries=0, dead_letter="A.dlq")
    script.polled(*messages("A", 0, 0, 1), *messages("A", 1, 0))
    assert script.ran(failure="later", verdict="released") == [
        "warning: handler released the record",
        "run A/1 0, attempt 1",
    ]
    assert script.ran() == ["run A/0 0, attempt 1"]
    assert script.run is not None
    assert script.run.handed == 1


@pytest.mark.parametrize(
    ("verdict", "lines"),
    [
        ("failed", ["warning: handler failed"]),
        ("rejected", ["warning: handler rejected the record", "bury A/0/1 in A.dlq after 1"]),
    ],
)
def test_a_record_that_fails_behind_a_released_one_waits_for_its_own_turn(
    verdict: Verdict, lines: list[str]
) -> None:
    """The commit of the released record neither ends its backoff nor doubles its dead letter."""
    script = started(retries=5, dead_letter="A.dlq")
    script.polled(*messages("A", 0, 0, 1, 2))
    assert script.ran(failure="later", verdict="released")[1:] == ["run A/0 0, attempt 1"]
    assert script.ran() == []
    script.polled()
    assert script.committed() == ["forget A/0", "run A/0 1-2, attempt 1"]
    assert script.ran(failure="no", verdict=verdict) == lines
    assert script.polled() == ["poll"]
    if verdict == "failed":
        assert script.after(100) == ["run A/0 1, attempt 2"]
        assert script.ran() == []
    else:
        assert script.dead_lettered() == ["error: record dead-lettered"]
    script.polled()
    assert script.committed() == ["forget A/0", "run A/0 2, attempt 1"]


def test_releases_are_not_charged_however_many() -> None:
    script = started(retries=1, dead_letter="A.dlq")
    script.polled(*messages("A", 0, 0))
    lines: list[str] = []
    for _ in range(1_000):
        lines += script.ran(failure="later", verdict="released")
    assert lines.count("warning: handler released the record") == 10, "the log is not flooded"
    script.ran(failure="ValueError: no")
    assert script.after(100) == ["run A/0 0, attempt 2"]
    script.ran(failure="later", verdict="released")
    assert script.ran(failure="ValueError: no") == [
        "warning: handler failed",
        "bury A/0/0 in A.dlq after 2",
    ]
    assert letter_headers(script)["dead-letter-deliveries"] == "1003"


def test_a_released_record_that_is_handled_is_forgotten() -> None:
    script = started()
    script.polled(*messages("A", 0, 0, 1))
    script.ran(failure="later", verdict="released")
    assert script.ran() == []
    assert script.polled() == ["commit A/0=1", "poll"]
    assert script.committed() == ["forget A/0", "run A/0 1, attempt 1"]


def test_a_release_is_remembered_over_incarnations() -> None:
    script = Script([PriorAttempt("A", 0, 2, 1, "released", 4, 111, 222)], retries=1, dead_letter="A.dlq")
    script.start()
    assert script.polled(*messages("A", 0, 2, 3)) == ["poll", "run A/0 2, attempt 2"]
    script.now = 5_000
    script.ran(failure="ValueError: no")
    headers = letter_headers(script)
    assert headers["dead-letter-deliveries"] == "5"
    assert headers["dead-letter-first-failure"] == "111"
    assert headers["dead-letter-last-failure"] == "5000"


def test_at_most_once_gives_nothing_out_twice() -> None:
    script = started(delivery="at-most-once", dead_letter="A.dlq")
    script.polled(*messages("A", 0, 0))
    script.committed()
    assert script.ran(failure="later", verdict="released") == [
        "warning: handler failed",
        "bury A/0/0 in A.dlq after 1",
    ]


# Reject.


def test_a_rejected_record_is_buried_at_once() -> None:
    script = started(retries=5, dead_letter="A.dlq")
    script.polled(*messages("A", 0, 0, 1))
    assert script.ran(failure="never", verdict="rejected") == [
        "warning: handler rejected the record",
        "bury A/0/0 in A.dlq after 1",
    ]
    script.dead_lettered()
    script.polled()
    assert script.committed() == ["forget A/0", "run A/0 1, attempt 1"]


def test_a_rejected_record_is_buried_by_the_next_incarnation_without_being_run() -> None:
    script = Script([PriorAttempt("A", 0, 2, 1, "rejected")], retries=5, dead_letter="A.dlq")
    script.start()
    assert script.polled(*messages("A", 0, 2)) == [
        "poll",
        "warning: the handler rejected the record, in a process that has ended since",
        "bury A/0/2 in A.dlq after 1",
    ]


def test_the_next_record_is_not_rejected_with_it() -> None:
    script = started(retries=1, dead_letter="A.dlq")
    script.polled(*messages("A", 0, 0, 1))
    script.ran(failure="never", verdict="rejected")
    script.dead_lettered()
    script.polled()
    script.committed()
    assert script.ran(failure="ValueError: no") == ["warning: handler failed"]


# Parking.


def test_what_has_no_dead_letter_topic_is_parked_under_an_alarm_until_it_is_handled() -> None:
    script = started(retries=0, backoff_max_ms=1_000)
    script.polled(*messages("A", 3, 42), *messages("A", 1, 0))
    script.ran(failure="ValueError: two\nlines")
    assert script.alarms == ("parked: A/3 offset 42 keeps failing: ValueError: two lines",)
    script.ran()
    assert len(script.alarms) == 1, "the other partitions go on, the alarm stays"
    assert script.after(1_000) == ["run A/3 42, attempt 2"]
    script.ran()
    assert script.alarms == ()


def test_a_letter_that_nobody_takes_is_an_alarm() -> None:
    script = started(retries=0, dead_letter="A.dlq")
    script.polled(*messages("A", 0, 0))
    script.ran(failure="ValueError: no")
    script.dead_letter_failed()
    assert script.alarms == ("parked: A/0 offset 0 cannot be dead-lettered: UNKNOWN_TOPIC: no such topic",)
    script.after(10_000)
    script.dead_lettered()
    assert script.alarms == ()


def test_a_partition_that_goes_takes_its_alarm_along() -> None:
    script = started(retries=0)
    script.polled(*messages("A", 0, 0))
    script.ran(failure="ValueError: no")
    assert script.alarms
    script.revoking(0)
    assert script.alarms == ()


# End of the process.


def test_a_letter_tells_how_the_process_ended() -> None:
    script = Script(
        [PriorAttempt("A", 0, 2, 1, "killed", 1, 5, 5, "killed by SIGSEGV")], retries=0, dead_letter="A.dlq"
    )
    script.start()
    script.polled(*messages("A", 0, 2))
    assert letter_headers(script)["dead-letter-exit"] == "killed by SIGSEGV"


def test_how_the_process_ended_is_known_when_the_partition_comes_back() -> None:
    told = ("killed by SIGSEGV", "Fatal Python error", 120_000_000)
    prior_attempt = PriorAttempt("A", 0, 2, 1, "killed", 1, 5, 5, *told)
    script = started(prior_attempts=[prior_attempt], retries=0, dead_letter="A.dlq")
    script.polled(*messages("A", 0, 2))
    script.dead_letter_failed()
    script.revoking(0)
    script.polled(*messages("A", 0, 2))
    headers = letter_headers(script)
    assert [headers[f"dead-letter-{name}"] for name in ("exit", "stack", "peak-memory")] == [
        "killed by SIGSEGV",
        "Fatal Python error",
        "120000000",
    ]


def test_a_letter_tells_what_memory_the_process_had() -> None:
    for peak_bytes, told in ((120_000_000, "120000000"), (None, None)):
        prior_attempt = PriorAttempt("A", 0, 0, 1, "killed", peak_bytes=peak_bytes)
        script = started(prior_attempts=[prior_attempt], retries=0, dead_letter="A.dlq")
        script.polled(*messages("A", 0, 0))
        assert letter_headers(script).get("dead-letter-peak-memory") == told


def test_letters_of_one_record_have_one_name() -> None:
    def name_of(message: FakeMessage, lineage: bytes = b"a", **changed: object) -> str | None:
        script = started(retries=0, dead_letter="A.dlq", **changed)
        script.give(RecordsPolled([message], lineages={(message.topic, message.partition): lineage}))
        script.ran(failure="ValueError: no")
        assert script.publish_dead_letter is not None
        return script.publish_dead_letter.dead_letter.dedup_id

    first = FakeMessage("A", 0, 7)
    assert name_of(first) == name_of(first)
    others = [name_of(FakeMessage("A", 1, 7)), name_of(FakeMessage("A", 0, 8)), name_of(first, group="b")]
    others.append(name_of(first._replace(leader_epoch=1)))  # given its offset after a power cut
    others.append(name_of(first, lineage=b"b"))  # of another topic with the name, or read again after a reset
    assert len({name_of(first), *others}) == 6


# Waits.


def test_waits_grow_by_the_factor_up_to_the_limit() -> None:
    settings = options(backoff_ms=1_000, backoff_factor=3.0, backoff_max_ms=20_000)
    assert [backoff_ms(settings, n, lambda: 0.5) for n in range(1, 6)] == [
        1_000,
        3_000,
        9_000,
        20_000,
        20_000,
    ]
    assert backoff_ms(settings, 10**6, lambda: 0.5) == 20_000


def test_waits_are_spread() -> None:
    settings = options(backoff_ms=1_000, backoff_jitter=0.2)
    assert [backoff_ms(settings, 1, lambda end=end: end) for end in (0.0, 1.0)] == [800, 1_200]  # type: ignore[misc]


def test_a_list_of_waits_is_taken_as_it_is() -> None:
    settings = options(backoff_ms=[10, 500, 20], backoff_jitter=1.0)
    assert [backoff_ms(settings, n, random.random) for n in range(1, 6)] == [10, 500, 20, 20, 20]
    assert longest_backoff_ms(settings) == 500


def test_chance_is_handed_in() -> None:
    waits: set[int] = set()
    for draw in (0.0, 0.25, 1.0):
        machine = SubscriberMachine(options(backoff_jitter=0.5), draw=lambda draw=draw: draw)  # type: ignore[misc]
        script = Script()
        script.machine = machine
        script.start()
        script.polled(*messages("A", 0, 0))
        effects: list[Any] = script.take_effects()
        script.ran(failure="ValueError: no")
        effects = script.take_effects()
        waits |= {
            effect.at
            for effect in effects
            if isinstance(effect, SetTimer) and isinstance(effect.key, RetryDue)
        }
    assert waits == {50, 75, 150}


@pytest.mark.parametrize("count", [1, 5])
def test_a_poison_record_fails_exactly_so_often(count: int) -> None:
    script = started(retries=count, dead_letter="A.dlq")
    script.polled(*messages("A", 0, 0))
    tries = 0
    while script.run is not None:
        tries += 1
        script.ran(failure="ValueError: no")
        script.after(60_000)
    assert tries == count + 1

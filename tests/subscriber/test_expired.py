"""Records of a hosted subscriber whose time has passed before it was their turn."""

import pytest

from planaria.actors.subscriber.effects import Forget, PublishDeadLetter
from planaria.transport.machine import WallClockStepped
from planaria.transport.subscription import InvalidSubscription
from subscriber_pool import Pool
from subscriber_script import FakeMessage, Script, options

WALL_MS = 1_700_000_000_000


def expiring(offset: int, after_ms: int, key: bytes = b"key") -> FakeMessage:
    """Return a record that expires at this time of the script's clock."""
    return FakeMessage("A", 0, offset, key, headers={"expires-at-ms": str(WALL_MS + after_ms)})


def started(**changed: object) -> Script:
    script = Script(**changed)
    script.give(WallClockStepped(WALL_MS))
    script.start()
    return script


def test_expired_records_are_handled_unless_the_option_says_otherwise() -> None:
    script = started()
    script.polled(expiring(0, -1))
    assert script.run is not None


def test_records_that_have_expired_at_their_turn_are_done_without_the_handler() -> None:
    script = started(expired="skip")
    script.polled(expiring(0, -1), expiring(1, 0), expiring(2, 100), expiring(3, 5))
    assert script.run is not None
    assert [record.offset for record in script.run.records] == [2]
    script.now = 10
    script.ran()
    assert script.run is None
    script.after(1_000)
    script.polled()
    assert script.commit is not None
    assert script.commit.offsets == {("A", 0): 4}


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_record_that_failed_is_not_retried_after_its_time(concurrency: int) -> None:
    script = started(expired="skip", concurrency=concurrency)
    script.polled(expiring(0, 50), expiring(1, 10_000))
    script.ran(0, "down")
    script.after(200)
    for _ in range(2):
        script.polled()
        if script.commit is not None:
            assert script.commit.offsets == {("A", 0): 1}
            script.committed()
    assert script.run is not None
    assert script.run.records[0].offset == 1


@pytest.mark.parametrize("delivery", ["at-least-once", "at-most-once", "exactly-once"])
@pytest.mark.parametrize("concurrency", [1, 3])
def test_an_expired_record_is_dead_lettered_with_that_reason_and_the_next_is_handled(
    concurrency: int, delivery: str
) -> None:
    script = started(expired="dead_letter", dead_letter="DEAD", concurrency=concurrency, delivery=delivery)
    script.polled(expiring(0, -1), expiring(1, 10_000))
    if script.commit is not None:
        script.committed()  # at most once
    [letter] = [each for each in script.take_effects() if isinstance(each, PublishDeadLetter)]
    headers = letter.dead_letter.headers
    assert headers["dead-letter-reason"] == "it expired before it was handled", headers
    script.dead_lettered()
    assert script.run is not None
    assert script.run.records[0].offset == 1
    assert script.run.attempt == 1
    assert script.machine.counters()["dead_letters:record_expired"] == 1
    script.ran()
    assert not [each for each in script.take_effects() if isinstance(each, Forget)]


def test_the_dead_letter_of_an_expired_record_is_tried_again_under_an_alarm() -> None:
    script = started(expired="dead_letter", dead_letter="DEAD")
    script.polled(expiring(0, -1))
    script.dead_letter_failed()
    assert "cannot be dead-lettered" in script.alarms[0]
    script.after(11_000)
    assert script.publish_dead_letter is not None
    script.dead_lettered()
    assert script.alarms == ()


def test_each_record_is_looked_at_when_it_is_its_turn() -> None:
    pool = Pool(2, expired="skip")
    pool.script.give(WallClockStepped(WALL_MS))
    assert pool.polled([expiring(0, 50, b"a"), expiring(1, 5, b"a"), expiring(2, 50, b"b")]) == [0, 2]
    pool.script.now = 10
    assert pool.ran(0) == []
    pool.ran(2)
    assert pool.commit() == (3, "")


def test_dead_letters_of_expired_records_need_a_topic() -> None:
    with pytest.raises(InvalidSubscription, match=r"^expired: 'dead_letter' needs"):
        options(expired="dead_letter")
    with pytest.raises(InvalidSubscription, match=r"^expired: 'later' is unknown"):
        options(expired="later")

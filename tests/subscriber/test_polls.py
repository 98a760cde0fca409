"""A poll lasts until there are records, or until something has to happen between two polls: then the machine ends it."""

from planaria.actors.subscriber.commits import COMMIT_MS
from planaria.actors.subscriber.effects import Commit, CommitRefused, EndPoll
from planaria.transport.machine import StopRequested
from subscriber_script import Script, messages


def ended(script: Script) -> int:
    """Return how often the poll that is out has been told to end, since the last time this was asked."""
    return script.take_effects().count(EndPoll())


def handled(**options: object) -> Script:
    """Return a machine whose poll is out, and which has handled one record."""
    script = Script(**options)
    script.start()
    script.polled(*messages("A", 0, 0))
    script.ran(publishes=options.get("delivery") == "exactly-once")
    assert ended(script) == 0
    return script


def test_for_a_commit() -> None:
    script = handled()
    script.after(COMMIT_MS - 1)
    assert ended(script) == 0, "no commit is due"
    script.after(1)
    script.after(COMMIT_MS)
    assert ended(script) == 1
    assert script.polled() == ["commit A/0=1", "poll"]
    script.committed()
    script.after(10 * COMMIT_MS)
    assert ended(script) == 0, "there is nothing left to commit"


def test_for_the_end() -> None:
    script = handled()
    script.give(StopRequested(script.now + 60_000))
    assert ended(script) == 1
    assert script.polled() == ["leave A/0=1"]


def test_for_a_partition_that_is_read_again_from_its_committed_offset() -> None:
    script = handled(delivery="exactly-once", concurrency=2)
    script.after(COMMIT_MS)
    assert script.polled(*messages("A", 0, 1)) == ["commit A/0=1 with 0:0", "poll", "run A/0 1, attempt 1"]
    assert isinstance(script.commit, Commit)
    script.take_effects()
    script.give(CommitRefused(script.commit.offsets, "UNKNOWN_TOPIC", is_spoiled=True))
    assert ended(script) == 0, "a record is in progress"
    script.ran(publishes=True)
    assert ended(script) == 1
    assert script.polled() == ["rewind A/0=0", "poll"]

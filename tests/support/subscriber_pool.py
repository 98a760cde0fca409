"""A subscriber's machine with several workers, driven by hand: its runs end in any order."""

from typing import Any

from planaria.actors.subscriber.commits import COMMIT_MS
from planaria.actors.subscriber.effects import Committed, Failure, HandlerReturned, RecordsPolled, Run
from subscriber_script import FakeMessage, Script


def keyed(keys: str, first: int = 0, partition: int = 0) -> list[FakeMessage]:
    """Return one record per letter; a dot is a record without a key."""
    return [
        FakeMessage("A", partition, first + at, None if key == "." else key.encode())
        for at, key in enumerate(keys)
    ]


class Pool:
    """A script whose runs end in any order."""

    def __init__(self, concurrency: int, **changed: Any) -> None:
        self.script = Script(concurrency=concurrency, **changed)
        self.runs: dict[int, Run] = {}
        self.script.start()

    def hear(self) -> list[int]:
        """Return the offsets started since the last call."""
        started = [effect for effect in self.script.take_effects() if isinstance(effect, Run)]
        for run in started:
            self.runs[run.records[0].offset] = run
        return [run.records[0].offset for run in started]

    def polled(self, records: list[FakeMessage], **told: Any) -> list[int]:
        self.script.give(RecordsPolled(records, **told))
        return self.hear()

    def ran(self, offset: int, failure: str | None = None) -> list[int]:
        run = self.runs.pop(offset)
        done = 0 if failure else len(run.records)
        self.script.give(HandlerReturned(run.number, done, Failure(failure) if failure else None))
        return self.hear()

    def commit(self) -> tuple[int, str]:
        """Return the next commit."""
        self.script.after(COMMIT_MS)
        self.script.polled()
        commit = self.script.commit
        assert commit is not None
        self.script.commit = None
        self.script.give(Committed(commit.offsets))
        self.hear()
        return commit.offsets["A", 0], commit.metadata.get(("A", 0), "")

"""The promises of a pipeline of transactions, the observations of its readers, and their check. Pure.

A value is `<key>:<n>` at the source and `<key>:<n>|<transaction>` after a stage: unique, since no two transactions share
a name. Each attempt has an outcome: `ok`, `fail`, or `info` if unknown (its process was killed, no answer came).

    aborted_read    read, and its transaction was not committed      lost        committed, and not read
    torn            some of a transaction was read, the rest was not  phantom     read, but never written
    apart           the offsets contradict the output                duplicated  one input became two outputs
    zombie          ended after its successor had begun, and read     reordered   read after a later one of its key
"""

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from .history import MAX_EXAMPLES, LogEntry

Outcome = Literal["ok", "fail", "info"]
KINDS = ("aborted_read", "lost", "torn", "phantom", "apart", "duplicated", "zombie", "reordered")


class Attempt(msgspec.Struct, kw_only=True):
    """One transaction: its intended writes, and its outcome as far as its process knows."""

    name: str
    transactional_id: str
    session: int
    """Number of the holder of the transactional id."""
    wrote: tuple[str, ...]
    ending_at: int | None = None
    """Time of the commit request; None if there was none."""
    outcome: Outcome = "info"


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A holder of a transactional id, and the time when the broker had fenced all others."""

    transactional_id: str
    session: int
    ready_at: int


class Findings(msgspec.Struct, kw_only=True):
    """Violations by kind; `examples` names the first few."""

    counts: dict[str, int] = msgspec.field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    examples: list[str] = msgspec.field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        return not any(self.counts.values())

    def accuse(self, kind: str, what: str) -> None:
        self.counts[kind] += 1
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(f"{kind}: {what}")


def check_stage(
    attempts: Iterable[Attempt],
    sessions: Iterable[Session],
    source: list[LogEntry],
    committed: Mapping[int, int],
    target: list[LogEntry],
) -> Findings:
    """Check one stage, after everything has ended: `source` and `target` as a `read_committed` reader sees them, each
    partition in the order of offsets; `committed` the group's offset in each partition of the source.
    """
    findings = Findings()
    writers = {value: attempt for attempt in attempts for value in attempt.wrote}
    read = {entry.value for entry in target}
    _check_attempts({a.name: a for a in writers.values()}.values(), read, findings)
    _check_zombies(list(sessions), writers, read, findings)
    for value in sorted(read.difference(writers)):
        findings.accuse("phantom", f"{value!r} was never written")
    _check_offsets(source, committed, target, findings)
    _check_order(target, findings)
    return findings


def _check_attempts(attempts: Iterable[Attempt], read: set[str], findings: Findings) -> None:
    for attempt in attempts:
        seen = read.intersection(attempt.wrote)
        # Without a commit request, a transaction cannot have been committed, whatever happened to its process.
        is_aborted = attempt.outcome == "fail" or attempt.ending_at is None
        if is_aborted and seen:
            findings.accuse("aborted_read", f"{min(seen)!r} of {attempt.name}")
        elif attempt.outcome == "ok":
            for value in sorted(set(attempt.wrote) - seen):
                findings.accuse("lost", f"{value!r} of {attempt.name}")
        if 0 < len(seen) < len(attempt.wrote):
            findings.accuse("torn", f"{len(seen)} of {len(attempt.wrote)} values of {attempt.name} were read")


def _check_zombies(
    sessions: list[Session], writers: Mapping[str, Attempt], read: set[str], findings: Findings
) -> None:
    accused = set()
    for value in sorted(read.intersection(writers)):
        attempt = writers[value]
        if attempt.name in accused or attempt.ending_at is None:
            continue
        for session in sessions:
            is_successor = (
                session.transactional_id == attempt.transactional_id and session.session > attempt.session
            )
            if is_successor and session.ready_at < attempt.ending_at:
                accused.add(attempt.name)
                findings.accuse("zombie", f"{attempt.name} ended after session {session.session} had begun")
                break


def _check_offsets(
    source: list[LogEntry], committed: Mapping[int, int], target: list[LogEntry], findings: Findings
) -> None:
    made: dict[str, int] = {}
    for entry in target:
        made[origin(entry.value)] = made.get(origin(entry.value), 0) + 1
    for value, count in made.items():
        if count > 1:
            findings.accuse("duplicated", f"{value!r} became {count} outputs")
    for entry in source:
        is_consumed = entry.offset < committed.get(entry.partition, 0)
        if is_consumed != (origin(entry.value) in made):
            said = "is" if is_consumed else "is not"
            findings.accuse(
                "apart", f"{entry} {said} behind the committed offset, its output contradicts that"
            )


def _check_order(target: list[LogEntry], findings: Findings) -> None:
    latest: dict[str, int] = {}
    for entry in target:
        key, _, number = origin(entry.value).rpartition(":")
        if int(number) < latest.get(key, -1):
            findings.accuse("reordered", f"{entry} came after number {latest[key]} of its key")
        latest[key] = max(int(number), latest.get(key, -1))


def origin(value: str) -> str:
    """Return the value at the source."""
    return value.partition("|")[0]

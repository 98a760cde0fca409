"""The promises and observations of a chaos run, and their check. Pure.

Every published value is unique and names its key: `<key>:<n>`, n counting up for each key, one producer per key. Three
outcomes of a publish are kept apart: acknowledged and refused are promises, unknown is none.

    lost          acknowledged, and not in the log where the acknowledgement said
    duplicated    in the log more than once (producers are idempotent)
    phantom       refused for good, and in the log nevertheless
    reordered     in the log, or first delivered to a group, after a later value of its key
    undelivered   acknowledged, and never delivered to a group

A value delivered to a group again after a crash is `redelivered`: at-least-once allows it, so it is only counted.
"""

from collections.abc import Iterable

import msgspec

MAX_EXAMPLES = 10


class LogEntry(msgspec.Struct, frozen=True):
    """A value and its position in the log."""

    partition: int
    offset: int
    value: str


class Verdict(msgspec.Struct, kw_only=True):
    """The counts of a check; `violations` names the first few."""

    acknowledged: int = 0
    refused: int = 0
    unknown: int = 0
    in_log: int = 0
    delivered: dict[str, int] = msgspec.field(default_factory=dict)
    redelivered: dict[str, int] = msgspec.field(default_factory=dict)
    lost: int = 0
    duplicated: int = 0
    phantom: int = 0
    reordered: int = 0
    undelivered: int = 0
    violations: list[str] = msgspec.field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        return not (self.lost or self.duplicated or self.phantom or self.reordered or self.undelivered)

    def accuse(self, kind: str, what: str) -> None:
        setattr(self, kind, getattr(self, kind) + 1)
        if len(self.violations) < MAX_EXAMPLES:
            self.violations.append(f"{kind}: {what}")


class History:
    """Record of the workload, filled while it runs; not locked: its methods are single operations on dicts and lists."""

    def __init__(self) -> None:
        self.acknowledged: dict[str, tuple[int, int]] = {}
        self.refused: set[str] = set()
        self.unknown: list[str] = []
        self.deliveries: dict[str, list[str]] = {}

    def on_acknowledged(self, value: str, partition: int, offset: int) -> None:
        self.acknowledged[value] = (partition, offset)

    def on_refused(self, value: str) -> None:
        self.refused.add(value)

    def on_unknown(self, value: str) -> None:
        self.unknown.append(value)

    def on_delivered(self, group: str, values: Iterable[str]) -> None:
        self.deliveries.setdefault(group, []).extend(values)

    def missing(self, group: str) -> set[str]:
        """Return the acknowledged values that the group has not received yet."""
        return set(self.acknowledged).difference(self.deliveries.get(group, ()))

    def check(self, log: Iterable[LogEntry], groups: Iterable[str] = ()) -> Verdict:
        """Check all observations against all promises.

        `log` is every partition's content in offset order; each of `groups` should have received
        everything, and so should any other group that received something.
        """
        verdict = Verdict(
            acknowledged=len(self.acknowledged), refused=len(self.refused), unknown=len(self.unknown)
        )
        self._check_log(list(log), verdict)
        for group in sorted({*groups, *self.deliveries}):
            self._check_group(group, self.deliveries.get(group, []), verdict)
        return verdict

    def _check_log(self, log: list[LogEntry], verdict: Verdict) -> None:
        verdict.in_log = len(log)
        found: dict[str, tuple[int, int]] = {}
        for entry in log:
            if entry.value in found:
                verdict.accuse("duplicated", f"{entry} is also at {found[entry.value]}")
            if entry.value in self.refused:
                verdict.accuse("phantom", f"{entry} was refused")
            found.setdefault(entry.value, (entry.partition, entry.offset))
        for value, tp in self.acknowledged.items():
            if found.get(value) != tp:
                verdict.accuse("lost", f"{value!r} was acknowledged at {tp}, found at {found.get(value)}")
        _check_order("log", (entry.value for entry in log), verdict)

    def _check_group(self, group: str, values: list[str], verdict: Verdict) -> None:
        firsts = list(dict.fromkeys(values))
        verdict.delivered[group] = len(firsts)
        verdict.redelivered[group] = len(values) - len(firsts)
        _check_order(group, firsts, verdict)
        for value in sorted(self.missing(group)):
            verdict.accuse("undelivered", f"{value!r} never reached group {group}")


def _check_order(where: str, values: Iterable[str], verdict: Verdict) -> None:
    latest: dict[str, int] = {}
    for value in values:
        key, _, number = value.rpartition(":")
        if int(number) < latest.get(key, -1):
            verdict.accuse("reordered", f"{where}: {value!r} came after number {latest[key]} of its key")
        latest[key] = max(int(number), latest.get(key, -1))

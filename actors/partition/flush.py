"""The flush policy of a topic, parsed: the time at which an append is synced.

batch            at the end of every turn that appended, before anything is acknowledged
interval:<time>  acknowledged once written, synced this long after the first write since the last sync
os               acknowledged once written, synced by the kernel at any time, by the next checkpoint, and by a roll
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FlushPolicy:
    is_every_turn: bool
    interval_ms: int | None = None

    @classmethod
    def parse(cls, flush: str) -> "FlushPolicy":
        """Parse a TopicConfig's `flush`, whose pattern was checked when the config was decoded."""
        name, _, interval = flush.partition(":")
        if not interval:
            return cls(is_every_turn=name == "batch")
        if interval.endswith("ms"):
            return cls(False, int(interval.removesuffix("ms")))
        return cls(False, int(interval.removesuffix("s")) * 1000)

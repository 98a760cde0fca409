"""When an append is synced: what a topic's `flush` says, parsed.

batch            at the end of every turn that appended, before anything is acknowledged
interval:<time>  acknowledged once written, synced this long after the first write since the last sync
os               acknowledged once written, synced by the kernel when it likes, with the next checkpoint, and with a roll
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FlushPolicy:
    is_every_turn: bool
    interval_ms: int | None = None

    @classmethod
    def parse(cls, flush: str) -> "FlushPolicy":
        """From a TopicConfig's `flush`, whose pattern has been checked when the config was decoded."""
        name, _, interval = flush.partition(":")
        if not interval:
            return cls(is_every_turn=name == "batch")
        if interval.endswith("ms"):
            return cls(False, int(interval.removesuffix("ms")))
        return cls(False, int(interval.removesuffix("s")) * 1000)

"""The known losses of a partition's log, and the alarm in `status` that reports them. Pure.

Owns the list: losses found by recovery, and losses that readers have met since. A loss is forgotten once the log's
start has passed it, because it can no longer be requested. Called by the partition's machine.
"""

from collections.abc import Iterable

from .effects import Alarm, Effect, Loss

MAX_LOSSES = 10
"""Maximum number of losses in an alarm; readers still receive an error for the others."""


class KnownDamage:
    def __init__(self, losses: Iterable[Loss] = ()) -> None:
        self._losses = {loss.next_offset: loss for loss in losses}

    @property
    def is_known(self) -> bool:
        return bool(self._losses)

    def on_loss(self, loss: Loss) -> list[Effect]:
        """Record a loss that a reader met. Reads within one loss report different beginnings of it; the first counts."""
        known = self._losses.get(loss.next_offset)
        if (known is not None and known.offset <= loss.offset) or len(self._losses) >= MAX_LOSSES:
            return []
        self._losses[loss.next_offset] = loss
        return self.alarm()

    def on_trimmed(self, log_start_offset: int) -> list[Effect]:
        left = {end: loss for end, loss in self._losses.items() if end > log_start_offset}
        if len(left) == len(self._losses):
            return []
        self._losses = left
        return self.alarm()

    def alarm(self) -> list[Effect]:
        losses = sorted(self._losses.values(), key=lambda loss: loss.offset)[:MAX_LOSSES]
        return [Alarm("damage", tuple(f"records are lost: {loss.message}" for loss in losses))]

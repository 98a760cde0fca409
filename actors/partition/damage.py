"""The known losses of a partition's log, and the alarm in `status` that reports them. Pure.

Owns the list: losses found by recovery, and losses that readers have met since. A loss is forgotten once the log's
start has passed it, because it can no longer be requested. In a cluster a leader asks for another one, and begins its
own log again once it is no member of the in-sync set (`follower.py`). Called by the partition's machine.
"""

from collections.abc import Iterable

from msgspec import Struct

from ...transport.addresses import CONTROLLER
from ...transport.machine import Call
from ...transport.protocol.message import Done, Request
from ...transport.protocol.replication import Lead, LogDamaged
from .arguments import PartitionArguments
from .effects import Alarm, Effect, Loss, OpenedLog
from .roles import Undecided

MAX_LOSSES = 10
"""Maximum number of losses in an alarm; readers still receive an error for the others."""


class DamageCall(Struct, frozen=True):
    """The key of a call of the controller: the leader's log is damaged."""


class KnownDamage:
    def __init__(self, losses: Iterable[Loss] = ()) -> None:
        self._losses = {loss.next_offset: loss for loss in losses}
        self._is_reporting = False

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

    def report(self, arguments: PartitionArguments, role: Undecided) -> list[Effect]:
        """Return the request of a leader in a cluster for another leader, whose log can be read."""
        if self._is_reporting or arguments.leadership != "given" or role.name != "leader":
            return []
        self._is_reporting = True
        request = LogDamaged(
            topic=arguments.topic, topic_id=arguments.topic_id, partition=arguments.partition
        )
        return [Call(DamageCall(), CONTROLLER, request, Done, is_endless=True)]

    def on_reported(self) -> list[Effect]:
        """Report again when damage is met again: there may have been no other in-sync replica."""
        self._is_reporting = False
        return []


def unclean_alarm(request: Request, log: OpenedLog, arguments: PartitionArguments) -> list[Effect]:
    """Report the unclean elections whose loss retention has not removed yet, where the partition is led.

    A mirror's copy gets such records again from its source, and a promotion reports those that it does not get.
    """
    lines = []
    for epoch in request.unclean_epochs if isinstance(request, Lead) else ():
        if not arguments.has_own_records(epoch):
            continue
        _, offset = log.epochs.end_of(epoch - 1, log.log_end_offset)
        if offset >= log.log_start_offset:
            lines.append(
                f"an unclean election began epoch {epoch}: records from offset {offset} on that were committed"
                " before it may be lost"
            )
    return [Alarm("unclean", tuple(lines))]

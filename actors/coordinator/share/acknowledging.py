"""Acknowledgements of a share group's members, and the locks of members that do not send any. Pure.

Owns no state: it changes the partitions and marks them. Called by group.py.

    acknowledge    checked range by range; a range that the member does not hold whole is refused NOT_ACQUIRED
    expire         locks and delays that are over
    release        the records of a member that leaves, or is lost
"""

from ....transport.addresses import TopicPartition
from ....transport.protocol.errors import ErrorCode, ProtocolError
from ....transport.protocol.shares import Acknowledge, Acknowledgement, AcknowledgeResult, Acquire
from .losses import Loss
from .partitions import SharePartitions
from .records import ShareSettings


class Acknowledgements:
    def __init__(self, partitions: SharePartitions) -> None:
        self._partitions = partitions

    def apply(
        self, request: Acknowledge | Acquire, settings: ShareSettings, now: int
    ) -> tuple[list[AcknowledgeResult], bool]:
        """Return the results, and True if they have to wait until the progress is durable."""
        results = [self._apply(request.member_id, each, settings, now) for each in request.acknowledgements]
        is_changing = any(
            result.error is None and each.verdict != "renew"
            for each, result in zip(request.acknowledgements, results, strict=True)
        )
        return results, is_changing

    def _apply(
        self, member: str, acknowledgement: Acknowledgement, settings: ShareSettings, now: int
    ) -> AcknowledgeResult:
        tp = TopicPartition(acknowledgement.topic, acknowledgement.partition)
        part = self._partitions.get(tp)
        try:
            if part is None:
                message = f"{member} holds no records of {tp.topic}/{tp.partition}"
                raise ProtocolError(ErrorCode.NOT_ACQUIRED, message)
            until = now + (acknowledgement.lock_ms or settings.lock_ms)
            part.acknowledge(member, acknowledgement, now, until, settings.max_deliveries)
        except ProtocolError as error:
            return AcknowledgeResult(error.body)
        if acknowledgement.verdict != "renew":
            self._partitions.mark(tp)
        return AcknowledgeResult()

    def expire(self, settings: ShareSettings, now: int) -> None:
        """Take back the records whose locks are over."""
        for tp, part in self._partitions.items():
            if part.expire(now, settings.max_deliveries):
                self._partitions.mark(tp)

    def release(self, member: str, loss: Loss | None, now: int) -> None:
        """Take back the records of a member that leaves, or is lost."""
        for tp, part in self._partitions.items():
            if part.take_back(member, loss, now):
                self._partitions.mark(tp)

    def next_due(self, now: int) -> int | None:
        times = (due for _, part in self._partitions.items() if (due := part.next_due(now)) is not None)
        return min(times, default=None)

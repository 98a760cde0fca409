"""A share group's coordinator with partitions around it: logs that are fetched from, and a dead-letter topic."""

from typing import Any

from msgspec import UNSET
from msgspec.structs import replace

from planaria.actors.coordinator.share.partitions import DELIVERY_MS
from planaria.transport.batch import build
from planaria.transport.machine import Call
from planaria.transport.protocol.data import Fetch, ListOffsets, ListOffsetsReply, Produce, ProduceReply
from planaria.transport.protocol.errors import ErrorBody, ErrorCode
from planaria.transport.protocol.progress import ReportProgress
from planaria.transport.protocol.shares import (
    Acknowledge,
    Acknowledgement,
    Acquire,
    AcquiredRange,
    AcquireReply,
)
from simulated_group import GROUP, SimulatedGroup, SimulatedLog

OFFLINE = ErrorBody(ErrorCode.PARTITION_OFFLINE, "down", True)


class SimulatedShare(SimulatedGroup):
    def __init__(self, topics: dict[str, int] | None = None) -> None:
        super().__init__(topics or {"ORDERS": 1, "DLQ": 1})
        self.logs: dict[tuple[str, int], SimulatedLog] = {}
        self.given: list[AcquiredRange] = []
        """All ranges delivered to members, in full."""

    def log_of(self, topic: str, partition: int = 0) -> SimulatedLog:
        return self.logs.setdefault((topic, partition), SimulatedLog())

    def publish(self, count: int, topic: str = "ORDERS", partition: int = 0) -> None:
        log = self.log_of(topic, partition)
        records = [(None, f"{log.end + number}".encode(), 0, {"n": "1"}) for number in range(count)]
        log.append(build(records, first_timestamp_ms=1, max_timestamp_ms=1))
        self.drain()

    def _gather(self) -> None:
        """Drop the leader epochs from ranges: tests of these read `given`."""
        super()._gather()
        for number, body in self.replies.items():
            if isinstance(body, AcquireReply) and body.ranges:
                self.given += [each for each in body.ranges if each.leader_epoch is not UNSET]
                ranges = [replace(each, leader_epoch=UNSET) for each in body.ranges]
                self.replies[number] = replace(body, ranges=ranges)

    def acquire(self, member: str, count: int = 100, **options: Any) -> list[AcquiredRange]:
        """Return the result of a request that does not wait."""
        reply = self.request(
            member, Acquire(group=GROUP, topics=["ORDERS"], member_id=member, max_records=count, **options)
        )
        assert reply is not None
        assert not isinstance(reply, ErrorBody), reply
        found: list[AcquiredRange] = reply.ranges
        return found

    def acknowledge(self, member: str, first: int, last: int, verdict: Any, **options: Any) -> str | None:
        """Return the error's code, if it is refused."""
        said = Acknowledgement(
            topic="ORDERS", partition=0, first_offset=first, last_offset=last, verdict=verdict, **options
        )
        reply = self.request(member, Acknowledge(group=GROUP, member_id=member, acknowledgements=[said]))
        (result,) = reply.results
        return result.error.code if result.error is not None else None

    @property
    def alarms(self) -> tuple[str, ...]:
        return self.actor.alarms

    def _is_parked(self, call: Call) -> bool:
        tp, request = call.address.topic_partition, call.request
        if tp in self.tps and isinstance(request, Fetch) and call.address not in self.down:
            log = self.log_of(*tp)
            is_refused = self._refusal(request, log) is not None
            return not is_refused and request.offset >= log.end and request.max_wait_ms > 0
        return super()._is_parked(call)

    @property
    def tps(self) -> set[Any]:
        return {(topic, number) for topic, count in self.topics.items() for number in range(count)}

    def _outcome(self, call: Call) -> Any:
        tp, request = call.address.topic_partition, call.request
        if tp not in self.tps or isinstance(request, ReportProgress):
            return super()._outcome(call)
        if call.address in self.down:
            return OFFLINE
        log = self.log_of(*tp)
        if isinstance(request, Produce):
            return (ProduceReply(batches=[log.append(bytes(call.payload[0]))], high_watermark=log.end),)
        if isinstance(request, ListOffsets):
            offset = log.start if request.at == "earliest" else log.end
            return (ListOffsetsReply(offset=offset, leader_epoch=log.leader_epoch),)
        assert isinstance(request, Fetch)
        return self._refusal(request, log) or log.fetch(request.offset)

    def _refusal(self, request: Fetch, log: SimulatedLog) -> ErrorBody | None:
        if request.topic_id not in (None, f"{request.topic}.{self.lives.get(request.topic, 0)}"):
            return ErrorBody(ErrorCode.UNKNOWN_TOPIC_ID, "created again")
        return log.truncation(request.offset, request.leader_epoch)


def some(first: int, last: int, deliveries: int = 1) -> AcquiredRange:
    return AcquiredRange("ORDERS", 0, first, last, deliveries, "ORDERS.0")


def settle(group: SimulatedShare) -> None:
    """Let all that has happened become durable."""
    group.drain()
    group.advance(DELIVERY_MS)
    group.drain()

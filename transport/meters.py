"""Counters of an actor since its start, which its heartbeats report. Pure.

Counted by the loop, which knows messages and answers, and by processes that sync files. A count costs some tenths of a
microsecond for each message, an answer with its duration less than one. Only read by the report; no decision depends
on it.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from .machine import Sender
from .protocol.errors import ErrorBody
from .protocol.message import Reply, Request
from .protocol.operations import NO_RETRIES, ActorReport, Durations

SYNC_BOUNDS_US = (100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 1_000_000)
LATENCY_BOUNDS_US = (
    *(250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000),
    *(100_000, 250_000, 500_000, 1_000_000, 2_500_000, 10_000_000),
)
DONE, FORWARDED, UNREADABLE = "done", "forwarded", "unreadable"

if TYPE_CHECKING:
    from .actor import Actor


class Histogram:
    """Counts durations by bucket."""

    __slots__ = ("bounds_us", "counts", "total_us")

    def __init__(self, bounds_us: tuple[int, ...] = LATENCY_BOUNDS_US) -> None:
        self.bounds_us = bounds_us
        self.counts = [0] * (len(bounds_us) + 1)
        self.total_us = 0

    def add(self, took_us: int) -> None:
        self.counts[bisect_left(self.bounds_us, took_us)] += 1
        self.total_us += took_us

    def add_all(self, other: "Histogram") -> None:
        """Add the counts of a histogram with the same bounds."""
        self.counts = [own + its for own, its in zip(self.counts, other.counts, strict=True)]
        self.total_us += other.total_us

    def durations(self) -> Durations:
        return Durations(bounds_us=self.bounds_us, counts=tuple(self.counts), total_us=self.total_us)


_encode = msgspec.msgpack.Encoder().encode


class Meters:
    def __init__(self, clock_ns: Callable[[], int]) -> None:
        """`clock_ns` measures the durations of requests and syncs, in nanoseconds."""
        self.clock_ns = clock_ns
        self._messages_in = self._bytes_in = 0
        self._messages_out = self._bytes_out = 0
        self._answers: dict[tuple[type[Request] | None, str], Histogram] = {}
        """By kind of request and outcome; the durations of unreadable requests mean nothing."""
        self._syncs = Histogram(SYNC_BOUNDS_US)

    def on_received(self, size_bytes: int) -> None:
        self._messages_in += 1
        self._bytes_in += size_bytes

    def on_sent(self, size_bytes: int) -> None:
        self._messages_out += 1
        self._bytes_out += size_bytes

    def on_answer(self, to: Sender, body: Reply | ErrorBody | bytes) -> None:
        """Count the answer to a request, and the time since its arrival."""
        if isinstance(body, bytes):
            outcome: str = FORWARDED
        else:
            outcome = body.code if isinstance(body, ErrorBody) else DONE
        answers = self._answers.get((to.kind, outcome))
        if answers is None:
            answers = self._answers[to.kind, outcome] = Histogram()
        # `add`, without its own call.
        took_us = (self.clock_ns() - to.arrived_ns) // 1_000
        answers.counts[bisect_left(answers.bounds_us, took_us)] += 1
        answers.total_us += took_us

    def on_synced(self, since_ns: int) -> int:
        """Count a sync that began at `since_ns` and has ended. Return its duration in microseconds."""
        took_us = (self.clock_ns() - since_ns) // 1_000
        self._syncs.add(took_us)
        return took_us

    def report(self, actor: "Actor[Any, Any]", is_ready: bool, gauges: Mapping[str, int]) -> ActorReport:
        requests: dict[str, dict[str, int]] = {}
        latencies: dict[str, Histogram] = {}
        for (kind, outcome), answers in self._answers.items():
            op = UNREADABLE if kind is None else op_of(kind)
            requests.setdefault(op, {})[outcome] = sum(answers.counts)
            if kind is not None:
                latencies.setdefault(op, Histogram()).add_all(answers)
        return ActorReport(
            alarms=actor.alarms_now(),
            in_flight=actor.in_flight() if is_ready else (),
            retrying=actor.retrying() if is_ready else NO_RETRIES,
            paused=actor.paused() if is_ready else None,
            counters={
                "messages_in": self._messages_in,
                "bytes_in": self._bytes_in,
                "messages_out": self._messages_out,
                "bytes_out": self._bytes_out,
                **(actor.counters() if is_ready else {}),
            },
            gauges={**gauges, **(actor.gauges() if is_ready else {})},
            requests=requests,
            syncs=self._syncs.durations(),
            latencies={op: each.durations() for op, each in latencies.items()},
            lateness=actor.lateness() if is_ready else Durations(),
            log=actor.log_report() if is_ready else None,
            group=actor.group_report() if is_ready else None,
        )


def op_of(kind: type[Request]) -> str:
    return str(kind.__struct_config__.tag)


def raw_report(report: ActorReport) -> msgspec.Raw:
    """Return the report in the form in which the supervisor keeps it, unread."""
    return msgspec.Raw(_encode(report))

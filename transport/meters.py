"""Counters of an actor since its start, which its heartbeats report. Pure.

Counted by the loop, which knows messages and answers, and by processes that sync files. A count costs some tenths of a
microsecond for each message. Only read by the report; no decision depends on it.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from .protocol.errors import ErrorBody
from .protocol.message import Reply, Request
from .protocol.operations import NO_RETRIES, ActorReport, SyncTimes

SYNC_BOUNDS_US = (100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 1_000_000)
DONE, FORWARDED, UNREADABLE = "done", "forwarded", "unreadable"

if TYPE_CHECKING:
    from .actor import Actor

_encode = msgspec.msgpack.Encoder().encode


class Meters:
    def __init__(self, clock_us: Callable[[], int]) -> None:
        """`clock_us` measures the duration of syncs."""
        self.clock_us = clock_us
        self._messages_in = self._bytes_in = 0
        self._messages_out = self._bytes_out = 0
        self._answers: dict[tuple[type[Request] | None, str], int] = {}
        self._syncs = [0] * (len(SYNC_BOUNDS_US) + 1)
        self._syncs_us = 0

    def on_received(self, size_bytes: int) -> None:
        self._messages_in += 1
        self._bytes_in += size_bytes

    def on_sent(self, size_bytes: int) -> None:
        self._messages_out += 1
        self._bytes_out += size_bytes

    def on_answer(self, kind: type[Request] | None, body: Reply | ErrorBody | bytes) -> None:
        """Count the answer to a request of this type; None for a header that could not be read."""
        if isinstance(body, ErrorBody):
            outcome = body.code
        else:
            outcome = FORWARDED if isinstance(body, bytes) else DONE
        key = (kind, outcome)
        self._answers[key] = self._answers.get(key, 0) + 1

    def on_synced(self, since_us: int) -> None:
        """Count a sync that began at `since_us` and has ended."""
        took_us = self.clock_us() - since_us
        self._syncs[bisect_left(SYNC_BOUNDS_US, took_us)] += 1
        self._syncs_us += took_us

    def report(self, actor: "Actor[Any, Any]", is_ready: bool, gauges: Mapping[str, int]) -> ActorReport:
        requests: dict[str, dict[str, int]] = {}
        for (kind, outcome), count in self._answers.items():
            op = UNREADABLE if kind is None else str(kind.__struct_config__.tag)
            requests.setdefault(op, {})[outcome] = count
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
            },
            gauges={**gauges, **(actor.gauges() if is_ready else {})},
            requests=requests,
            syncs=SyncTimes(bounds_us=SYNC_BOUNDS_US, counts=tuple(self._syncs), total_us=self._syncs_us),
        )


def raw_report(report: ActorReport) -> msgspec.Raw:
    """Return the report in the form in which the supervisor keeps it, unread."""
    return msgspec.Raw(_encode(report))

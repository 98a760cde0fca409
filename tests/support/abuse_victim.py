"""The client that abuse must not harm: few requests at an even pace, each timed from before it is sent."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import zmq

from planaria import Broker
from planaria.transport.security.curve import ClientKeys, secure_client

TOPIC = "QUIET"
PACE_S = 0.004
GIVEN_UP_MS = 60_000
FLOOR_MS = 150
"""Maximum median latency of a victim under abuse, per process that waits for one of our processors."""


def crowd() -> float:
    """Return the number of processes that compete for each processor."""
    return os.getloadavg()[0] / (os.cpu_count() or 1)


def restarts(broker: Broker) -> dict[str, int]:
    return {actor.address: actor.restarts for actor in broker.status().actors}


@dataclass
class Seen:
    """Observations of a victim in one phase."""

    waits_ms: list[float] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def percentile(self, percent: float) -> float:
        ordered = sorted(self.waits_ms)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else 0.0

    def __str__(self) -> str:
        p50, p99 = self.percentile(50), self.percentile(99)
        refused = f", refused {len(self.refused)} ({self.refused[0]})" if self.refused else ""
        return f"p50 {p50:6.1f} p99 {p99:7.1f} max {max(self.waits_ms, default=0):7.1f} ms{refused}"


REQUESTS: tuple[dict[str, object], ...] = (
    {"op": "publish", "topic": TOPIC, "records": [{"value_text": "hello"}]},
    {"op": "metadata", "topics": [TOPIC]},
    {"op": "fetch", "topic": TOPIC, "partition": 0, "offset": 0, "max_records": 1},
)


class Victim:
    def __init__(
        self,
        endpoint: str,
        requests: Sequence[dict[str, object]] = REQUESTS,
        keys: ClientKeys | None = None,
    ) -> None:
        """Make a client that sends these requests in turn."""
        self._requests = requests
        self._zmq: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._zmq.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        if keys is not None:
            secure_client(self._socket, keys)
        self._socket.connect(endpoint)
        self._number = 0

    def close(self) -> None:
        self._socket.close()
        self._zmq.term()

    def live(self, seconds: float) -> Seen:
        seen = Seen()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for request in self._requests:
                self._one(request, seen)
                time.sleep(PACE_S)
        return seen

    def _one(self, request: dict[str, object], seen: Seen) -> None:
        self._number += 1
        started = time.monotonic()
        self._socket.send(msgspec.json.encode(request | {"id": self._number}))
        while True:
            if not self._socket.poll(GIVEN_UP_MS):
                seen.refused.append("no answer")
                break
            reply = msgspec.json.decode(self._socket.recv_multipart()[0])
            if reply["id"] == self._number:
                if "error" in reply:
                    seen.refused.append(reply["error"]["code"])
                break
        seen.waits_ms.append((time.monotonic() - started) * 1000)

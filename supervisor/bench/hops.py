"""Rows of the bench for the gateway's hop: one request of a raw client through it, against the partition's own socket.

A raw client is a ZeroMQ socket without this project's code. The topic does not sync, so the figures are those of the
processes on the way. The two ways take turns.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import zmq

from ...transport.batch import build
from .ceilings import Ceilings
from .rows import TOPIC, VALUE, Row, Scale, fresh_broker

ROUND = 50
"""Requests in a row on one way."""
HOP_BAR_US = 80.0


def hop_row(as_json: bool) -> Callable[[Scale, Ceilings], Row]:
    """Return the row of one encoding: `publish` in JSON, or `produce` in MessagePack; straight both are `produce`."""

    def measure(scale: Scale, ceilings: Ceilings) -> Row:
        with (
            fresh_broker(topic_defaults={"flush": "os"}) as broker,
            zmq.Context() as context,
            context.socket(zmq.DEALER) as hopping,
            context.socket(zmq.DEALER) as straight,
        ):
            hopping.connect(broker.endpoint)
            straight.connect(_endpoint(hopping))
            produce = produce_request(as_json=as_json)
            publish = publish_request() if as_json else produce
            through_us: list[float] = []
            straight_us: list[float] = []
            for number in range(1 + scale.rounds * 4 // ROUND):
                kept = number > 0  # the first round makes the connections
                through_us += _timed(hopping, publish)[: ROUND * kept]
                straight_us += _timed(straight, produce)[: ROUND * kept]
        through, direct = statistics.median(through_us), statistics.median(straight_us)
        return Row(
            name=f"one hop through the gateway, {'JSON publish' if as_json else 'MessagePack produce'}",
            figure=through - direct,
            unit="us",
            bar=HOP_BAR_US,
            is_higher_better=False,
            ceiling=ceilings.zmq_round_trip_us,
            detail=f"acknowledged in {through:.0f} us through it, in {direct:.0f} straight; no sync",
        )

    return measure


def _endpoint(socket: "zmq.Socket[bytes]") -> str:
    """Request the partition's own endpoint from the gateway."""
    socket.send_multipart([b"", msgspec.json.encode({"op": "metadata", "topics": [TOPIC]})])
    found = msgspec.json.decode(socket.recv_multipart()[-1])
    return str(found["topics"][0]["partitions"][0]["endpoint"])


def produce_request(*, as_json: bool = False) -> list[bytes]:
    now_ms = time.time_ns() // 1_000_000
    batch = build([(None, VALUE, 0, None)], first_timestamp_ms=now_ms, max_timestamp_ms=now_ms)
    header: dict[str, Any] = {"op": "produce", "topic": TOPIC, "partition": 0}
    return [b"", msgspec.json.encode(header) if as_json else msgspec.msgpack.encode(header), batch]


def publish_request() -> list[bytes]:
    header = {"op": "publish", "topic": TOPIC, "records": [{"value_text": VALUE.decode()}]}
    return [b"", msgspec.json.encode(header)]


def _timed(socket: "zmq.Socket[bytes]", request: Sequence[bytes]) -> list[float]:
    times_us = []
    for _ in range(ROUND):
        began = time.perf_counter()
        socket.send_multipart(request)
        reply = socket.recv_multipart()[-1]
        times_us.append((time.perf_counter() - began) * 1e6)
        assert "error" not in (msgspec.json if reply[:1] == b"{" else msgspec.msgpack).decode(reply), reply
    return times_us


HOP_ROWS: dict[str, Callable[[Scale, Ceilings], Row]] = {"hop": hop_row(False), "hop-json": hop_row(True)}

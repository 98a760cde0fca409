"""`python -m planaria.supervisor.bench.steps`: the cost of publishing and consuming by shape, without threads and broker.

Each figure is the minimum of many short runs, in nanoseconds a message, so load on the machine hardly moves it.
"""

import time
from collections.abc import Callable
from typing import Any

from ...transport.batch import parse_header
from ...transport.client.accumulator import Accumulator
from ...transport.client.batches import HeldPartitions
from ...transport.client.messages import messages_of
from .rows import TOPIC
from .shapes import PLAIN, SELDOM, SHAPES, Shape, publish_each

MESSAGES = 2_500
RUNS = 150


class _Partitions:
    """The destinations of a topic whose batches are never full."""

    def __init__(self, count: int) -> None:
        self.count = count

    def partitions_of(self, topic: str, least: int = 1) -> int:
        return self.count

    def check_partition(self, topic: str, partition: int | None) -> None:
        return

    def largest_batch_of(self, topic: str) -> int:
        return 1 << 24

    def choose_partition(self, topic: str) -> int:
        return 0


def _accumulator(partitions: int) -> Accumulator:
    return Accumulator(
        batch_bytes=1 << 23,
        batch_records=10_000,
        buffer_bytes=1 << 30,
        max_block_ms=1_000,
        destinations=_Partitions(partitions),
        held=HeldPartitions(is_patient=True),
        notify=lambda _: None,
        notify_identified=lambda _: None,
        now_ms=lambda: 0,
        may_wait=lambda: False,
    )


def _seal(accumulator: Accumulator) -> list[memoryview]:
    """Do the network thread's part: seal, encode and finish each batch."""
    frames = []
    for lane in accumulator.lanes():
        for batch in accumulator.take(lane, 1_000, 0, True)[0]:
            frames.append(batch.build())
            accumulator.finish(batch, 0, None)
    return frames


def _consume(frames: list[memoryview]) -> list[Any]:
    found = []
    for frame in frames:
        found += [message.data for message in messages_of(TOPIC, 0, parse_header(frame), frame, 0)]
    return found


def _timed(best: dict[str, float], step: str, call: Callable[[], Any]) -> Any:
    began = time.perf_counter()
    result = call()
    took_ns = (time.perf_counter() - began) / MESSAGES * 1e9
    best[step] = min(best.get(step, took_ns), took_ns)
    return result


def steps_of(shape: Shape) -> dict[str, float]:
    """Return nanoseconds a message by step."""
    best: dict[str, float] = {}
    for _ in range(RUNS):
        accumulator = _accumulator(shape.partitions)
        _timed(best, "publish", lambda: publish_each(accumulator.publish, shape, MESSAGES))  # noqa: B023 - called at once
        frames = _timed(best, "seal", lambda: _seal(accumulator))  # noqa: B023 - called at once
        _timed(best, "consume", lambda: _consume(frames))  # noqa: B023 - called at once
    return best


def main() -> None:
    print(f"{'nanoseconds a message':32}{'publish':>10}{'seal':>10}{'consume':>10}")
    for shape in (PLAIN, *SHAPES.values(), *SELDOM.values()):
        steps = steps_of(shape)
        title = f"{shape.title}, partitions: {shape.partitions}"
        print(f"{title:32}" + "".join(f"{steps[step]:>10.0f}" for step in ("publish", "seal", "consume")))


if __name__ == "__main__":
    main()

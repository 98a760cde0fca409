"""The pending verdicts of a share consumer, and the requests that send them to the broker. Pure."""

from typing import NamedTuple

from ..addresses import TopicPartition
from ..protocol.shares import Acknowledgement, Verdict


class Said(NamedTuple):
    verdict: Verdict
    delay_ms: int
    reason: str


ACCEPTED = Said("accept", 0, "")
RELEASED = Said("release", 0, "")


def merged(tp: TopicPartition, offsets: dict[int, Said], lock_ms: int | None = None) -> list[Acknowledgement]:
    """Return one acknowledgement for each run of offsets with the same verdict."""
    runs: list[tuple[int, int, Said]] = []
    for offset in sorted(offsets):
        said = offsets[offset]
        if runs and runs[-1][1] == offset - 1 and runs[-1][2] == said:
            runs[-1] = (runs[-1][0], offset, said)
        else:
            runs.append((offset, offset, said))
    return [
        Acknowledgement(
            topic=tp[0],
            partition=tp[1],
            first_offset=first,
            last_offset=last,
            verdict=said.verdict,
            delay_ms=said.delay_ms,
            reason=said.reason,
            lock_ms=lock_ms,
        )
        for first, last, said in runs
    ]


def single(each: Acknowledgement, offset: int) -> Acknowledgement:
    return Acknowledgement(
        topic=each.topic,
        partition=each.partition,
        first_offset=offset,
        verdict=each.verdict,
        delay_ms=each.delay_ms,
        reason=each.reason,
        lock_ms=each.lock_ms,
    )

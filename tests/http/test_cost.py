"""The processor time of a scrape of 1,000 busy actors, printed with `pytest -s`: all of it, in both processes."""

import time
from collections.abc import Callable

import msgspec

from planaria.actors.http.effects import Measure, Measured
from planaria.actors.http.looks import Looks, ReportsCall, Seen, TopicsCall
from planaria.transport.addresses import Address
from planaria.transport.codec import decode_reply, encode_header
from planaria.transport.machine import Answered
from planaria.transport.meters import LATENCY_BOUNDS_US, SYNC_BOUNDS_US
from planaria.transport.protocol.control import ActorReportsReply, ReportedActor
from planaria.transport.protocol.operations import (
    ActorReport,
    Durations,
    GroupPosition,
    GroupReport,
    LogReport,
)
from planaria.transport.protocol.topics import ListTopicsReply

INTERVAL_S = 15
"""Usual time between two scrapes."""
MAX_SHARE = 0.03
"""Share of one processor, on a machine with other work."""


def test_a_scrape_of_a_thousand_actors_costs_little() -> None:
    raw = [report_of(number) for number in range(1_000)]
    looks = Looks(node="", version="0", is_first=True, with_kafka_names=False)
    costs: dict[str, float] = {}

    def supervisor() -> bytes:
        actors = [
            ReportedActor(
                address=address,
                pid=number,
                incarnation=1,
                restarts=0,
                hangs=0,
                state="ready",
                uptime_ms=1,
                report=report,
            )
            for number, (address, report) in enumerate(raw)
        ]
        return encode_header(ActorReportsReply(supervisor_pid=1, uptime_ms=1, actors=actors))

    header = supervisor()
    costs["supervisor: describe and encode"] = least_ms(supervisor)
    pages: list[bytes] = []

    def show(seen: Seen, now: int) -> list[object]:
        assert seen.observation is not None
        pages.append(looks.page("metrics", seen.observation))
        return []

    clock = iter(range(0, 10**9, 10_000))

    def scrape() -> None:
        now = next(clock)
        looks.ask(show, now)  # type: ignore[arg-type]
        looks.handle(Answered(TopicsCall(), ListTopicsReply(topics=[])), now)
        reply = decode_reply(header, ActorReportsReply)
        effects = looks.handle(Answered(ReportsCall(), reply), now)
        assert any(isinstance(effect, Measure) for effect in effects)
        looks.on_measured(Measured({}, 1, 1))
        looks.finish(now)

    costs["http: decode, sum, write"] = least_ms(scrape)
    costs["http: memory of 20 processes, by the system"] = 20 * 0.5
    total_ms = sum(costs.values())
    for name, cost_ms in costs.items():
        print(f"\n{name:45} {cost_ms:6.1f} ms", end="")
    share = total_ms / 1_000 / INTERVAL_S
    print(
        f"\nevery {INTERVAL_S} s: {total_ms:.1f} ms, {share:.2%} of a processor; the page has {len(pages[-1])} bytes"
    )
    assert share < MAX_SHARE


def least_ms(work: Callable[[], object]) -> float:
    """Return the processor time of a call, the least of several."""
    found = []
    for _ in range(5):
        began = time.thread_time()
        work()
        found.append(time.thread_time() - began)
    return 1_000 * min(found)


def report_of(number: int) -> tuple[Address, msgspec.Raw]:
    """Return a busy actor: half of them partitions of 100 topics, half coordinators of groups that have read them."""
    latencies = Durations(
        bounds_us=LATENCY_BOUNDS_US, counts=tuple(range(len(LATENCY_BOUNDS_US) + 1)), total_us=9
    )
    ops = ("produce", "fetch", "list_offsets", "report_progress", "commit_offsets", "group_heartbeat")
    report = ActorReport(
        counters=dict.fromkeys(
            ("messages_in", "bytes_in", "messages_out", "bytes_out", "records_in", "record_bytes_in"),
            7 + number,
        ),
        gauges={"requests_waiting": 0, "calls_in_flight": 1, "fetches_parked": 2},
        requests={op: {"done": 5, "TIMED_OUT": 1} for op in ops},
        latencies=dict.fromkeys(ops, latencies),
        syncs=Durations(bounds_us=SYNC_BOUNDS_US, counts=tuple(range(len(SYNC_BOUNDS_US) + 1)), total_us=5),
        log=LogReport(
            role="leader",
            leader_epoch=1,
            log_start_offset=0,
            high_watermark=100,
            log_end_offset=100,
            size_bytes=1_000,
        )
        if number % 2
        else None,
        group=None
        if number % 2
        else GroupReport(
            type="consumer",
            state="stable",
            members=3,
            generation=4,
            positions=tuple(GroupPosition(f"T{number % 100 + 1}", each, 100) for each in range(1, 10, 2)),
        ),
    )
    if number % 2:
        address = Address("partition", f"T{number % 100}", number // 100)
    else:
        address = Address("coordinator", f"g{number}")
    return address, msgspec.Raw(msgspec.msgpack.encode(report))

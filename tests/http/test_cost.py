"""The processor time of scrapes of 1,000 actors, printed with `pytest -s`."""

import time
import urllib.request
from itertools import count
from pathlib import Path

import msgspec
import pytest

from patience import TIMEOUT_S
from planaria import Broker
from planaria.actors.http.effects import Effect, Measured
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

ACTORS = 1_000
INTERVAL_S = 15
"""Usual time between two scrapes."""
MEMORY_MS = 20 * 0.5
"""The system measures the memory of 20 processes for each scrape."""
MAX_SHARE = 0.02
"""Share of one processor, on a machine with other work."""


@pytest.mark.parametrize("busy", [0, ACTORS // 10, ACTORS])
def test_a_scrape_of_a_thousand_actors_costs_little(busy: int) -> None:
    looks = Looks(node="", version="0", is_first=True, with_kafka_names=False)
    pages: list[bytes] = []

    def show(seen: Seen, now: int) -> list[Effect]:
        assert seen.observation is not None
        pages.append(looks.page("metrics", seen.observation))
        return []

    costs_ms: list[float] = []
    for look, now in zip(range(5), count(0, 10_000), strict=False):
        answer = answer_of_the_supervisor(look, busy)
        began = time.thread_time()
        header = encode_header(answer)
        looks.ask(show, now)
        looks.handle(Answered(TopicsCall(), ListTopicsReply(topics=[])), now)
        looks.handle(Answered(ReportsCall(), decode_reply(header, ActorReportsReply)), now)
        looks.on_measured(Measured({}, 1, 1))
        looks.finish(now)
        costs_ms.append(1_000 * (time.thread_time() - began))
    assert len(pages) == len(costs_ms)
    least_ms = min(costs_ms[1:])
    share = (least_ms + MEMORY_MS) / 1_000 / INTERVAL_S
    print(
        f"\n{busy:4} of {ACTORS} actors have worked: {least_ms:5.1f} ms, {MEMORY_MS:.0f} ms for memory; every "
        f"{INTERVAL_S} s {share:.2%} of a processor; the page has {len(pages[-1])} bytes"
    )
    assert share < MAX_SHARE


@pytest.mark.chaos
@pytest.mark.processes
def test_scrapes_take_less_than_a_hundredth_of_a_brokers_processor_time(tmp_path: Path) -> None:
    """Of an idle broker, which takes the least."""
    with Broker(tmp_path, http_endpoint="127.0.0.1:*") as broker:
        broker.create_topic("T", ACTORS - 3)
        until = time.monotonic() + 20 * TIMEOUT_S
        while any(actor.state != "ready" for actor in broker.status().actors):
            assert time.monotonic() < until
            time.sleep(1)
        status = broker.status()
        own = next(actor.pid for actor in status.actors if actor.address == "http")
        pids = [status.supervisor_pid, *(actor.pid for actor in status.actors if actor.pid is not None)]
        assert own is not None
        assert len(pids) >= ACTORS
        shares = []
        for _ in range(4):
            before, all_before = cpu_ms(own), sum(map(cpu_ms, pids))
            time.sleep(INTERVAL_S)
            middle = cpu_ms(own)
            quiet, all_quiet = middle - before, sum(map(cpu_ms, pids)) - all_before
            with urllib.request.urlopen(f"{broker.http_endpoint}/metrics", timeout=TIMEOUT_S) as reply:
                size = len(reply.read())
            time.sleep(INTERVAL_S)
            scraped = cpu_ms(own) - middle
            shares.append((scraped - quiet) / all_quiet)
            print(
                f"\n{len(pids)} processes take {all_quiet:.0f} ms in {INTERVAL_S} s; a scrape of {size} bytes "
                f"{scraped - quiet:.1f} ms more of `http`, {shares[-1]:.2%}"
            )
        assert min(shares) < 0.01


def cpu_ms(pid: int) -> float:
    """Return the processor time that a process has used."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e6


def answer_of_the_supervisor(look: int, busy: int) -> ActorReportsReply:
    """Return its answer when so many actors have worked since the last look."""
    actors = []
    for number in range(ACTORS):
        address, report = report_of(number, look if number < busy else 0)
        actors.append(
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
        )
    return ActorReportsReply(supervisor_pid=1, uptime_ms=1, actors=actors)


def report_of(number: int, look: int) -> tuple[Address, msgspec.Raw]:
    """Return a busy actor: half of them partitions of 100 topics, half coordinators of groups that have read them."""
    buckets = tuple(range(look, look + len(LATENCY_BOUNDS_US) + 1))
    latencies = Durations(bounds_us=LATENCY_BOUNDS_US, counts=buckets, total_us=9 + look)
    ops = ("produce", "fetch", "list_offsets", "report_progress", "commit_offsets", "group_heartbeat")
    report = ActorReport(
        counters=dict.fromkeys(
            ("messages_in", "bytes_in", "messages_out", "bytes_out", "records_in", "record_bytes_in"),
            7 + number + look,
        ),
        gauges={"requests_waiting": 0, "calls_in_flight": 1, "fetches_parked": 2},
        requests={op: {"done": 5 + look, "TIMED_OUT": 1} for op in ops},
        latencies=dict.fromkeys(ops, latencies),
        syncs=Durations(
            bounds_us=SYNC_BOUNDS_US, counts=buckets[: len(SYNC_BOUNDS_US) + 1], total_us=5 + look
        ),
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

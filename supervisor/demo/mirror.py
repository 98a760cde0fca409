"""`planaria demo --mirror`: departures stream to a site and are copied to a second; the first is lost and comes back.

published     event
a third       every process of the first site is killed with SIGKILL, and the second one is promoted: the producer, which
              has the endpoints of both, goes on there by itself
two thirds    the first site starts again; one more departure is written there, by mistake; then it fails back
all           every acknowledged departure is in the log of both sites, or in the topic that fail-back has kept it in,
              once and in order, and both logs are the same, or the exit code is 1
"""

import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
from rich.table import Table

from ...transport.client.client import Client
from ...transport.client.mirror_descriptions import MirrorFork
from ...transport.protocol.errors import PlanariaError
from ..chaos.history import History
from ..free_ports import LOOPBACK, free_ports
from ..local_cluster import LocalMachine
from .flights import load_departures
from .stream import TOPIC, FlightStream

PARTITIONS = 3
TIMEOUT_S = 60.0
POLL_S = 0.05
ASTRAY = "ASTRAY:0"
"""The departure that is written at the first site after the second was promoted."""

Print = Callable[[str | Table], None]


class Entry(msgspec.Struct, frozen=True):
    partition: int
    offset: int
    value: str


class Sites:
    """Two brokers on this machine, each a program with processes of its own."""

    def __init__(self, folder: Path) -> None:
        ports = free_ports(2)
        self.endpoints = [f"tcp://{LOOPBACK}:{port}" for port in ports]
        serve = [sys.executable, "-m", "planaria", "serve", "--no-http"]
        self.machines = [
            LocalMachine(name, [*serve, "--data", str(folder / name), "--endpoint", endpoint], folder)
            for name, endpoint in zip(("paris", "rome"), self.endpoints, strict=True)
        ]

    def __enter__(self) -> "Sites":
        for machine in self.machines:
            machine.start()
        return self

    def __exit__(self, *_: object) -> None:
        for machine in self.machines:
            machine.kill()


def run_mirror_demo(duration_s: float, show: Print) -> int:
    """Play the demo and return its exit code."""
    departures = load_departures()
    history = History()
    with (
        tempfile.TemporaryDirectory(prefix="planaria-demo-") as scratch,
        Sites(Path(scratch)) as sites,
        Client(sites.endpoints) as client,
        Client(sites.endpoints[0]) as paris,
        Client(sites.endpoints[1]) as rome,
    ):
        for each in (paris, rome):
            each.wait_for_broker(TIMEOUT_S)
        paris.create_topic(TOPIC, PARTITIONS)
        rome.create_mirror("paris", TOPIC, source=sites.endpoints[0])
        _until(lambda: len(rome.list_topics()) == 1)
        show(f"[bold]paris[/bold] serves on {sites.endpoints[0]}, and [bold]rome[/bold] copies it")
        show(f"streaming {len(departures):,} departures to paris, keyed by tail number")
        stream = FlightStream(client.producer(delivery_timeout_ms=120_000), departures, duration_s, history)
        stream.start()
        is_served = _lose_paris(sites, rome, stream, history, len(departures), show)
        _follow(stream, 2 * len(departures) // 3)
        kept = _fail_back(sites, paris, show)
        stream.join()
        _until(lambda: _ends(paris) == _ends(rome))
        logs = [_read_log(each, TOPIC) for each in (rome, paris)]
        aside = _read_log(paris, kept) if kept else []
    return _conclude(stream, history, logs, aside, show, is_served=is_served)


def _lose_paris(
    sites: Sites, rome: Client, stream: FlightStream, history: History, total: int, show: Print
) -> bool:
    """Kill a site, and promote the other. Return True if all partitions acknowledge again."""
    _follow(stream, total // 3)
    sites.machines[0].kill()
    killed_ms, moment = time.time_ns() // 1_000_000, time.monotonic()
    known = dict(history.acknowledged)
    forks = rome.promote_mirror("paris")[TOPIC]
    promoted_s = time.monotonic() - moment
    show(f"[red]killed[/red] paris, every process of it; rome is promoted after {promoted_s * 1000:.0f} ms")
    show(f"recovery point: {_recovery_point(forks, known, killed_ms)}")
    served = [stream.served_since(partition, moment, TIMEOUT_S) for partition in range(PARTITIONS)]
    times = [each for each in served if each is not None]
    if len(times) < PARTITIONS:
        show(f"{PARTITIONS - len(times)} partitions are not served again")
        return False
    show(f"all partitions acknowledge again after {max(times) * 1000:.0f} ms, for the same producer")
    return True


def _recovery_point(forks: list[MirrorFork], known: dict[str, tuple[int, int]], killed_ms: int) -> str:
    offsets = {fork.partition: fork.offset for fork in forks}
    missing = sum(offset >= offsets[partition] for partition, offset in known.values())
    heard = [fork.heard_at_ms for fork in forks if fork.heard_at_ms >= 0]
    when = f", {max(0, killed_ms - min(heard))} ms before the kill" if len(heard) == len(forks) else ""
    return f"{missing} acknowledged departures were not copied; the source was last heard{when}"


def _fail_back(sites: Sites, paris: Client, show: Print) -> str:
    """Start the first site again, and let it follow the other one. Return the topic with the records it alone has."""
    sites.machines[0].start()
    paris.wait_for_broker(TIMEOUT_S)
    paris.publish(TOPIC, None, key="ASTRAY", headers={"n": "0"})
    moment = time.monotonic()
    paris.create_mirror("rome", TOPIC, source=sites.endpoints[1], failback=True)
    _until(lambda: bool(_following(paris)))
    kept = _following(paris)
    show(
        f"started paris again, where one more departure was written; it follows rome after"
        f" {(time.monotonic() - moment) * 1000:.0f} ms, records that it alone had are in {kept}"
    )
    return kept


def _following(client: Client) -> str:
    """Return the topic with the records set aside, once the topic follows."""
    found = [topic for each in client.list_mirrors() for topic in each.topics if topic.topic == TOPIC]
    return "".join(topic.diverged for topic in found if topic.state == "following" and topic.partitions)


def _follow(stream: FlightStream, until: int) -> None:
    ends_at = time.monotonic() + 3 * TIMEOUT_S
    while stream.published < until and time.monotonic() < ends_at:
        time.sleep(POLL_S)


def _until(holds: Callable[[], bool]) -> None:
    """Wait until a state is reached, or the time is over: the conclusion shows that."""
    ends_at = time.monotonic() + TIMEOUT_S
    while time.monotonic() < ends_at:
        with suppress(PlanariaError):
            if holds():
                return
        time.sleep(POLL_S)


def _ends(client: Client) -> list[int | None]:
    return [each.high_watermark for each in client.describe_topic(TOPIC).partitions]


def _read_log(client: Client, topic: str) -> list[Entry]:
    return [
        Entry(
            message.partition,
            message.offset,
            f"{(message.key or b'').decode()}:{(message.headers or {})['n']}",
        )
        for message in client.read(topic)
    ]


def _out_of_order(log: list[Entry]) -> int:
    newest: dict[str, int] = {}
    found = 0
    for entry in sorted(log, key=lambda each: (each.partition, each.offset)):
        key, _, number = entry.value.rpartition(":")
        found += int(number) < newest.get(key, -1)
        newest[key] = max(int(number), newest.get(key, -1))
    return found


def _conclude(
    stream: FlightStream,
    history: History,
    logs: list[list[Entry]],
    aside: list[Entry],
    show: Print,
    *,
    is_served: bool,
) -> int:
    rome, paris = logs
    values = [entry.value for entry in rome]
    kept = {entry.value for entry in aside}
    acknowledged = set(history.acknowledged)
    counts = {
        "published": stream.published,
        "acknowledged": len(acknowledged),
        "kept aside by fail-back": len(aside),
    }
    zeros = {
        "lost": len(acknowledged - set(values) - kept) + (ASTRAY not in kept),
        "duplicated in the log": len(values) - len(set(values)),
        "out of order per key": _out_of_order(rome),
        "different between the sites": len(set(rome) ^ set(paris)),
    }
    table = Table(title="result")
    table.add_column("departures")
    table.add_column("count", justify="right")
    for name, count in (counts | zeros).items():
        table.add_row(name, f"{count:,}")
    show(table)
    for error in stream.refused[:3]:
        show(f"[red]{error}[/red]")
    is_good = is_served and not any(zeros.values()) and len(acknowledged) == stream.published
    show(
        "[green]nothing lost, nothing out of order, both sites the same[/green]"
        if is_good
        else "[red]FAILED[/red]"
    )
    return 0 if is_good else 1

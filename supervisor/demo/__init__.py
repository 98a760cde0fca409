"""`planaria demo`: real departures through real processes that are killed and restarted, in under a minute.

    run_demo    an embedded broker, three partitions, a group of three hosted subscribers; half-way a partition, the
                coordinator, the gateway and a subscriber are killed under load, one after another

Exit code 0 if all published messages were acknowledged, consumed, and in order; 1 otherwise.
"""

import os
import signal
import tempfile
import time
from pathlib import Path

import msgspec
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from ...transport.addresses import Address, coordinator_address, partition_address, subscriber_address
from ...transport.client.descriptions import ActorStatus
from ...transport.client.messages import Message
from ...transport.protocol.errors import PlanariaError
from ..broker import EMBEDDED_ENDPOINT, Broker
from ..broker_tree import GATEWAY
from ..chaos.history import History, LogEntry, Verdict
from ..chaos.probes import Probes
from ..chaos.workload import read_journals
from .flights import load_departures
from .recording import Recording
from .stream import GROUP, TOPIC, FlightStream, departure_board

PARTITIONS = 3
WORKERS = 3
VICTIMS = (partition_address(TOPIC, 0), coordinator_address(GROUP), GATEWAY, subscriber_address(GROUP, 2))
TIMEOUT_S = 20.0
POLL_S = 0.05
RESPITE_S = 0.5
"""Pause between two kills, so that each recovery is visible separately."""


class DemoOptions(msgspec.Struct, frozen=True, kw_only=True):
    duration_s: float = 20.0
    """Time over which the departures are published."""
    record: Path | None = None
    """File that receives the finished screen as SVG."""


class Regrowth(msgspec.Struct, frozen=True, kw_only=True):
    victim: str
    pid: int
    served_again_ms: float | None
    incarnation: int


class Screen:
    """The terminal and, with `--record`, the recording beside it."""

    def __init__(self, console: Console, record: Path | None) -> None:
        self.console = console
        self._recording = None if record is None else Recording(record)

    def print(self, renderable: RenderableType) -> None:
        self.console.print(renderable)
        if self._recording is not None:
            self._recording.print(renderable)

    def keep(self, progress: Progress) -> None:
        """Record the bars in their current state: the terminal already shows them."""
        if self._recording is not None:
            self._recording.print(progress.get_renderable())

    def save(self) -> None:
        if self._recording is not None:
            self._recording.save()


def run_demo(options: DemoOptions, console: Console) -> int:
    """Play the demo and return its exit code. Raises OSError when the recording cannot be written."""
    departures = load_departures()
    history = History()
    screen = Screen(console, options.record)
    with tempfile.TemporaryDirectory(prefix="planaria-demo-") as scratch:
        board = Path(scratch) / "board"
        board.mkdir()
        with Broker(Path(scratch) / "data", endpoint=EMBEDDED_ENDPOINT) as broker:
            screen.print(
                f"[bold]planaria[/bold] serves on {broker.endpoint}, every actor a process of its own"
            )
            broker.create_topic(TOPIC, PARTITIONS)
            broker.subscribe(GROUP, TOPIC, handler=departure_board(board), workers=WORKERS)
            screen.print(f"streaming {len(departures):,} departures, keyed by tail number")
            stream = FlightStream(broker.producer(), departures, options.duration_s, history)
            regrowths = _play(stream, broker, board, screen, len(departures))
            verdict = _check(broker, history, board)
    _print_regrowths(regrowths, screen)
    exit_code = _conclude(stream, verdict, regrowths, screen)
    screen.save()
    return exit_code


def _play(stream: FlightStream, broker: Broker, board: Path, screen: Screen, total: int) -> list[Regrowth]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:>6,}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=screen.console) as progress:
        bars = {name: progress.add_task(name, total=total) for name in ("published", "consumed")}
        stream.start()
        probes = Probes(broker.client, History(), TOPIC)
        _follow(stream, board, progress, bars, until=total // 2)
        regrowths = [_kill(victim, stream, broker, probes, screen) for victim in VICTIMS]
        probes.close()
        _follow(stream, board, progress, bars, until=total)
        stream.join()
        _follow_board(stream, board, progress, bars, total)
    screen.keep(progress)
    return regrowths


def _follow(
    stream: FlightStream, board: Path, progress: Progress, bars: dict[str, TaskID], until: int
) -> None:
    deadline = time.monotonic() + TIMEOUT_S * 3
    while stream.published < until and time.monotonic() < deadline:
        _show(stream, board, progress, bars)
        time.sleep(POLL_S)


def _follow_board(
    stream: FlightStream, board: Path, progress: Progress, bars: dict[str, TaskID], total: int
) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while _show(stream, board, progress, bars) < total and time.monotonic() < deadline:
        time.sleep(POLL_S)


def _show(stream: FlightStream, board: Path, progress: Progress, bars: dict[str, TaskID]) -> int:
    consumed = len(set(read_journals(board)))
    progress.update(bars["published"], completed=stream.published)
    progress.update(bars["consumed"], completed=consumed)
    return consumed


def _kill(address: Address, stream: FlightStream, broker: Broker, probes: Probes, screen: Screen) -> Regrowth:
    victim = _actor(broker, address)
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGKILL)
    moment = time.monotonic()
    served_s = _served_again_s(victim, moment, stream, broker, probes)
    incarnation = _actor(broker, address).incarnation
    served = "not served again" if served_s is None else f"served again after {served_s * 1000:.0f} ms"
    screen.print(f"[red]killed[/red] {address} (pid {victim.pid}): {served}, incarnation {incarnation}")
    time.sleep(RESPITE_S)
    return Regrowth(
        victim=str(address),
        pid=victim.pid,
        served_again_ms=None if served_s is None else served_s * 1000,
        incarnation=incarnation,
    )


def _served_again_s(
    victim: ActorStatus, moment: float, stream: FlightStream, broker: Broker, probes: Probes
) -> float | None:
    tp = Address.parse(victim.address).topic_partition
    if tp is not None:
        served_s = stream.served_since(tp.partition, moment, TIMEOUT_S)
        if served_s is not None or not stream.is_over:
            return served_s
    try:
        if tp is not None:
            # On a slow machine no departure was left for it. A probe would be one more message.
            broker.client.list_offsets(tp.topic, tp.partition, "latest")
        else:
            probes.actor(victim)
    except PlanariaError:
        return None
    return time.monotonic() - moment


def _actor(broker: Broker, address: Address) -> ActorStatus:
    return next(actor for actor in broker.status().actors if actor.address == address)


def _check(broker: Broker, history: History, board: Path) -> Verdict:
    history.deliveries[GROUP] = read_journals(board)
    log: list[LogEntry] = []
    for partition in range(PARTITIONS):
        end = broker.client.list_offsets(TOPIC, partition, "latest").offset
        with broker.consumer(partitions=[(TOPIC, partition)], auto_offset_reset="earliest") as consumer:
            while not log or log[-1].partition != partition or log[-1].offset < end - 1:
                log += [_entry(message) for message in consumer.poll(TIMEOUT_S)]
    return history.check(log)


def _entry(message: Message) -> LogEntry:
    number = (message.headers or {})["n"]
    return LogEntry(message.partition, message.offset, f"{(message.key or b'').decode()}:{number}")


def _print_regrowths(regrowths: list[Regrowth], screen: Screen) -> None:
    table = Table(title="killed under load")
    for column in ("actor", "pid killed", "served again after", "incarnation"):
        table.add_column(column, justify="left" if column == "actor" else "right")
    for each in regrowths:
        served = "never" if each.served_again_ms is None else f"{each.served_again_ms:.0f} ms"
        table.add_row(each.victim, str(each.pid), served, str(each.incarnation))
    screen.print(table)


def _conclude(stream: FlightStream, verdict: Verdict, regrowths: list[Regrowth], screen: Screen) -> int:
    counts = {
        "published": stream.published,
        "acknowledged": verdict.acknowledged,
        "consumed": verdict.delivered.get(GROUP, 0),
        "delivered again after a kill": verdict.redelivered.get(GROUP, 0),
        "lost": verdict.lost + verdict.undelivered,
        "duplicated in the log": verdict.duplicated,
        "out of order per key": verdict.reordered,
    }
    table = Table(title="result")
    table.add_column("departures")
    table.add_column("count", justify="right")
    for name, count in counts.items():
        table.add_row(name, f"{count:,}")
    screen.print(table)
    for line in [*verdict.violations, *(str(error) for error in stream.refused[:3])]:
        screen.print(f"[red]{line}[/red]")
    is_good = (
        verdict.is_clean
        and verdict.acknowledged == stream.published == verdict.delivered.get(GROUP)
        and all(each.served_again_ms is not None and each.incarnation > 1 for each in regrowths)
    )
    screen.print("[green]nothing lost, nothing out of order[/green]" if is_good else "[red]FAILED[/red]")
    return 0 if is_good else 1


__all__ = ["DemoOptions", "run_demo"]

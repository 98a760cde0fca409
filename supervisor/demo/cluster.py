"""`planaria demo --cluster`: three nodes stream departures; one is killed and comes back, another one is drained.

published   what happens
a fifth     a whole node is killed with SIGKILL: its partitions are led by others
a third     it starts again, and catches up
then        another node is drained: its leaders move
all         every acknowledged departure is in the log, once and in order, or the exit code is 1
"""

import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from rich.table import Table

from ...transport.client.client import Client
from ...transport.client.cluster_admin import ClusterAdmin
from ...transport.protocol.cluster import ClusterStatusReply
from ...transport.protocol.errors import PlanariaError
from ..chaos.history import History, LogEntry, Verdict
from ..local_cluster import LocalCluster
from .flights import load_departures
from .stream import TOPIC, FlightStream

PARTITIONS = 6
TIMEOUT_S = 40.0
POLL_S = 0.05

Print = Callable[[str | Table], None]


def run_cluster_demo(duration_s: float, show: Print) -> int:
    """Play the demo and return its exit code. Raises OperatorNeeded without etcd."""
    departures = load_departures()
    history = History()
    with (
        tempfile.TemporaryDirectory(prefix="planaria-demo-") as scratch,
        LocalCluster(Path(scratch)) as cluster,
        Client(cluster.endpoints) as client,
    ):
        client.wait_for_broker(TIMEOUT_S)
        operator = ClusterAdmin.over(client)
        _until(
            operator, lambda found: sum(node.state == "alive" for node in found.nodes) == len(cluster.nodes)
        )
        client.create_topic(TOPIC, PARTITIONS, replication_factor=3)
        _until(operator, _is_whole)
        show(
            f"[bold]three nodes[/bold] serve on {', '.join(cluster.endpoints)}; each partition has three replicas"
        )
        show(f"streaming {len(departures):,} departures, keyed by tail number, acks=all")
        stream = FlightStream(client.producer(), departures, duration_s, history)
        stream.start()
        is_served = _play(cluster, operator, stream, len(departures), show)
        stream.join()
        verdict = history.check(_read_log(client))
    return _conclude(stream, verdict, show, is_served=is_served)


def _play(
    cluster: LocalCluster, operator: ClusterAdmin, stream: FlightStream, total: int, show: Print
) -> bool:
    """Kill a node, start it again, drain another one. Return True if all their partitions were served again."""
    _follow(stream, total // 5)
    victim = cluster.nodes[1]
    led = _led(operator.status(), victim.name)
    moment = time.monotonic()
    victim.kill()
    after_kill = _served(stream, led, moment)
    show(
        f"[red]killed[/red] node {victim.name}, leader of {len(led)} of {PARTITIONS} partitions: {_text(after_kill)}"
    )
    _follow(stream, total // 3)
    victim.start()
    moment = time.monotonic()
    _until(operator, _is_whole)
    show(f"started node {victim.name} again: in sync everywhere after {time.monotonic() - moment:.1f} s")
    drained = cluster.nodes[2]
    led = _led(operator.status(), drained.name)
    moment = time.monotonic()
    operator.change(drained.name, "drain")
    found = _until(operator, lambda found: not _led(found, drained.name))
    moved = f"its leaders moved in {(time.monotonic() - moment) * 1000:.0f} ms"
    # On a slow machine the last departure for a partition was published before.
    after_drain = _served(stream, led, moment)
    show(f"drained node {drained.name}, leader of {len(led)} partitions: {moved}, {_text(after_drain)}")
    return all(each is not None for each in (*after_kill, *after_drain)) and not _led(found, drained.name)


def _led(found: ClusterStatusReply, node: str) -> list[int]:
    return [each.partition for each in found.partitions if each.topic == TOPIC and each.leader == node]


def _is_whole(found: ClusterStatusReply) -> bool:
    mine = [each for each in found.partitions if each.topic == TOPIC]
    return len(mine) == PARTITIONS and not any(each.under_replicated or each.offline for each in mine)


def _served(stream: FlightStream, partitions: list[int], moment: float) -> list[float | None]:
    """Return the time of each partition's first acknowledgement, without those for which no departure was left."""
    served = [stream.served_since(partition, moment, TIMEOUT_S) for partition in partitions]
    return [each for each in served if each is not None or not stream.is_over]


def _text(served_s: list[float | None]) -> str:
    times = [each for each in served_s if each is not None]
    if len(times) < len(served_s):
        return f"{len(served_s) - len(times)} not served again"
    return (
        f"all acknowledge again after {max(times) * 1000:.0f} ms"
        if times
        else "nothing is published any more"
    )


def _follow(stream: FlightStream, until: int) -> None:
    ends_at = time.monotonic() + 3 * TIMEOUT_S
    while stream.published < until and time.monotonic() < ends_at:
        time.sleep(POLL_S)


def _until(operator: ClusterAdmin, holds: Callable[[ClusterStatusReply], bool]) -> ClusterStatusReply:
    """Wait until the cluster's state is so; return the last one, also if it is not so in time."""
    ends_at = time.monotonic() + TIMEOUT_S
    while True:
        with suppress(PlanariaError):
            found = operator.status()
            if holds(found) or time.monotonic() >= ends_at:
                return found
        if time.monotonic() >= ends_at + TIMEOUT_S:
            return operator.status()
        time.sleep(POLL_S)


def _read_log(client: Client) -> list[LogEntry]:
    log: list[LogEntry] = []
    for partition in range(PARTITIONS):
        end = client.list_offsets(TOPIC, partition, "latest").offset
        with client.consumer(partitions=[(TOPIC, partition)], auto_offset_reset="earliest") as consumer:
            while end and (not log or log[-1].partition != partition or log[-1].offset < end - 1):
                for message in consumer.poll(TIMEOUT_S):
                    value = f"{(message.key or b'').decode()}:{(message.headers or {})['n']}"
                    log.append(LogEntry(message.partition, message.offset, value))
    return log


def _conclude(stream: FlightStream, verdict: Verdict, show: Print, *, is_served: bool) -> int:
    counts = {
        "published": stream.published,
        "acknowledged": verdict.acknowledged,
        "lost": verdict.lost,
        "duplicated in the log": verdict.duplicated,
        "out of order per key": verdict.reordered,
    }
    table = Table(title="result")
    table.add_column("departures")
    table.add_column("count", justify="right")
    for name, count in counts.items():
        table.add_row(name, f"{count:,}")
    show(table)
    for line in [*verdict.violations, *(str(error) for error in stream.refused[:3])]:
        show(f"[red]{line}[/red]")
    is_good = is_served and verdict.is_clean and verdict.acknowledged == stream.published
    show("[green]nothing lost, nothing out of order[/green]" if is_good else "[red]FAILED[/red]")
    return 0 if is_good else 1

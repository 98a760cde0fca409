"""Rows of `planaria bench --cluster`: the longest wait for an acknowledgement while a machine of the cluster is lost.

    row                  struck                                       partitions that count
    leader-killed        a node that leads, SIGKILL                   those that it led
    leader-frozen        the same, SIGSTOP                            those that it led
    leader-drained       a node that leads, by an operator            all
    controller-killed    the node of the leading controller, SIGKILL  those that it led
    etcd-leader-killed   the member of etcd that leads, SIGKILL       all
    follower-killed      a node, SIGKILL                              those that it did not lead

One message is published to each partition each 20 ms, with acks=all, by a client that is connected to another node. The
wait of a message begins when it is published. Every fault is healed, and the cluster is whole before the next one.
"""

import signal
import statistics
import time
from collections.abc import Callable
from contextlib import suppress

from msgspec import Struct

from ...transport.client.client import Client
from ...transport.client.cluster_admin import ClusterAdmin
from ...transport.protocol.cluster import ClusterStatusReply
from ...transport.protocol.errors import PlanariaError
from ..local_cluster import LocalMachine
from .cluster_stage import FAILOVER_TOPIC, PARTITIONS, TIMEOUT_S, Stage, await_true, led_by
from .paced_publisher import PacedPublisher
from .rows import Row

WARM_UP_S = 0.5
AFTERMATH_S = 1.0
"""Time after the first acknowledgements in which a further wait would be found."""
FREEZE_S = 4.0
"""A node that is back sooner counts as suspected wrongly, and is suspected more slowly the next time."""


class Fault(Struct, frozen=True):
    """One way to lose a machine."""

    title: str
    bar_ms: float
    choose: Callable[[Stage, ClusterStatusReply], LocalMachine]
    strike: Callable[[LocalMachine, Client], None]
    heal: Callable[[LocalMachine, Client], None]
    counts: Callable[[list[int]], list[int]]
    """Return the partitions that count, of those that the machine led."""
    aftermath_s: float = AFTERMATH_S


def failover_row(name: str) -> Callable[[Stage, int], Row]:
    """Return the function that measures a fault, this many times."""

    def measure(stage: Stage, kills: int) -> Row:
        waits = sorted(_wait_ms(stage, FAULTS[name]) for _ in range(kills))
        p99, median = waits[min(kills - 1, int(kills * 0.99))], statistics.median(waits)
        return Row(
            name=FAULTS[name].title + ", p99",
            figure=p99,
            unit="ms",
            bar=FAULTS[name].bar_ms,
            is_higher_better=False,
            median=median,
            longest=waits[-1],
            detail=f"{kills} faults, median {median:.0f} ms, longest {waits[-1]:.0f} ms",
        )

    return measure


def _wait_ms(stage: Stage, fault: Fault) -> float:
    """Strike once; return the longest wait."""
    with stage.connected() as client:
        found = stage.settle(client)
    victim = fault.choose(stage, found)
    partitions = fault.counts(led_by(found, victim.name))
    with (
        stage.connected(without=victim) as client,
        PacedPublisher(client, FAILOVER_TOPIC, PARTITIONS) as load,
    ):
        load.wait_for(range(PARTITIONS), time.monotonic() + WARM_UP_S, TIMEOUT_S)
        moment = time.monotonic()
        fault.strike(victim, client)
        load.wait_for(partitions, moment, TIMEOUT_S)
        load.wait_for(partitions, time.monotonic() + fault.aftermath_s, TIMEOUT_S)
        longest_ms = load.longest_ms(partitions, moment)
        fault.heal(victim, client)
        load.wait_for(range(PARTITIONS), time.monotonic(), TIMEOUT_S)
    return longest_ms


def _leader(stage: Stage, found: ClusterStatusReply) -> LocalMachine:
    """Choose a node that leads partitions, and whose controller does not lead."""
    name = next(node.node for node in found.nodes if led_by(found, node.node) and node.node != found.leading)
    return stage.cluster.node(name)


def _controller(stage: Stage, found: ClusterStatusReply) -> LocalMachine:
    assert found.leading is not None
    return stage.cluster.node(found.leading)


def _etcd_leader(stage: Stage, _: ClusterStatusReply) -> LocalMachine:
    return stage.leading_member()


def _kill(victim: LocalMachine, _: Client) -> None:
    victim.kill()


def _start(victim: LocalMachine, _: Client) -> None:
    victim.start()


def _freeze(victim: LocalMachine, _: Client) -> None:
    victim.signal(signal.SIGSTOP)


def _thaw(victim: LocalMachine, _: Client) -> None:
    victim.signal(signal.SIGCONT)


def _drain(victim: LocalMachine, client: Client) -> None:
    operator = ClusterAdmin.over(client)
    operator.change(victim.name, "drain")
    await_true(lambda: not led_by(operator.status(), victim.name))


def _undrain(victim: LocalMachine, client: Client) -> None:
    operator = ClusterAdmin.over(client)

    def is_done() -> bool:
        with suppress(PlanariaError):
            operator.change(victim.name, "undrain")
            return True
        return False

    await_true(is_done)


def _led(led: list[int]) -> list[int]:
    return led or _all(led)


def _all(_: list[int]) -> list[int]:
    return list(range(PARTITIONS))


def _not_led(led: list[int]) -> list[int]:
    return [each for each in range(PARTITIONS) if each not in led]


FAULTS: dict[str, Fault] = {
    "leader-killed": Fault("a leader's node killed", 1_000, _leader, _kill, _start, _led),
    "leader-frozen": Fault("a leader's node frozen", 2_000, _leader, _freeze, _thaw, _led, FREEZE_S),
    "leader-drained": Fault("a leader's node drained", 200, _leader, _drain, _undrain, _all),
    "controller-killed": Fault(
        "the leading controller's node killed", 1_000, _controller, _kill, _start, _led
    ),
    "etcd-leader-killed": Fault("etcd's leader killed", 100, _etcd_leader, _kill, _start, _all),
    "follower-killed": Fault("a follower's node killed", 300, _leader, _kill, _start, _not_led),
}

FAILOVER_ROWS: dict[str, Callable[[Stage, int], Row]] = {name: failover_row(name) for name in FAULTS}

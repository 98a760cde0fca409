"""The faults of a chaos run on a cluster, all drawn from the seed: at times two at once, and each for a while.

    fault      victim                                        healed by
    kill       a whole node, SIGKILL                         a new start
    freeze     a whole node, SIGSTOP                         SIGCONT
    wipe       a whole node, SIGKILL, its disk is removed    a new start under the same name, with an empty disk
    actor      one process of any node, SIGKILL              the node's supervisor
    hang       one actor of any node, SIGSTOP                the node's supervisor, which kills it
    supervisor that of a node, SIGKILL                       a new start
    stuck      the supervisor of a node alone, SIGSTOP       SIGCONT
    member     a member of etcd, killed or frozen            a new start, or SIGCONT
    one-way    nothing arrives from one node at another      the end of the rule
    cut        nothing arrives between two nodes             the same
    alone      nothing arrives between a node and the others
    storeless  nothing arrives between a node and etcd
    slow       all between two nodes is delayed, or limited
    reset      connections between two nodes                 the nodes

At most two nodes are down at once, and a disk is wiped only when all faults are over and all replicas in sync, so at
least one disk has every acknowledged record. The faults of the network last 1 to 8 s, too.
"""

import random
import threading
import time

import msgspec

from ....transport.client.delivery import Delivery
from ....transport.client.producer import Producer
from ...local_cluster import LocalCluster
from ..history import History
from ..run import Say
from ..workload import publish_value
from .healing import Healing
from .machine_faults import MachineFaults
from .network import Network
from .network_faults import NetworkFaults
from .scene import Scene

WEIGHTS = {
    "kill": 4,
    "freeze": 4,
    "wipe": 3,
    "actor": 6,
    "hang": 2,
    "supervisor": 1,
    "stuck": 2,
    "member": 3,
    "one-way": 3,
    "cut": 2,
    "alone": 2,
    "storeless": 2,
    "slow": 3,
    "reset": 1,
}
PAIR_CHANCE = 0.25


class Fault(msgspec.Struct, kw_only=True):
    at_ms: int
    kind: str
    description: str
    is_alone: bool
    """Nothing else was down when it struck, and nothing was struck until the recovery."""
    recovery_ms: float | None = None
    """Time until every partition has acknowledged a record that was published after the fault."""
    healed_ms: float | None = None
    """The part of it after the last end of a fault that lasts; None if no fault has ended in it."""


class Nemesis:
    def __init__(
        self,
        cluster: LocalCluster,
        network: Network,
        producer: Producer,
        history: History,
        say: Say,
        *,
        seed: int,
        partitions: int,
        interval_s: float,
    ) -> None:
        self._producer = producer
        self._history = history
        self._partitions = partitions
        self._interval_s = interval_s
        self._chance = random.Random(seed)
        self.healing = Healing(self._chance, say)
        scene = Scene(cluster, network, self._chance, self.healing)
        self._kinds = {**MachineFaults(scene).kinds(), **NetworkFaults(scene).kinds()}
        self._probes = 0
        self.faults: list[Fault] = []

    def pause_s(self) -> float:
        """Return the time to wait before the next fault."""
        return self._chance.expovariate(1 / self._interval_s)

    def strike(self) -> str:
        """Perform a fault, or two at once; return the description for a person."""
        said: list[tuple[str, str]] = []
        was_calm = self.healing.is_calm
        count = 2 if self._chance.random() < PAIR_CHANCE else 1
        while len(said) < count:
            kind = self._chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
            if description := self._kinds[kind]():
                said.append((kind, description))
        for fault in self.faults:
            fault.is_alone = fault.is_alone and fault.recovery_ms is not None
        for kind, description in said:
            self._watch(kind, description, is_alone=was_calm and count == 1)
        return "; ".join(description for _, description in said)

    def _watch(self, kind: str, description: str, *, is_alone: bool) -> None:
        """Measure the time until every partition has acknowledged a record again."""
        began = time.monotonic()
        fault = Fault(
            at_ms=round(self.healing.elapsed_s() * 1_000),
            kind=kind,
            description=description,
            is_alone=is_alone,
        )
        self.faults.append(fault)
        self._probes += 1
        waiting = set(range(self._partitions))
        lock = threading.Lock()

        def acknowledged(delivery: Delivery) -> None:
            if delivery.exception() is not None:
                return
            with lock:
                waiting.discard(delivery.result().partition)
                if not waiting:
                    now = time.monotonic()
                    if self.healing.healed_at > began:
                        fault.healed_ms = (now - self.healing.healed_at) * 1_000
                    fault.recovery_ms = (now - began) * 1_000

        for partition in range(self._partitions):
            key = f"probe{self._probes}p{partition}"
            publish_value(self._producer, self._history, key, 0, partition).add_callback(acknowledged)

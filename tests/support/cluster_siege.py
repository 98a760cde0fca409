"""Seeded faults for a cluster of real nodes, and the account at the end. Called by tests of `tests/cluster`.

    fault       victim                                    healed by
    kill        a whole node, SIGKILL                     a new start after a while
    freeze      a whole node, SIGSTOP                     SIGCONT after 1 to 8 s
    wipe        a whole node, SIGKILL, its disk removed   a new start under the same name, with an empty disk
    actor       one process of any node, SIGKILL          the node's supervisor
    member      a member of etcd, killed or frozen        a new start, or SIGCONT, after a while

The first node is the one that clients are connected to: it is never killed, frozen or wiped as a whole. At most one
other node is, so that a majority of each partition's replicas stays.
"""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from cluster_nodes import ClusterNodes, Node
from patience import TIMEOUT_S
from planaria import Client
from planaria.transport.protocol.errors import PlanariaError

ACTOR_KINDS = ("replica", "link", "controller", "gateway", "coordinator", "scheduler", "txn", "supervisor")


class Siege:
    def __init__(self, cluster: ClusterNodes, seed: int, say: Callable[[str], None] = print) -> None:
        self._cluster = cluster
        self._chance = random.Random(seed)
        self._say = say
        self._healing: list[tuple[float, Callable[[], None], str]] = []
        self._down: set[str] = set()
        """Nodes and members that a fault holds down."""
        self.struck: dict[str, int] = {}

    def run(self, faults: int, pause_s: tuple[float, float]) -> None:
        """Strike, at times twice at once, and heal everything."""
        count = 0
        while count < faults:
            for _ in range(2 if self._chance.random() < 0.25 else 1):
                description = self._strike()
                if description:
                    count += 1
                    self._say(f"{time.strftime('%H:%M:%S')} fault {count}: {description}")
            self._wait(self._chance.uniform(*pause_s))
        self.heal()

    def heal(self) -> None:
        for _, act, _ in sorted(self._healing, key=lambda each: each[0]):
            act()
        self._healing.clear()

    def _wait(self, seconds: float) -> None:
        ends_at = time.monotonic() + seconds
        while True:
            now = time.monotonic()
            for due in [each for each in self._healing if each[0] <= now]:
                self._healing.remove(due)
                due[1]()
            if now >= ends_at:
                return
            time.sleep(0.05)

    def _strike(self) -> str:
        kinds = {"kill": 4, "freeze": 4, "wipe": 1, "actor": 8, "member": 2}
        kind = self._chance.choices(list(kinds), list(kinds.values()))[0]
        description = ""
        if kind == "actor":
            description = self._kill_actor()
        elif kind == "member":
            description = self._stop_member()
        else:
            description = self._stop_node(kind)
        if description:
            self.struck[kind] = self.struck.get(kind, 0) + 1
        return description

    def _stop_node(self, kind: str) -> str:
        node = self._chance.choice(self._cluster.nodes[1:])
        if self._down & {each.name for each in self._cluster.nodes}:
            return ""
        self._down.add(node.name)
        after_s = self._chance.uniform(1, 8)
        if kind == "freeze":
            pids = node.pids()
            node.signal(signal.SIGSTOP)
            self._later(after_s, node.name, lambda: _thaw(pids))
        else:
            node.kill()
            if kind == "wipe":
                shutil.rmtree(node.data, ignore_errors=True)  # it may not have made it yet
            self._later(after_s, node.name, node.start)
        return f"{kind} of {node.name} for {after_s:.1f} s"

    def _stop_member(self) -> str:
        etcd = self._cluster.etcd
        if len(etcd.members) < 3 or self._down & {each.name for each in etcd.members}:
            return ""
        member = self._chance.choice(etcd.members)
        self._down.add(member.name)
        after_s = self._chance.uniform(1, 6)
        is_kill = self._chance.random() < 0.5
        if is_kill:
            member.kill()
            self._later(after_s, member.name, lambda: etcd.start(member))
        else:
            member.freeze()
            self._later(after_s, member.name, member.thaw)
        return f"{'kill' if is_kill else 'freeze'} of etcd's {member.name} for {after_s:.1f} s"

    def _kill_actor(self) -> str:
        nodes = [node for node in self._cluster.nodes if node.name not in self._down]
        node = self._chance.choice(nodes)
        kind = self._chance.choice(ACTOR_KINDS)
        found = actors(node)
        addresses = sorted(address for address in found if address.partition("/")[0] == kind)
        if not addresses:
            return ""
        address = self._chance.choice(addresses)
        with suppress(ProcessLookupError):
            os.kill(found[address], signal.SIGKILL)
        if kind == "supervisor":
            self._down.add(node.name)
            self._later(self._chance.uniform(0.5, 3), node.name, node.start)
        return f"SIGKILL of {address} of {node.name}"

    def _later(self, after_s: float, name: str, act: Callable[[], None]) -> None:
        def healed() -> None:
            act()
            self._down.discard(name)
            self._say(f"{time.strftime('%H:%M:%S')} {name} is back")

        self._healing.append((time.monotonic() + after_s, healed, name))


def _thaw(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def actors(node: Node) -> dict[str, int]:
    """Return the process of each actor that runs on a node; empty if it does not answer."""
    assert node.process is not None
    found = {}
    with suppress(PlanariaError), Client(node.endpoint, request_timeout_ms=2_000) as client:
        for actor in client.status().actors:
            if actor.state == "ready" and actor.pid:
                found[actor.address] = actor.pid
        found["supervisor"] = node.process.pid
    return found


def wait_until(is_true: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + TIMEOUT_S
    while not is_true():
        assert time.monotonic() < ends_at, "the wait did not end"
        time.sleep(0.1)

"""Faults of nodes, of their actors and disks, and of members of etcd. Called by the nemesis."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from ....transport.addresses import CONTROLLER, Address, Kind
from ....transport.client.client import Client
from ....transport.client.cluster_admin import ClusterAdmin
from ....transport.protocol.errors import PlanariaError
from ...local_cluster import LocalMachine
from .scene import Scene

MAX_DOWN = 2
ACTOR_KINDS = (
    Kind.REPLICA,
    Kind.LINK,
    CONTROLLER.kind,
    Kind.GATEWAY,
    Kind.COORDINATOR,
    Kind.SCHEDULER,
    Kind.TRANSACTIONS,
)
REQUEST_TIMEOUT_MS = 2_000
WHOLE_TIMEOUT_S = 60.0
POLL_S = 0.2


class MachineFaults:
    """Each fault returns its description, or nothing if it has no victim."""

    def __init__(self, scene: Scene) -> None:
        self._cluster, self._network, self._chance, self._healing = scene

    def kinds(self) -> dict[str, Callable[[], str]]:
        return {
            "kill": self._kill,
            "freeze": self._freeze,
            "wipe": self._wipe,
            "actor": lambda: self._strike_actor(signal.SIGKILL),
            "hang": lambda: self._strike_actor(signal.SIGSTOP),
            "supervisor": self._kill_supervisor,
            "stuck": self._freeze_supervisor,
            "member": self._stop_member,
        }

    def _up(self) -> list[LocalMachine]:
        return [node for node in self._cluster.nodes if node.name not in self._healing.down]

    def _victim(self) -> LocalMachine | None:
        up = self._up()
        return self._chance.choice(up) if len(up) > len(self._cluster.nodes) - MAX_DOWN else None

    def _kill(self) -> str:
        if (node := self._victim()) is None:
            return ""
        node.kill()
        return self._healing.later(f"kill of {node.name}", lambda: self._start(node), node.name)

    def _freeze(self) -> str:
        if (node := self._victim()) is None:
            return ""
        node.signal(signal.SIGSTOP)
        return self._healing.later(f"freeze of {node.name}", lambda: node.signal(signal.SIGCONT), node.name)

    def _wipe(self) -> str:
        self._healing.heal_all()
        ends_at = time.monotonic() + WHOLE_TIMEOUT_S
        while not self._is_whole():
            if time.monotonic() >= ends_at:
                return ""
            time.sleep(POLL_S)
        node = self._chance.choice(self._cluster.nodes)
        node.kill()
        shutil.rmtree(self._cluster.data_of(node.name))
        return self._healing.later(f"wipe of {node.name}", lambda: self._start(node), node.name)

    def _kill_supervisor(self) -> str:
        if (node := self._victim()) is None or node.pid is None:
            return ""
        os.kill(node.pid, signal.SIGKILL)
        return self._healing.later(
            f"kill of the supervisor of {node.name}", lambda: self._start(node), node.name
        )

    def _freeze_supervisor(self) -> str:
        if (node := self._victim()) is None or (pid := node.pid) is None:
            return ""
        os.kill(pid, signal.SIGSTOP)
        return self._healing.later(
            f"freeze of the supervisor of {node.name}", lambda: os.kill(pid, signal.SIGCONT), node.name
        )

    def _strike_actor(self, number: signal.Signals) -> str:
        up = self._up()
        if not up:
            return ""
        node, kind = self._chance.choice(up), self._chance.choice(ACTOR_KINDS)
        found = self._actors(node)
        addresses = sorted(address for address in found if Address.parse(address).kind == kind)
        if not addresses:
            return ""
        address = self._chance.choice(addresses)
        with suppress(ProcessLookupError):
            os.kill(found[address], number)
        return f"{number.name} to {address} of {node.name}"

    def _start(self, node: LocalMachine) -> None:
        node.start()
        self._network.know(node)

    def _actors(self, node: LocalMachine) -> dict[str, int]:
        """Return the process of each actor that runs on a node; empty if it does not answer."""
        endpoint = self._cluster.endpoints[self._cluster.nodes.index(node)]
        with suppress(PlanariaError), Client(endpoint, request_timeout_ms=REQUEST_TIMEOUT_MS) as client:
            return {
                actor.address: actor.pid
                for actor in client.status().actors
                if actor.state == "ready" and actor.pid
            }
        return {}

    def _is_whole(self) -> bool:
        """Return True if all replicas are in sync."""
        if self._healing.down:
            return False
        with (
            suppress(PlanariaError),
            Client(self._cluster.endpoints, request_timeout_ms=REQUEST_TIMEOUT_MS) as client,
        ):
            return not any(each.under_replicated for each in ClusterAdmin.over(client).status().partitions)
        return False

    def _stop_member(self) -> str:
        members = self._cluster.members
        if len(members) < 3 or self._healing.down & {member.name for member in members}:
            return ""
        member = self._chance.choice(members)
        if self._chance.random() < 0.5:
            member.kill()
            return self._healing.later(f"kill of etcd's {member.name}", member.start, member.name)
        member.signal(signal.SIGSTOP)
        return self._healing.later(
            f"freeze of etcd's {member.name}", lambda: member.signal(signal.SIGCONT), member.name
        )

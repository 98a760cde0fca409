"""The tree of processes as the page shows it: merges answers to `status` into nodes, and finds the differences. Pure.

    whole answer         all nodes; rates from the counters of two reports of one incarnation
    difference           the nodes that have changed, at once; their rates come with the next whole answer
    another instance     the supervisor was restarted: everything is new

Fed by feed.py. A node is a dict of plain values, and times are points and not ages: a change is a
difference of two dicts.
"""

from typing import Any, TypeAlias

from msgspec import Struct

from ...transport.addresses import Address, is_internal
from ...transport.client.descriptions import ActorStatus, BrokerStatus

Node: TypeAlias = dict[str, Any]

SAME_REPORT_MS = 100
"""Two reports that are closer are one, whose age an answer's delay has shifted."""
SILENT_MS = 1_500
"""Age of a report from which a process counts as silent: frozen, or busy for that long. Reports come twice a second."""
WITH_PROCESS = ("starting", "recovering", "ready", "stopping")
COUNTERS = ("messages_in", "bytes_in", "messages_out", "bytes_out")


class Update(Struct, frozen=True):
    """The differences that an answer has made."""

    nodes: list[Node]
    """The address of each changed node with the fields that differ; of a new one all fields."""
    removed: list[str]
    is_anew: bool
    """Forget all nodes first."""


class Rates(Struct, frozen=True):
    """Sums over the partitions of users' topics, a second."""

    messages_in: float
    bytes_in: float
    messages_out: float
    bytes_out: float


class _Counted(Struct):
    incarnation: int
    at_ms: int
    counters: dict[str, int]


class TreeView:
    def __init__(self) -> None:
        self._instance_id = ""
        self._nodes: dict[str, Node] = {}
        self._counted: dict[str, _Counted] = {}
        self.broker: dict[str, Any] = {}
        self.version: int | None = None
        """The version to ask after; None: nothing is known."""

    def nodes(self) -> list[Node]:
        """Return all nodes, with all their fields."""
        return list(self._nodes.values())

    def take(self, found: BrokerStatus, now_ms: int) -> Update:
        """Merge an answer that arrived at `now_ms`, ms since the epoch."""
        is_anew = found.instance_id != self._instance_id
        if is_anew:
            self._instance_id = found.instance_id
            self._nodes, self._counted = {}, {}
            self.broker = {}
            if not found.is_whole:
                # The supervisor has a successor, which knows another version of this number.
                self.version = None
                return Update([], [], True)
        self.version = found.version
        self.broker = {
            "endpoint": found.endpoint,
            "data_directory": found.data_directory,
            "instance_id": found.instance_id,
            "supervisor_pid": found.supervisor_pid,
            "started_ms": self.broker.get("started_ms", now_ms - found.uptime_ms),
        }
        changed = [change for each in found.actors if (change := self._merge(each, found, now_ms))]
        present = {each.address for each in found.actors}
        removed = [
            address
            for address in (set(self._nodes) - present if found.is_whole else found.removed)
            if self._nodes.pop(address, None)
        ]
        for address in removed:
            self._counted.pop(address, None)
        return Update(changed, removed, is_anew)

    def rates(self) -> Rates:
        """Return the present traffic of clients."""
        shown = [
            node
            for node in self._nodes.values()
            if node["kind"] in ("partition", "replica") and not node["is_internal"]
        ]
        return Rates(*(round(sum(node["rates"][name] for node in shown), 1) for name in COUNTERS))

    def _merge(self, actor: ActorStatus, found: BrokerStatus, now_ms: int) -> Node:
        before = self._nodes.get(actor.address, {})
        node = _node(actor)
        node["memory_bytes"] = actor.memory_bytes or (before.get("memory_bytes", 0) if actor.pid else 0)
        # A point of time is computed once, for each incarnation and death: an answer may be late by any time.
        node["started_ms"] = node["died_ms"] = None
        if node["pid"] is not None:
            is_same = before.get("incarnation") == actor.incarnation
            started_ms = before.get("started_ms") if is_same else None
            node["started_ms"] = now_ms - actor.uptime_ms if started_ms is None else started_ms
        if actor.since_death_ms is not None:
            died_ms = before.get("died_ms") if before.get("deaths") == node["deaths"] else None
            node["died_ms"] = now_ms - actor.since_death_ms if died_ms is None else died_ms
        node["rates"] = self._rates_of(actor, before.get("rates"), now_ms)
        self._nodes[actor.address] = node
        change = {name: value for name, value in node.items() if before.get(name, node) != value}
        return {"address": actor.address, **change} if change else {}

    def _rates_of(self, actor: ActorStatus, before: dict[str, float] | None, now_ms: int) -> dict[str, float]:
        if actor.report_age_ms is None or actor.state != "ready":
            self._counted.pop(actor.address, None)
            return dict.fromkeys(COUNTERS, 0.0)
        at_ms = now_ms - actor.report_age_ms
        last = self._counted.get(actor.address)
        if last is not None and last.incarnation == actor.incarnation:
            if at_ms - last.at_ms <= SAME_REPORT_MS:
                is_silent = actor.report_age_ms > SILENT_MS
                return dict.fromkeys(COUNTERS, 0.0) if is_silent or before is None else before
            seconds = (at_ms - last.at_ms) / 1000
            rates = {
                name: round((actor.counters.get(name, 0) - last.counters.get(name, 0)) / seconds, 1)
                for name in COUNTERS
            }
        else:
            # Counters begin at zero with each incarnation.
            seconds = max(actor.uptime_ms - actor.report_age_ms, 500) / 1000
            is_fresh = last is not None or seconds < 2
            rates = {
                name: round(actor.counters.get(name, 0) / seconds, 1) if is_fresh else 0.0
                for name in COUNTERS
            }
        self._counted[actor.address] = _Counted(actor.incarnation, at_ms, actor.counters)
        return rates


def _node(actor: ActorStatus) -> Node:
    address = Address.parse(actor.address)
    return {
        "address": actor.address,
        "kind": address.kind,
        "name": address.name,
        "number": address.number,
        "is_internal": is_internal(address.name),
        "state": actor.state,
        "pid": actor.pid,
        "incarnation": actor.incarnation,
        "deaths": actor.incarnation - (actor.state in WITH_PROCESS),
        "restarts": actor.restarts,
        "reason": actor.reason,
        "has_traceback": actor.traceback is not None,
        "downtime_ms": actor.downtime_ms,
        "is_silent": actor.state == "ready" and (actor.report_age_ms or 0) > SILENT_MS,
        "alarms": actor.alarms,
        "in_flight": len(actor.in_flight),
        "retrying": actor.retrying.count,
        "is_paused": actor.paused is not None,
    }

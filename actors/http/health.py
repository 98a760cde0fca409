"""Answers to probes: each returns the reasons why the answer is no; none is yes. Pure.

    /healthz           this process answers
    /readyz            clients are served: the controller and the gateway are ready, every partition has been recovered or
                       given up, no disk is below its reserve
    /readyz?strict=1   and nothing needs an operator: no quarantine, no alarm, all replicas in sync
    /critical          a stop of this node would lose no availability

A restart of the broker mends nothing that its supervisor does not mend, so /healthz asks no other process.
"""

from collections.abc import Iterable, Iterator

from ...transport.addresses import CONTROLLER, Kind
from ...transport.protocol.cluster import ClusterStatusReply
from .totals import SeenActor

MAX_NAMED = 5
_RECOVERING = ("starting", "recovering", "stopping", "backing_off")


def unready(actors: list[SeenActor], controller_fault: str) -> list[str]:
    """Return the reasons why clients are not served. `controller_fault` is the controller's refusal, or empty."""
    states = {actor.address: actor.state for actor in actors}
    reasons = []
    if states.get(CONTROLLER) != "ready":
        reasons.append(f"the controller is {states.get(CONTROLLER, 'not started')}")
    elif controller_fault:
        reasons.append(f"the controller does not serve: {controller_fault}")
    gateways = [actor for actor in actors if actor.address.kind == Kind.GATEWAY]
    reasons += [f"{actor.address} is {actor.state}" for actor in gateways if actor.state != "ready"]
    late = [
        f"{actor.address} is {actor.state}"
        for actor in actors
        if actor.topic is not None and actor.state in _RECOVERING
    ]
    reasons += _some(late)
    return reasons + _some([alarm for actor in actors for alarm in actor.report.alarms if _is_of_disk(alarm)])


def strictly_unready(actors: list[SeenActor]) -> list[str]:
    """Return further reasons: quarantine, alarms, and replicas that are not in sync."""
    quarantined = [f"{actor.address} is quarantined" for actor in actors if actor.state == "quarantined"]
    alarms = [
        f"{actor.address}: {alarm}"
        for actor in actors
        for alarm in actor.report.alarms
        if not _is_of_disk(alarm)
    ]
    return [*_some(quarantined), *_some(alarms), *_some(list(_behind(actors)))]


def is_critical(cluster: ClusterStatusReply | None) -> str | None:
    """Return the reason why this node must not be stopped now; None if it may be."""
    if cluster is None:
        return None
    own = next((node for node in cluster.nodes if node.node == cluster.node), None)
    return own.stop_refusal or None if own is not None else None


def _is_of_disk(alarm: str) -> bool:
    return alarm.startswith("producers are refused: the disk has")


def _behind(actors: Iterable[SeenActor]) -> Iterator[str]:
    for actor in actors:
        log = actor.report.log
        if log is not None and log.in_sync < log.replicas:
            yield f"{actor.address}: {log.in_sync} of {log.replicas} replicas are in sync"


def _some(reasons: list[str]) -> list[str]:
    more = len(reasons) - MAX_NAMED
    return reasons if more <= 0 else [*reasons[:MAX_NAMED], f"and {more} more"]

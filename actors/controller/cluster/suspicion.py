"""Suspicion: which nodes the leading controller takes for dead before their sessions expire. Pure.

A node's link reports for each node that it monitors whether it is connected, lost (its connection was reset), or
silent, and since when. Deciding early is safe, because no acknowledgement depends on a session: a false suspicion
costs a change of leaders, never data.

    state       means                               left by
    trusted     it may lead                         enough reports -> suspected
    suspected   it leads nothing; it may be alive   its session ends -> gone; a new start -> trusted; proofs of life
                                                    for `TRUST_AGAIN_MS` -> trusted
    gone        it has no session                   a new session -> trusted

- Each node is watched by its monitors, a few other nodes (`monitors_of`).
- A node is suspected when more than half of its monitors, and at least two, report it. With two nodes a dead node and a
  cut link look the same, so there the session decides.
- A lost connection counts after `LOST_MS`, silence after the node's own limit: `SILENT_MS`, doubled by each suspicion
  that was wrong, up to `MAX_SILENT_MS`, halved again after each `FORGIVE_MS` without one. It was wrong if the node is
  connected again within twice the limit: then some patience would have saved the changes of leaders.
- Proof of life: more than half of its monitors, again and again, have had a ping of it since it was suspected, and none
  misses it. A report that is late, a monitor that has just started and reports that arrive no more prove nothing: a dead
  node stays suspected until its session ends.
- The report of a node that has lost more than half of those it monitors is ignored: that node is cut off itself.
"""

from collections.abc import Collection

from ....transport.monitors import monitors_of
from ....transport.protocol.links import LOST_MS, PING_INTERVAL_MS, LinkReport, PeerState

SILENT_MS = 500
MAX_SILENT_MS = 4_000
TRUST_AGAIN_MS = 2_000
FORGIVE_MS = 600_000
MIN_REPORTERS = 2
FRESH_MS = 5 * PING_INTERVAL_MS
"""Age beyond which a report of a lost or quiet node counts no more: it is repeated with each ping."""
FRESH_CALM_MS = 2_500
"""The same for a report of connected nodes, which is repeated each second."""


class _Node:
    def __init__(self) -> None:
        self.silent_ms = SILENT_MS
        self.is_suspected = False
        self.suspected_at = 0
        self.connected_since: int | None = None
        """Time since which there are proofs that it lives, while it is suspected."""
        self.forgiven_at = 0
        self.trusted_until = 0


class Suspicion:
    """The nodes with a session, and which of them are suspected."""

    def __init__(self) -> None:
        self._reports: dict[str, tuple[LinkReport, int]] = {}
        self._nodes: dict[str, _Node] = {}
        self._monitors: dict[str, tuple[str, ...]] = {}

    @property
    def suspected(self) -> frozenset[str]:
        return frozenset(name for name, node in self._nodes.items() if node.is_suspected)

    def on_sessions(self, nodes: Collection[str]) -> None:
        """Replace the nodes that have a session. One with a new session is trusted again."""
        self._nodes = {name: self._nodes.get(name) or _Node() for name in nodes}
        self._monitors = monitors_of(self._nodes)
        self._reports = {name: kept for name, kept in self._reports.items() if name in self._nodes}

    def on_new_start(self, node: str, now: int) -> None:
        """Trust a node that has started again. The reports so far concern its earlier start, or are of that one."""
        self._reports.pop(node, None)
        if node in self._nodes:
            self._nodes[node].is_suspected = False
            self._nodes[node].connected_since = None
            self._nodes[node].trusted_until = now + FRESH_MS + PING_INTERVAL_MS

    def on_report(self, report: LinkReport, now: int) -> None:
        if report.reporter in self._nodes:
            self._reports[report.reporter] = (report, now)

    def decide(self, now: int) -> frozenset[str]:
        """Return the nodes that are suspected now."""
        about: dict[str, list[tuple[PeerState, int]]] = {name: [] for name in self._nodes}
        for report, at in self._reports.values():
            if now - at > _life_ms(report) or self._is_cut_off(report):
                continue
            for state in report.peers:
                if report.reporter in self._monitors.get(state.node, ()):
                    about[state.node].append((state, at))
        for name, node in self._nodes.items():
            against = sum(self._is_missed(state, node.silent_ms) for state, _ in about[name])
            if node.is_suspected:
                proofs = [at for state, at in about[name] if _proves_life(state, at - node.suspected_at)]
                is_proven = against == 0 and len(proofs) * 2 > len(self._monitors[name])
                self._reconsider(node, min(proofs) if is_proven else None, now)
            elif (
                now >= node.trusted_until
                and against >= MIN_REPORTERS
                and against * 2 > len(self._monitors[name])
            ):
                node.is_suspected, node.suspected_at = True, now
                node.connected_since = None
            elif now - node.forgiven_at >= FORGIVE_MS and node.silent_ms > SILENT_MS:
                node.silent_ms //= 2
                node.forgiven_at = now
        return self.suspected

    def _reconsider(self, node: _Node, proven_at: int | None, now: int) -> None:
        """`proven_at` is the time of the oldest proof that counts; None: there are too few."""
        if proven_at is None:
            node.connected_since = None
        elif node.connected_since is None:
            node.connected_since = now
        elif now - node.connected_since >= TRUST_AGAIN_MS and proven_at > node.connected_since:
            was_wrong = node.connected_since - node.suspected_at < 2 * node.silent_ms
            node.is_suspected = False
            node.connected_since = None
            if was_wrong:
                node.silent_ms = min(2 * node.silent_ms, MAX_SILENT_MS)
                node.forgiven_at = now

    def _is_cut_off(self, report: LinkReport) -> bool:
        """Return True if the reporter misses more than half of the nodes that it monitors."""
        peers = [state for state in report.peers if state.node in self._nodes]
        missed = sum(self._is_missed(state, SILENT_MS) for state in peers)
        return len(peers) > 1 and missed * 2 > len(peers)

    def _is_missed(self, state: PeerState, silent_ms: int) -> bool:
        return state.quiet_ms >= (silent_ms if state.is_connected else LOST_MS)


def _proves_life(state: PeerState, after_ms: int) -> bool:
    """Return True if a report that came this time after the suspicion is of a ping since then."""
    return state.is_connected and state.has_pinged and state.quiet_ms < after_ms


def _life_ms(report: LinkReport) -> int:
    return FRESH_CALM_MS if report.is_calm else FRESH_MS

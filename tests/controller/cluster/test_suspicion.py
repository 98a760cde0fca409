"""Transcripts: which reports make a node suspected, and which do not."""

import pytest

from planaria.actors.controller.cluster.suspicion import (
    FORGIVE_MS,
    MAX_SILENT_MS,
    SILENT_MS,
    TRUST_AGAIN_MS,
    Suspicion,
)
from planaria.transport.protocol.links import LOST_MS, PING_INTERVAL_MS, LinkReport, PeerState

NODES = ("a", "b", "c", "d", "e")


class Cluster:
    """Links of some nodes that report every 100 ms while a node is quiet, and else every second."""

    def __init__(self, nodes: int = 3) -> None:
        self.nodes = NODES[:nodes]
        self.suspicion = Suspicion()
        self.suspicion.on_sessions(self.nodes)
        self.now = 1_000_000
        self.silent_since: dict[tuple[str, str], int] = {}
        self.lost_since: dict[tuple[str, str], int] = {}
        self.dead: set[str] = set()
        self.new: set[str] = set()
        """Reporters that have had no ping of the silent nodes in their own start."""

    def silence(self, node: str, to: tuple[str, ...] = NODES) -> None:
        self.silent_since |= {(reporter, node): self.now for reporter in to}

    def lose(self, node: str, to: tuple[str, ...] = NODES) -> None:
        self.lost_since |= {(reporter, node): self.now for reporter in to}

    def heal(self) -> None:
        self.silent_since.clear()
        self.lost_since.clear()

    def run(self, duration_ms: int) -> int | None:
        """Return the time until the first node is suspected; None if none is."""
        begin = self.now
        while self.now < begin + duration_ms:
            self.now += 100
            for reporter in self.nodes:
                report = self._report(reporter)
                if reporter not in self.dead and (not report.is_calm or self.now % 1_000 == 0):
                    self.suspicion.on_report(report, self.now)
            before = self.suspicion.suspected
            if self.suspicion.decide(self.now) > before:
                return self.now - begin
        return None

    def _report(self, reporter: str) -> LinkReport:
        peers = []
        for node in self.nodes:
            if node != reporter:
                lost = self.lost_since.get((reporter, node))
                since = self.silent_since.get((reporter, node), self.now) if lost is None else lost
                has_pinged = reporter not in self.new or since == self.now
                peers.append(PeerState(node, lost is None, self.now - since, has_pinged))
        return LinkReport(reporter, tuple(peers))


def test_a_lost_node_is_suspected_at_the_next_report() -> None:
    cluster = Cluster()
    cluster.dead.add("c")
    cluster.lose("c")
    assert cluster.run(5_000) == max(PING_INTERVAL_MS, LOST_MS)
    assert cluster.suspicion.suspected == {"c"}


def test_a_silent_node_is_suspected_after_half_a_second() -> None:
    cluster = Cluster()
    cluster.dead.add("a")
    cluster.silence("a")
    assert cluster.run(5_000) == SILENT_MS


@pytest.mark.parametrize("nodes", [3, 4, 5])
def test_one_broken_link_convicts_nobody(nodes: int) -> None:
    cluster = Cluster(nodes)
    cluster.silence("b", to=("a",))
    cluster.lose("a", to=("b",))
    assert cluster.run(10_000) is None


def test_a_node_that_misses_all_others_is_cut_off_itself() -> None:
    cluster = Cluster(5)
    for node in "bcde":
        cluster.silence(node, to=("a",))
    cluster.silence("a")
    cluster.run(10_000)
    assert cluster.suspicion.suspected == {"a"}


def test_with_two_nodes_the_session_decides() -> None:
    cluster = Cluster(2)
    cluster.dead.add("b")
    cluster.lose("b")
    assert cluster.run(10_000) is None


def test_reports_of_a_dead_node_do_not_count() -> None:
    cluster = Cluster(4)
    cluster.silence("a", to=("b", "c"))
    cluster.run(300)
    cluster.dead |= {"b", "c"}
    assert cluster.run(10_000) is None


def test_a_wrong_suspicion_ends_and_makes_the_next_one_slower() -> None:
    cluster = Cluster()
    cluster.silence("c")
    assert cluster.run(5_000) == SILENT_MS
    cluster.heal()
    assert cluster.run(TRUST_AGAIN_MS - 200) is None
    assert cluster.suspicion.suspected == {"c"}
    cluster.run(1_500)
    assert cluster.suspicion.suspected == frozenset()
    cluster.silence("c")
    assert cluster.run(5_000) == 2 * SILENT_MS


def test_a_monitor_that_has_just_started_proves_nothing_for_a_dead_node() -> None:
    """The report of the other monitor comes late, and the last one of the new monitor still counts."""
    cluster = Cluster()
    cluster.dead.add("c")
    cluster.lose("c")
    cluster.run(1_000)
    cluster.suspicion.on_new_start("b", cluster.now)
    for _ in range(20):
        cluster.now += 500
        calm = (PeerState("a", True, 0), PeerState("c", True, 0, False))
        cluster.suspicion.on_report(LinkReport("b", calm), cluster.now)
        assert cluster.suspicion.decide(cluster.now) == {"c"}


def test_one_late_report_proves_nothing_for_a_dead_node() -> None:
    cluster = Cluster()
    cluster.dead.add("c")
    cluster.silence("c")
    cluster.run(1_000)
    late = cluster.now + 100
    for reporter, other in (("a", "b"), ("b", "a")):
        calm = (PeerState(other, True, 0), PeerState("c", True, 50))
        cluster.suspicion.on_report(LinkReport(reporter, calm), late)
    assert cluster.suspicion.decide(late + 100) == {"c"}
    assert cluster.suspicion.decide(late + 100 + TRUST_AGAIN_MS) == {"c"}


def test_one_monitor_of_two_does_not_prove_that_a_suspected_node_lives() -> None:
    cluster = Cluster()
    cluster.silence("c")
    cluster.run(1_000)
    cluster.heal()
    cluster.dead.add("b")
    cluster.run(10_000)
    assert cluster.suspicion.suspected == {"c"}
    cluster.suspicion.on_sessions(("a", "c"))
    cluster.run(TRUST_AGAIN_MS + 1_500)
    assert cluster.suspicion.suspected == frozenset()


def test_a_suspicion_that_lasts_was_right_and_slows_nothing() -> None:
    cluster = Cluster()
    cluster.silence("c")
    assert cluster.run(5_000) == SILENT_MS
    cluster.run(2 * SILENT_MS)
    cluster.heal()
    cluster.run(TRUST_AGAIN_MS + 1_500)
    assert cluster.suspicion.suspected == frozenset()
    assert cluster.suspicion._nodes["c"].silent_ms == SILENT_MS


def test_the_limit_of_a_flapping_node_is_bounded_and_forgiven() -> None:
    cluster = Cluster()
    for _ in range(6):
        cluster.silence("c")
        cluster.run(10_000)
        cluster.heal()
        cluster.run(TRUST_AGAIN_MS + 1_500)
    assert cluster.suspicion._nodes["c"].silent_ms == MAX_SILENT_MS
    cluster.now += FORGIVE_MS
    cluster.run(200)
    assert cluster.suspicion._nodes["c"].silent_ms == MAX_SILENT_MS // 2


def test_a_node_that_has_started_again_is_trusted_at_once() -> None:
    cluster = Cluster()
    cluster.lose("c")
    cluster.run(1_000)
    cluster.heal()
    cluster.suspicion.on_new_start("c", cluster.now)
    assert cluster.run(1_000) is None
    assert cluster.suspicion.suspected == frozenset()


def test_a_node_without_a_session_is_forgotten() -> None:
    cluster = Cluster()
    cluster.lose("c")
    cluster.run(1_000)
    cluster.suspicion.on_sessions(("a", "b"))
    assert cluster.suspicion.suspected == frozenset()

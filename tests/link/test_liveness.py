"""Links report lost and quiet nodes soon, and no node that is well."""

from linked_nodes import LinkedNodes, SimulatedLink
from planaria.actors.controller.cluster.suspicion import SILENT_MS, Suspicion
from planaria.actors.link.liveness import Liveness
from planaria.transport.machine import TimerFired
from planaria.transport.protocol.links import LOST_MS, LinkReport, PeerState, Ping


def suspicion_at(world: LinkedNodes, name: str) -> frozenset[str]:
    """Return the nodes that the controller of this node suspects, by the reports of its link so far."""
    suspicion = Suspicion()
    suspicion.on_sessions(list(world.nodes))
    for reports in world.nodes[name].reports:
        for report in reports.reports:
            suspicion.on_report(report, world.now)
    return suspicion.decide(world.now)


def own_report(node: SimulatedLink) -> dict[str, PeerState]:
    own = next(report for report in node.reports[-1].reports if report.reporter == node.node)
    return {state.node: state for state in own.peers}


def test_a_calm_cluster_reports_each_second() -> None:
    world = LinkedNodes("a", "b", "c")
    world.run(10_000)
    for node in world.nodes.values():
        assert 8 <= len(node.reports) <= 12
        assert all(report.is_calm for reports in node.reports for report in reports.reports)
        assert suspicion_at(world, node.node) == frozenset()


def test_a_killed_node_is_reported_at_once_and_suspected_by_all_others() -> None:
    world = LinkedNodes("a", "b", "c")
    world.run(1_000)
    world.kill("b")
    assert not own_report(world.nodes["a"])["b"].is_connected
    world.run(LOST_MS + 20)
    assert suspicion_at(world, "a") == suspicion_at(world, "c") == {"b"}


def test_a_frozen_node_is_suspected_when_its_silence_is_long_enough() -> None:
    world = LinkedNodes("a", "b", "c")
    world.run(1_000)
    world.nodes["b"].is_frozen = True
    world.run(SILENT_MS - 150)
    assert suspicion_at(world, "a") == frozenset()
    world.run(350)
    assert suspicion_at(world, "a") == suspicion_at(world, "c") == {"b"}


def test_a_link_that_did_not_run_itself_holds_it_against_nobody() -> None:
    world = LinkedNodes("a", "b", "c")
    world.run(1_000)
    paused = world.nodes["a"]
    paused.is_frozen = True
    world.run(5_000)
    paused.is_frozen = False
    paused.reports.clear()
    [beat] = [key for key in paused.timers if type(key).__name__ == "BeatTimer"]
    paused.event(TimerFired(beat))
    assert all(state.quiet_ms < SILENT_MS for state in own_report(paused).values())


def test_one_cut_link_is_reported_by_its_two_ends_and_convicts_nobody() -> None:
    world = LinkedNodes("a", "b", "c")
    world.run(1_000)
    world.cuts |= {("a", "b"), ("b", "a")}
    world.run(3_000)
    assert own_report(world.nodes["a"])["b"].quiet_ms > SILENT_MS
    assert own_report(world.nodes["c"])["b"].quiet_ms < SILENT_MS
    for name in world.nodes:
        assert suspicion_at(world, name) == frozenset()


def test_a_node_that_starts_again_is_new() -> None:
    world = LinkedNodes("a", "b", "c")
    world.run(1_000)
    world.kill("b")
    world.publish("b")
    world.nodes["b"] = SimulatedLink(world, "b", start_id="2")
    world.begin(world.nodes["b"])
    world.publish()
    world.run(1_000)
    assert own_report(world.nodes["a"])["b"].is_connected
    assert world.nodes["a"].peers["link/b"].incarnation == 2


def test_a_restarted_link_of_a_node_is_connected_again() -> None:
    world = LinkedNodes("a", "b", "c")
    world.run(1_000)
    world.kill("b")
    world.nodes["b"] = SimulatedLink(world, "b", incarnation=2)
    world.begin(world.nodes["b"])
    world.publish()
    world.run(300)
    assert world.nodes["a"].peers["link/b"].incarnation == 2
    assert own_report(world.nodes["a"])["b"].is_connected


def test_a_ping_that_is_read_after_the_end_of_its_connection_is_no_sign_of_life() -> None:
    liveness = Liveness("a")
    liveness.watch(["b"], 0)
    ping = Ping(node="b", start_id="1", incarnation=1, report=LinkReport("b", ()))
    liveness.on_ping(ping, b"1", 0)
    assert liveness.on_closed(b"1", 10)
    liveness.on_ping(ping, b"1", 11)
    assert liveness.report(100).peers == (PeerState("b", False, 90),)
    liveness.on_ping(ping, b"2", 120)
    assert liveness.report(120).peers == (PeerState("b", True, 0),)


def test_a_node_that_has_sent_no_ping_yet_is_reported_as_such() -> None:
    liveness = Liveness("a")
    liveness.watch(["b"], 0)
    assert liveness.report(50).peers == (PeerState("b", True, 50, has_pinged=False),)
    ping = Ping(node="b", start_id="1", incarnation=1, report=LinkReport("b", ()))
    liveness.on_ping(ping, b"1", 60)
    assert liveness.report(60).peers == (PeerState("b", True, 0, has_pinged=True),)
    liveness.forget("b", 70)
    assert not liveness.report(70).peers[0].has_pinged

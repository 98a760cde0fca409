"""A node joins others if they share a version of the protocol between nodes; otherwise one line says what to do."""

import pytest

from planaria.actors.controller.cluster.records import NodeSession
from planaria.actors.controller.cluster.versions import NEWEST_PROTOCOL, OLDEST_PROTOCOL, refusal


def speaking(node: str, oldest: int, newest: int) -> NodeSession:
    return NodeSession(
        node=node,
        data_id=node,
        start_id="1",
        endpoint="",
        peer_endpoint="",
        oldest_protocol=oldest,
        protocol=newest,
    )


@pytest.mark.parametrize(
    ("own", "advice"),
    [
        ((3, 4), ""),
        ((2, 3), ""),
        ((4, 6), ""),
        ((1, 2), "this one 1 to 2: upgrade this node"),
        ((5, 6), "this one 5 to 6: upgrade that node first, or start the release before this one here"),
    ],
)
def test_nodes_without_a_common_version_do_not_join(own: tuple[int, int], advice: str) -> None:
    node = speaking("n1", *own)
    found = refusal(node, {"n1": speaking("n1", 9, 9), "n2": speaking("n2", 3, 4)})
    assert found == (
        f"node 'n2' speaks versions 3 to 4 of the protocol between nodes, {advice}" if advice else ""
    )


def test_this_release_speaks_a_version() -> None:
    assert OLDEST_PROTOCOL <= NEWEST_PROTOCOL

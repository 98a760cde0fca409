"""Each node is watched by a few others, the same ones in every node's computation."""

import pytest

from planaria.transport.monitors import MONITORS, monitors_of


@pytest.mark.parametrize("count", [1, 2, 5, 7, 8, 40, 1_000])
def test_the_messages_between_links_grow_with_the_number_of_nodes(count: int) -> None:
    nodes = [f"n{number}" for number in range(count)]
    monitors = monitors_of(nodes)
    assert {node: len(watching) for node, watching in monitors.items()} == {
        node: min(count - 1, MONITORS) for node in nodes
    }
    for node, watching in monitors.items():
        assert node not in watching
        assert all(node in monitors[other] for other in watching)

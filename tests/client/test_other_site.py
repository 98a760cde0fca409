"""A client with the endpoints of two sites whose topics follow the other site's there."""

from exchange_driver import Wire
from planaria.transport.calls.events import Disconnected
from planaria.transport.client.gateway_link import LONGEST_STAY_MS, STAY_MS, OtherSite
from planaria.transport.protocol.errors import ErrorCode
from planaria.transport.protocol.session import Hello, Node
from planaria.transport.protocol.topics import ListTopics

A, B, C = "tcp://10.0.0.1:5570", "tcp://10.0.0.2:5570", "tcp://10.0.0.3:5570"


def refused_until(wire: Wire, at_ms: int) -> None:
    """Refuse a request at this time, as a topic that follows another site refuses producers."""
    wire.now = at_ms
    wire.ask_gateway()
    (send,) = wire.take(ListTopics)
    wire.refuse(send, ErrorCode.TOPIC_IS_MIRRORED)


def test_a_client_that_is_refused_for_a_while_looks_at_the_other_site() -> None:
    wire = Wire(True, A, B)
    wire.greet()
    refused_until(wire, 0)
    refused_until(wire, STAY_MS - 1)
    assert list(wire.routes) == [A]
    refused_until(wire, STAY_MS)
    assert list(wire.routes) == [B]
    wire.take(Hello)
    wire.feed(Disconnected(B, is_refused=True))
    assert list(wire.routes) == [A], "the other one is gone: the promotion is waited for here"


def test_the_other_nodes_of_the_same_cluster_are_no_other_site() -> None:
    wire = Wire(True, A, B, C)
    wire.greet(nodes=[Node("n1", A), Node("n2", B)])
    refused_until(wire, 0)
    refused_until(wire, STAY_MS)
    assert list(wire.routes) == [C]


def test_with_one_site_a_client_stays() -> None:
    wire = Wire(True, A, B)
    wire.greet(nodes=[Node("n1", A), Node("n2", B)])
    for at_ms in (0, STAY_MS, 2 * STAY_MS):
        refused_until(wire, at_ms)
    assert list(wire.routes) == [A]


def test_the_looks_become_rarer_and_a_time_without_refusals_is_a_new_start() -> None:
    site = OtherSite()
    looks = [now for now in range(0, 120_000, 100) if site.is_due(now)]
    pauses = [later - before for before, later in zip([0, *looks], looks, strict=False)]
    assert pauses == [STAY_MS, 2 * STAY_MS, 4 * STAY_MS, 8 * STAY_MS, LONGEST_STAY_MS, LONGEST_STAY_MS]
    assert not site.is_due(120_000 + LONGEST_STAY_MS + 100)
    assert site.is_due(120_000 + LONGEST_STAY_MS + 100 + STAY_MS)

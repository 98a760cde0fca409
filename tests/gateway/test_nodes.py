"""The nodes of a cluster in the replies to `hello` and `metadata`."""

from msgspec import UNSET

from gateway_driver import GatewayDriver
from planaria.transport.machine import Answered
from planaria.transport.protocol.links import LinkedNode, WatchNodes, WatchNodesReply
from planaria.transport.protocol.session import Hello, Metadata, Node


def linked(*names: str) -> list[LinkedNode]:
    return [LinkedNode(name, f"start-{name}", f"tcp://{name}:2", f"tcp://{name}:1") for name in names]


def test_clients_get_the_nodes_that_the_controller_knows() -> None:
    gateway = GatewayDriver(is_clustered=True).start()
    (watch,) = gateway.calls
    assert isinstance(watch.request, WatchNodes)
    assert watch.request.after_version is None
    assert gateway.reply(Hello()).nodes is UNSET, "they are not known yet"
    gateway.answer(WatchNodesReply(version=3, nodes=linked("n2", "n1")))
    nodes = [Node("n1", "tcp://n1:1"), Node("n2", "tcp://n2:1")]
    assert gateway.reply(Hello()).nodes == nodes
    assert gateway.reply(Metadata(topics=[])).nodes == nodes
    (watch,) = gateway.calls
    assert watch.request.after_version == 3  # type: ignore[union-attr]
    assert watch.is_endless
    gateway.answer(WatchNodesReply(version=4, nodes=linked("n1")))
    assert gateway.reply(Hello()).nodes == nodes[:1]


def test_clients_do_not_get_the_nodes_that_are_taken_for_dead() -> None:
    gateway = GatewayDriver(is_clustered=True).start()
    gateway.answer(WatchNodesReply(version=1, nodes=linked("n1", "n2"), suspected=("n2",)))
    assert gateway.reply(Metadata(topics=[])).nodes == [Node("n1", "tcp://n1:1")]


def test_one_watch_is_in_flight_when_the_controller_starts_again() -> None:
    gateway = GatewayDriver(is_clustered=True).start()
    gateway.down("controller")
    gateway.up("controller")
    assert len(gateway.calls) == 1
    gateway.give(Answered(gateway.calls.pop().key, WatchNodesReply(version=1, nodes=linked("n1"))))
    assert len(gateway.calls) == 1


def test_a_broker_on_one_machine_names_no_nodes() -> None:
    gateway = GatewayDriver().start()
    assert gateway.calls == []
    assert gateway.reply(Hello()).nodes is UNSET
    assert gateway.reply(Metadata(topics=[])).nodes is UNSET

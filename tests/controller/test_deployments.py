"""Deployments: who may change them, where their workers run, and how these are started, replaced and stopped."""

from collections import Counter
from itertools import count
from typing import Any

import pytest

from planaria.actors.controller.catalog import Catalog, decode_catalog, encode_catalog
from planaria.actors.controller.decisions import Decisions
from planaria.actors.controller.deployments import Deployments, Nodes, placed
from planaria.actors.controller.keys import CommandCall
from planaria.actors.controller.peers import Peers
from planaria.transport.addresses import Address, deployed_address
from planaria.transport.machine import Call, CancelCall, Reply, Sender
from planaria.transport.protocol.control import PeerDown, PeerUp, ReplaceChild, StartChild, StopChild
from planaria.transport.protocol.deployments import (
    ChangeDeployment,
    Deploy,
    Deployment,
    DeploymentSpec,
    SpecChange,
    is_proof,
    proof_of,
)
from planaria.transport.protocol.errors import ProtocolError
from planaria.transport.protocol.topics import TopicConfig

SECRET = b"secret"
PROOF = proof_of(SECRET)
SENDER = Sender((b"operator",), 1)
SPEC = DeploymentSpec(handler="shop:charge", topics=["T"], workers=3, environment={"BANK": "abc", "X": "1"})


class World:
    """The deployments of one node, its supervisor's commands, and a store that takes every change at once."""

    def __init__(self, *nodes: str, own: str = "", deployed: DeploymentSpec | None = None) -> None:
        self.live = list(nodes) or [""]
        self._own = own
        catalog = Catalog(catalog_id="c").with_topic("T", 1, TopicConfig(), 1)
        if deployed is not None:
            catalog = catalog.with_deployment("g", Deployment(spec=deployed))
        saved = decode_catalog(encode_catalog(catalog.undecided()), "catalog.json")
        self.decisions = Decisions(saved, count(1))
        self.peers = Peers()
        self.deployments = Deployments(
            self.decisions,
            self.peers,
            lambda: Nodes(self._own, self.live),
            lambda given: is_proof(given, SECRET),
        )
        self.orders: list[tuple[str, str]] = []
        self.open: dict[Address, CommandCall] = {}
        self.specs: dict[Address, Any] = {}
        self.incarnation = 0
        self.perform(self.deployments.on_gateway("tcp://0.0.0.0:5570"))

    def change(self, request: Deploy | ChangeDeployment) -> None:
        ask = self.deployments.on_deploy if isinstance(request, Deploy) else self.deployments.on_change
        effects = ask(SENDER, request)  # type: ignore[arg-type]
        self.decisions.durable = self.decisions.latest = self.decisions.latest.undecided()
        self.decisions._gathered.clear()
        self.perform([*effects, *self.deployments.follow()])

    def perform(self, effects: list[Any]) -> None:
        for effect in effects:
            if isinstance(effect, Reply):
                continue
            if isinstance(effect, CancelCall):
                assert self.open.pop(effect.token.address) == effect.token
                continue
            assert isinstance(effect, Call)
            request = effect.request
            if isinstance(request, StopChild):
                self.orders.append(("stop", request.address))
                self.open[request.address] = effect.key
            else:
                assert isinstance(request, StartChild | ReplaceChild)
                address = request.spec.address
                self.orders.append(("start" if isinstance(request, StartChild) else "replace", address))
                self.specs[address] = request.spec
                self.open[address] = effect.key

    def done(self, address: Address) -> None:
        """Have the supervisor confirm its order."""
        assert self.deployments.commands.done(self.open.pop(address)) == address
        self.perform(self.deployments.on_command_done(address))

    def up(self, address: Address) -> None:
        self.incarnation += 1
        self.peers.up(PeerUp(address=address, incarnation=self.incarnation, endpoint=None))
        self.perform(self.deployments.on_up(address))

    def down(self, address: Address, *, quarantined: bool = False) -> None:
        event = PeerDown(
            address=address, incarnation=self.incarnation, reason="it died", quarantined=quarantined
        )
        self.peers.down(event)
        self.perform(self.deployments.on_down(event))

    def all_up(self) -> None:
        for address in list(self.open):
            self.done(address)
            self.up(address)

    def take(self) -> list[tuple[str, str]]:
        orders, self.orders = self.orders, []
        return orders


def worker(number: int) -> Address:
    return deployed_address("g", number)


@pytest.fixture
def running() -> World:
    world = World()
    world.change(Deploy(group="g", spec=SPEC, proof=PROOF))
    world.all_up()
    assert world.take() == [("start", f"deployed/g/{number}") for number in (1, 2, 3)]
    return world


def test_workers_connect_to_this_machine_and_have_their_surroundings(running: World) -> None:
    spec = running.specs[worker(1)]
    assert spec.arguments["endpoint"] == "tcp://127.0.0.1:5570"
    assert spec.surroundings.environment == {"BANK": "abc", "X": "1"}
    assert spec.surroundings.output == "logs/deployments/g-1.log"


@pytest.mark.parametrize("proof", ["", "00", proof_of(b"another")])
def test_only_the_user_of_the_broker_changes_deployments(running: World, proof: str) -> None:
    for request in (
        Deploy(group="new", spec=SPEC, proof=proof),
        ChangeDeployment(group="g", proof=proof, action="delete"),
    ):
        with pytest.raises(ProtocolError, match="FORBIDDEN"):
            running.change(request)
    assert running.take() == []
    assert not is_proof(proof_of(b""), b"")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"handler": "no path"}, "INVALID_CONFIG: handler"),
        ({"options": {"retrys": 3}}, "INVALID_CONFIG: unknown option 'retrys'"),
        ({"options": {"retries": -1}}, "INVALID_CONFIG: retries"),
        ({"topics": ["NOWHERE"]}, "UNKNOWN_TOPIC"),
        ({"options": {"dead_letter": "NOWHERE"}}, "UNKNOWN_TOPIC"),
    ],
)
def test_what_cannot_run_is_refused(running: World, change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ProtocolError, match=complaint):
        running.change(ChangeDeployment(group="g", proof=PROOF, update=SpecChange(**change)))
    with pytest.raises(ProtocolError, match="UNKNOWN_DEPLOYMENT"):
        running.change(ChangeDeployment(group="other", proof=PROOF, is_paused=True))
    with pytest.raises(ProtocolError, match="has a deployment already"):
        running.change(Deploy(group="g", spec=SPEC, proof=PROOF))


def test_an_update_replaces_one_worker_after_the_other_is_up(running: World) -> None:
    running.change(
        ChangeDeployment(group="g", proof=PROOF, update=SpecChange(environment={"X": "", "Y": "2"}))
    )
    for number in (1, 2, 3):
        assert running.take() == [("replace", f"deployed/g/{number}")]
        running.down(worker(number))
        running.done(worker(number))
        assert running.take() == [], "the old process has ended, the new one is not up"
        running.up(worker(number))
    assert running.take() == []
    assert running.specs[worker(3)].surroundings.environment == {"BANK": "abc", "Y": "2"}
    assert running.specs[worker(3)].arguments["version"] == 2


def test_a_version_that_cannot_start_replaces_one_worker_only_and_is_rolled_back(running: World) -> None:
    running.change(ChangeDeployment(group="g", proof=PROOF, update=SpecChange(handler="shop:broken")))
    running.down(worker(1))
    running.done(worker(1))
    running.down(worker(1), quarantined=True)
    assert running.take() == [("replace", "deployed/g/1")]
    running.change(ChangeDeployment(group="g", proof=PROOF, workers=2))
    assert running.take() == [("stop", "deployed/g/3")]
    running.change(ChangeDeployment(group="g", proof=PROOF, action="rollback"))
    assert running.take() == [("replace", "deployed/g/1")]
    assert running.specs[worker(1)].arguments["handler"]["path"] == "shop:charge"
    assert running.specs[worker(1)].arguments["version"] == 3


def test_a_changed_number_of_workers_starts_and_stops_the_last_ones(running: World) -> None:
    running.change(ChangeDeployment(group="g", proof=PROOF, workers=4))
    assert running.take() == [("start", "deployed/g/4")]
    running.all_up()
    running.change(ChangeDeployment(group="g", proof=PROOF, workers=2))
    assert running.take() == [("stop", "deployed/g/3"), ("stop", "deployed/g/4")]


@pytest.mark.parametrize("change", [{"is_paused": True}, {"action": "delete"}])
def test_a_paused_or_deleted_deployment_runs_no_workers(running: World, change: dict[str, Any]) -> None:
    running.change(ChangeDeployment(group="g", proof=PROOF, **change))
    assert running.take() == [("stop", f"deployed/g/{number}") for number in (1, 2, 3)]
    if "is_paused" in change:
        running.change(ChangeDeployment(group="g", proof=PROOF, is_paused=False))
        assert running.take() == [("start", f"deployed/g/{number}") for number in (1, 2, 3)]


def test_a_controller_that_starts_again_replaces_workers_of_an_unknown_version_in_turn() -> None:
    world = World(deployed=SPEC)
    assert world.take() == [("start", f"deployed/g/{number}") for number in (1, 2, 3)]
    for number in (1, 2, 3):  # they run: the start changes nothing
        world.peers.up(PeerUp(address=worker(number), incarnation=1, endpoint=None))
    world.done(worker(1))
    assert world.take() == [("replace", "deployed/g/1")]
    world.done(worker(1))  # it has that spec, and goes on
    world.done(worker(2))
    assert world.take() == [("replace", "deployed/g/2")]


def test_workers_are_spread_evenly_and_every_node_computes_the_same() -> None:
    deployment = Deployment(spec=DeploymentSpec(handler="shop:charge", topics=["T"], workers=7))
    nodes = placed("g", deployment, ["a", "b", "c"])
    assert sorted(Counter(nodes).values()) == [2, 2, 3]
    assert placed("g", deployment, ["c", "a", "b"]) == nodes
    assert placed("g", deployment, []) == []


def test_workers_of_a_lost_node_are_started_on_others() -> None:
    worlds = {own: World("a", "b", "c", own=own) for own in "abc"}
    for world in worlds.values():
        world.change(Deploy(group="g", spec=SPEC, proof=PROOF))
    started = {own: [address for _, address in world.take()] for own, world in worlds.items()}
    assert sorted(address for found in started.values() for address in found) == [
        f"deployed/g/{number}" for number in (1, 2, 3)
    ]
    for own in "bc":
        worlds[own].all_up()
        worlds[own].live = ["b", "c"]
        worlds[own].perform(worlds[own].deployments.follow())
    running = [address for own in "bc" for address in worlds[own].deployments._running]
    assert sorted(running) == [f"deployed/g/{number}" for number in (1, 2, 3)]

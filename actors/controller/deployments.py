"""Deployments: subscriptions in the catalog, and the workers of them that run here. Pure.

Every controller of a cluster follows the same catalog and the same live nodes, and computes from them alone where each
worker runs (`placed`). So none has to assign them: a controller starts those that it finds on its own node, and stops the
others. For a moment two nodes may run the same worker; they are the same static member, and the group fences one.

    not running --wanted here--> running --another version is wanted--> replaced, in its turn --> running
                                 running --not wanted here--> stopped

Workers of one deployment are replaced one after another: the next one when the supervisor has stopped the old process and
the new one is up. A new version that cannot start ends the replacement; the other workers keep the old one.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from ...transport.addresses import Address, Kind, deployed_address
from ...transport.machine import Reply, Sender
from ...transport.protocol.control import ChildSpec, PeerDown, Surroundings
from ...transport.protocol.deployments import (
    ChangeDeployment,
    Deploy,
    Deployment,
    DeploymentSpec,
    ListDeploymentsReply,
    ReadDeploymentOutput,
    changed,
    report_of,
    with_spec,
)
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.message import Done, Request
from ...transport.subscription import (
    HandlerSource,
    InvalidSubscription,
    SubscriberOptions,
    child_spec,
    options_of,
)
from .catalog import Catalog
from .child_commands import ChildCommands
from .children import SUBSCRIBER_ENTRY
from .decisions import Decisions, FollowUp
from .effects import Effect, ReadOutput
from .names import check_group_name
from .peers import Peers

MAX_DEPLOYMENTS = 1_000
LOGS = "logs/deployments"
"""Folder of the workers' output, in the data directory."""
_EVERYWHERE = ("//*:", "//0.0.0.0:", "//[::]:")


class Nodes(NamedTuple):
    """The nodes that run workers."""

    own: str = ""
    live: Sequence[str] = ("",)


class Deployments:
    def __init__(
        self,
        decisions: Decisions,
        peers: Peers,
        nodes: Callable[[], Nodes],
        is_proof: Callable[[str], bool],
    ) -> None:
        self._decisions = decisions
        self._peers = peers
        self._nodes = nodes
        self._is_proof = is_proof
        self.commands = ChildCommands()
        self._endpoint = ""
        self._running: dict[Address, ChildSpec] = {}
        """The specs of the workers here that have been ordered."""
        self._unconfirmed: set[Address] = set()
        """Workers that an earlier controller may have started with another spec."""
        self._replacing: dict[str, Address] = {}
        """By group, the worker that is being replaced."""
        self._failed: dict[str, ChildSpec] = {}
        """By group, the spec with which a replaced worker could not start."""
        self._is_first = True

    # -- requests

    def on_request(self, sender: Sender, request: Request) -> list[Effect]:
        match request:
            case Deploy():
                return self.on_deploy(sender, request)
            case ChangeDeployment():
                return self.on_change(sender, request)
            case ReadDeploymentOutput():
                return [ReadOutput(sender, request, self._nodes().own)]
            case _:
                return self.on_list(sender)

    def on_deploy(self, sender: Sender, request: Deploy) -> list[Effect]:
        self._check(request.proof)
        group, latest = request.group, self._decisions.latest
        check_group_name(group)
        if group in latest.deployments:
            raise ProtocolError(
                ErrorCode.INVALID_CONFIG,
                f"group {group!r} has a deployment already: update it, or delete it first",
            )
        if len(latest.deployments) >= MAX_DEPLOYMENTS:
            raise ProtocolError(
                ErrorCode.INVALID_CONFIG, f"a broker has at most {MAX_DEPLOYMENTS} deployments"
            )
        self._check_spec(group, request.spec)
        return self._decide(latest.with_deployment(group, Deployment(spec=request.spec)), group, sender)

    def on_change(self, sender: Sender, request: ChangeDeployment) -> list[Effect]:
        self._check(request.proof)
        group, latest = request.group, self._decisions.latest
        deployment = _known(latest, group)
        if request.action == "delete":
            return self._decide(latest.without_deployment(group), group, sender)
        if request.action == "rollback":
            if deployment.previous is None:
                raise ProtocolError(ErrorCode.INVALID_CONFIG, f"deployment {group!r} has no earlier version")
            # Scaling is not undone.
            earlier = msgspec.structs.replace(deployment.previous, workers=deployment.spec.workers)
            deployment = with_spec(deployment, earlier)
        if request.update is not None:
            spec = changed(deployment.spec, request.update)
            self._check_spec(group, spec)
            deployment = with_spec(deployment, spec)
        if request.workers is not None:
            spec = msgspec.structs.replace(deployment.spec, workers=request.workers)
            deployment = msgspec.structs.replace(deployment, spec=spec)
        if request.is_paused is not None:
            deployment = msgspec.structs.replace(deployment, is_paused=request.is_paused)
        if deployment == latest.deployments[group]:
            return [Reply(sender, Done())]
        return self._decide(latest.with_deployment(group, deployment), group, sender)

    def on_list(self, sender: Sender) -> list[Effect]:
        live = self._nodes().live
        found = self._decisions.durable.deployments
        reports = [
            report_of(group, found[group], list(placed(group, found[group], live))) for group in sorted(found)
        ]
        return [Reply(sender, ListDeploymentsReply(deployments=reports))]

    def apply_changed(self, follow_up: FollowUp) -> list[Effect]:
        answered = [] if follow_up.sender is None else [Reply(follow_up.sender, Done())]
        return [*self.follow(), *answered]

    def _decide(self, catalog: Catalog, group: str, sender: Sender) -> list[Effect]:
        return self._decisions.decide(catalog, FollowUp("deployment_changed", group, sender))

    def _check(self, proof: str) -> None:
        if not self._is_proof(proof):
            raise ProtocolError(
                ErrorCode.FORBIDDEN,
                "deployments are changed on a machine of the broker, by the broker's user",
            )

    def _check_spec(self, group: str, spec: DeploymentSpec) -> None:
        try:
            options = _options(group, spec, 1, "tcp://127.0.0.1:1")
        except InvalidSubscription as error:
            raise ProtocolError(ErrorCode.INVALID_CONFIG, str(error)) from error
        for topic in (*spec.topics, *([options.dead_letter] if options.dead_letter else ())):
            if topic not in self._decisions.latest.topics:
                raise ProtocolError(ErrorCode.UNKNOWN_TOPIC, f"there is no topic {topic!r}")

    # -- workers

    def on_gateway(self, endpoint: str | None) -> list[Effect]:
        """Take the endpoint to which workers connect."""
        for everywhere in _EVERYWHERE:
            endpoint = (endpoint or "").replace(everywhere, "//127.0.0.1:")
        if not endpoint or endpoint == self._endpoint:
            return []
        self._endpoint = endpoint
        return self.follow()

    def follow(self) -> list[Effect]:
        """Start, replace and stop workers, so that those of the durable catalog run here."""
        if not self._endpoint:
            return []
        wanted = self._wanted()
        gone = [address for address in self._running if address not in wanted]
        new = [spec for address, spec in wanted.items() if address not in self._running]
        for address in gone:
            del self._running[address]
            self._unconfirmed.discard(address)
            if self._replacing.get(address.name) == address:
                del self._replacing[address.name]
        if self._is_first:
            self._unconfirmed = set(wanted)
        self._is_first = False
        self._running |= {spec.address: spec for spec in new}
        effects = [*self.commands.stop(gone), *self.commands.start(new)]
        for group in {address.name for address in wanted}:
            effects += self._replace_next(group, wanted)
        return effects

    def _replace_next(self, group: str, wanted: Mapping[Address, ChildSpec]) -> list[Effect]:
        if group in self._replacing:
            return []
        for address, spec in wanted.items():
            if address.name != group or not self._is_stale(address, spec):
                continue
            if _is_same_code(self._failed.get(group), spec):
                return []
            if self.commands.is_open(address):
                return []
            self._replacing[group] = address
            self._running[address] = spec
            self._unconfirmed.discard(address)
            return self.commands.replace([spec])
        return []

    def _is_stale(self, address: Address, spec: ChildSpec) -> bool:
        return self._running[address] != spec or address in self._unconfirmed

    def on_command_done(self, address: Address) -> list[Effect]:
        """Continue after the supervisor has started, stopped or replaced a worker."""
        if self._replacing.get(address.name) == address and self._peers.is_up(address):
            del self._replacing[address.name]
        return self.follow()

    def on_up(self, address: Address) -> list[Effect]:
        if address.kind != Kind.DEPLOYED:
            return []
        if self._replacing.get(address.name) == address and not self.commands.is_open(address):
            del self._replacing[address.name]
        return self.follow()

    def on_down(self, peer: PeerDown) -> list[Effect]:
        """End a replacement whose new process cannot start."""
        address = peer.address
        if not peer.quarantined or self._replacing.get(address.name) != address:
            return []
        del self._replacing[address.name]
        self._failed[address.name] = self._running[address]
        return []

    def _wanted(self) -> dict[Address, ChildSpec]:
        own, live = self._nodes()
        wanted = {}
        for group, deployment in self._decisions.durable.deployments.items():
            if deployment.is_paused:
                continue
            for number, node in enumerate(placed(group, deployment, live), 1):
                if node == own:
                    spec = _worker_spec(group, deployment, number, self._endpoint)
                    wanted[spec.address] = spec
        return wanted


def placed(group: str, deployment: Deployment, live: Sequence[str]) -> Sequence[str]:
    """Return the node of each worker: evenly over the live nodes, in an order of the group's own."""
    if not live:
        return []
    load: Counter[str] = Counter()
    nodes = []
    for number in range(1, deployment.spec.workers + 1):
        node = min(live, key=lambda each: (load[each], _draw(group, number, each)))
        load[node] += 1
        nodes.append(node)
    return nodes


def placed_one(name: str, live: Sequence[str]) -> str | None:
    """Return the node of the only process of this name."""
    return min(live, key=lambda each: _draw(name, 0, each), default=None)


def _draw(group: str, number: int, node: str) -> bytes:
    return blake2b(f"{group}/{number}/{node}".encode(), digest_size=8).digest()


def _known(catalog: Catalog, group: str) -> Deployment:
    deployment = catalog.deployments.get(group)
    if deployment is None:
        raise ProtocolError(ErrorCode.UNKNOWN_DEPLOYMENT, f"there is no deployment {group!r}")
    return deployment


def _is_same_code(failed: ChildSpec | None, spec: ChildSpec) -> bool:
    """Return True for workers of the same version, which is among the arguments."""
    return failed is not None and failed.arguments == spec.arguments


def _options(group: str, spec: DeploymentSpec, version: int, endpoint: str) -> SubscriberOptions:
    return SubscriberOptions(
        group=group,
        topics=spec.topics,
        handler=HandlerSource(path=spec.handler),
        endpoint=endpoint,
        sys_path=[spec.folder] if spec.folder else [],
        version=version,
        **options_of(spec.options),
    )


def _worker_spec(group: str, deployment: Deployment, number: int, endpoint: str) -> ChildSpec:
    spec = deployment.spec
    child = child_spec(_options(group, spec, deployment.version, endpoint), number, SUBSCRIBER_ENTRY)
    surroundings = Surroundings(
        python=spec.python,
        environment=spec.environment,
        environment_files=tuple(spec.environment_files),
        output=f"{LOGS}/{group}-{number}.log",
    )
    return msgspec.structs.replace(child, address=deployed_address(group, number), surroundings=surroundings)

"""The deployments API group, answered by the controller: subscriptions that the broker keeps and runs by itself.

deploy(group, spec, proof)                                               -> done
change_deployment(group, proof, update?, workers?, is_paused?, action?)  -> done    UNKNOWN_DEPLOYMENT if there is none
list_deployments()                                                       -> deployments, without values of variables
read_deployment_output(group, worker?, lines?, positions)                -> texts that workers have printed on this node

A deployment runs code with the rights of the broker's user. So a change needs a proof that its sender is that user: a
text that each supervisor writes to its run directory, which only this user can read. Any other sender is refused with
FORBIDDEN. In a cluster every node's controller makes these changes, and each has the proof of its own node.
"""

import hmac
from hashlib import blake2b
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

from .message import Reply, Request

MAX_WORKERS = 1_000
Workers = Annotated[int, Meta(ge=1, le=MAX_WORKERS)]
Text = Annotated[str, Meta(max_length=4_096)]
Action = Literal["rollback", "delete"]


class DeploymentSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The code of a deployment and the way to run it. Paths are those of every node that runs it."""

    handler: Text
    """`module:function`."""
    topics: Annotated[list[str], Meta(min_length=1, max_length=100)]
    workers: Workers = 1
    options: dict[str, Any] = {}
    """Options of a hosted subscription."""
    folder: Text = ""
    """Folder in which modules are searched first."""
    python: Text = ""
    """Path of the Python whose environment is used; empty: the broker's."""
    environment: dict[str, Text] = {}
    environment_files: list[Text] = []
    """Files of NAME=value lines, read at each start of a worker."""


class SpecChange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields to change in an update; omitted fields keep their value."""

    handler: Text | UnsetType = UNSET
    topics: Annotated[list[str], Meta(min_length=1, max_length=100)] | UnsetType = UNSET
    options: dict[str, Any] | UnsetType = UNSET
    """The options to set; the others do not change."""
    folder: Text | UnsetType = UNSET
    python: Text | UnsetType = UNSET
    environment: dict[str, Text] | UnsetType = UNSET
    """The variables to set; an empty text removes one."""
    environment_files: list[Text] | UnsetType = UNSET


class Deployment(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A deployment as it is stored."""

    spec: DeploymentSpec
    version: int = 1
    """Rises with each update and rollback."""
    is_paused: bool = False
    previous: DeploymentSpec | None = None
    """The code before the last update or rollback."""


class DeploymentReport(Struct, frozen=True, kw_only=True):
    """A deployment as it is listed."""

    group: str
    topics: list[str]
    handler: str
    workers: int
    version: int
    is_paused: bool
    options: dict[str, Any]
    folder: str
    python: str
    variables: list[str]
    """Names of the variables in the environment; their values are not shown."""
    environment_files: list[str]
    nodes: list[str]
    """The node of each worker, from the first on; empty texts on one machine."""


class Deploy(Request, tag="deploy", frozen=True):
    group: str
    spec: DeploymentSpec
    proof: str


class ChangeDeployment(Request, tag="change_deployment", frozen=True):
    group: str
    proof: str
    update: SpecChange | None = None
    workers: Workers | None = None
    is_paused: bool | None = None
    action: Action | None = None


class ListDeployments(Request, tag="list_deployments", frozen=True):
    pass


class OutputPosition(Struct, frozen=True, kw_only=True):
    worker: int
    position: Annotated[int, Meta(ge=0)]
    """Bytes from the beginning of the worker's output."""


class ReadDeploymentOutput(Request, tag="read_deployment_output", frozen=True):
    """Read the output of workers on the node that is asked, also of a group whose deployment is deleted."""

    group: str
    worker: int | None = None
    """None: of all workers."""
    lines: Annotated[int, Meta(ge=0)] | None = 100
    """The number of last lines of each worker without a position; None: all lines."""
    positions: list[OutputPosition] = field(default_factory=list)
    """The positions from which workers are read. An output that is shorter now is read from its beginning."""


DEPLOYMENT_REQUESTS = (Deploy, ChangeDeployment, ListDeployments, ReadDeploymentOutput)


class ListDeploymentsReply(Reply, kw_only=True):
    deployments: list[DeploymentReport]


class WorkerOutput(Struct, frozen=True, kw_only=True):
    worker: int
    text: str
    """Whole lines. Bytes that are not UTF-8 are replaced."""
    position: int
    """The position behind the text."""
    rest: str
    """The beginning of a line behind it, which is not ended yet."""


class ReadDeploymentOutputReply(Reply, kw_only=True):
    node: str
    """The node that has answered; empty on one machine."""
    outputs: list[WorkerOutput]
    is_complete: bool
    """False: a request with these positions reads more."""


def proof_of(secret: bytes) -> str:
    """Return the proof that a supervisor with this secret writes to its run directory."""
    return blake2b(secret, digest_size=16, person=b"operator").hexdigest()


def is_proof(given: str, secret: bytes) -> bool:
    return bool(secret) and hmac.compare_digest(given.encode(), proof_of(secret).encode())


def report_of(group: str, deployment: Deployment, nodes: list[str]) -> DeploymentReport:
    spec = deployment.spec
    return DeploymentReport(
        group=group,
        topics=spec.topics,
        handler=spec.handler,
        workers=spec.workers,
        version=deployment.version,
        is_paused=deployment.is_paused,
        options=spec.options,
        folder=spec.folder,
        python=spec.python,
        variables=sorted(spec.environment),
        environment_files=spec.environment_files,
        nodes=nodes,
    )


def changed(spec: DeploymentSpec, change: SpecChange) -> DeploymentSpec:
    """Return the spec with the fields of a change."""
    given = {
        name: value for name in change.__struct_fields__ if (value := getattr(change, name)) is not UNSET
    }
    if "options" in given:
        given["options"] = spec.options | given["options"]
    if "environment" in given:
        variables = spec.environment | given["environment"]
        given["environment"] = {name: value for name, value in variables.items() if value}
    return msgspec.structs.replace(spec, **given)


def with_spec(deployment: Deployment, spec: DeploymentSpec) -> Deployment:
    """Return the deployment with other code, and the present code as the previous one."""
    return msgspec.structs.replace(
        deployment, spec=spec, version=deployment.version + 1, previous=deployment.spec
    )

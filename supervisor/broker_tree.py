"""The broker's tree: its actors, their start order and dotted paths. The only file that names the actors.

    broker, one_for_one
      controller       has its state on disk and re-announces the partitions and coordinators by start_child
      link/NODE        in a cluster
      partitions       dynamic, concurrent; in a cluster replicas
      gateway/0        when the controller is ready; partitions become available one by one behind it
      http             if metrics are to be served
      console          if it is to be kept running
      door/tls         with a TLS endpoint
      coordinators     dynamic
      transactions     dynamic
      schedulers       dynamic
      subscribers      dynamic
      deployments      dynamic
      mirrors          dynamic

A crash restarts only the crashed actor. Stops run in reverse: the gateway closes before the actors behind it.
"""

from typing import Any, Literal

from ..transport.addresses import CONSOLE, CONTROLLER, HTTP, Address, Kind, link_address
from ..transport.protocol.control import EVERYBODY, ChildSpec
from .child_spec import DynamicSpec, SupervisorSpec

Role = Literal["broker", "worker"]
"""Trees that a supervisor can have: a whole broker, or the subscribers of a worker outside it."""
GATEWAY = Address(Kind.GATEWAY, number=0)
TLS_DOOR = Address(Kind.DOOR, "tls")
_PACKAGE = __package__.rpartition(".")[0]
CLUSTER_IMPORT = f"{_PACKAGE}.actors.controller.cluster_import"
"""Module that imports a stopped broker's catalog into a cluster."""
RECOVERY = f"{_PACKAGE}.actors.controller.recovery"
"""Module that repairs a stopped broker's data directory."""
BACKUP = f"{_PACKAGE}.actors.backup"
"""Package that makes, restores and verifies backups."""


def broker_tree(
    endpoint: str,
    controller_arguments: dict[str, Any],
    link_arguments: dict[str, Any] | None = None,
    security: dict[str, Any] | None = None,
    http_arguments: dict[str, Any] | None = None,
    console_arguments: dict[str, Any] | None = None,
    tls: dict[str, Any] | None = None,
    *,
    is_audited: bool = False,
) -> SupervisorSpec:
    """Return the tree. `link_arguments` are those of the link of a cluster's node, `security` those of the gateway's
    keys, `http_arguments` and `console_arguments` those of the actors of these names, `tls` those of the TLS
    door; with `is_audited` it records administrative acts."""
    controller = "process" if link_arguments is None else "clustered_process"
    links = () if link_arguments is None else (_link(link_arguments),)
    http = () if http_arguments is None else (_http(http_arguments),)
    console = () if console_arguments is None else (_console(console_arguments),)
    doors = () if tls is None else (_tls_door(tls),)
    return SupervisorSpec(
        name="broker",
        children=(
            ChildSpec(
                address=CONTROLLER,
                start=f"{_PACKAGE}.actors.controller.{controller}:main",
                arguments=controller_arguments,
                directory=EVERYBODY,
            ),
            *links,
            DynamicSpec(name="partitions", kind=Kind.PARTITION),
            DynamicSpec(name="replicas", kind=Kind.REPLICA),
            ChildSpec(
                address=GATEWAY,
                start=f"{_PACKAGE}.actors.gateway.process:main",
                arguments={
                    "endpoint": endpoint,
                    "is_clustered": link_arguments is not None,
                    "node": "" if link_arguments is None else link_arguments["node"],
                    "security": security,
                    "is_audited": is_audited,
                },
                directory=EVERYBODY,
            ),
            *http,
            *console,
            *doors,
            DynamicSpec(name="coordinators", kind=Kind.COORDINATOR),
            DynamicSpec(name="transactions", kind=Kind.TRANSACTIONS),
            DynamicSpec(name="schedulers", kind=Kind.SCHEDULER),
            DynamicSpec(name="subscribers", kind=Kind.SUBSCRIBER),
            DynamicSpec(name="deployments", kind=Kind.DEPLOYED),
            DynamicSpec(name="mirrors", kind=Kind.MIRROR),
        ),
    )


def worker_tree() -> SupervisorSpec:
    """Return the tree of a worker outside the broker, to which subscribers are added."""
    return SupervisorSpec(name="worker", children=(DynamicSpec(name="subscribers", kind=Kind.SUBSCRIBER),))


def _link(arguments: dict[str, Any]) -> ChildSpec:
    return ChildSpec(
        address=link_address(arguments["node"]),
        start=f"{_PACKAGE}.actors.link.process:main",
        arguments=arguments,
        directory=EVERYBODY,
    )


def _http(arguments: dict[str, Any]) -> ChildSpec:
    return ChildSpec(address=HTTP, start=f"{_PACKAGE}.actors.http.process:main", arguments=arguments)


def _console(arguments: dict[str, Any]) -> ChildSpec:
    return ChildSpec(address=CONSOLE, start=f"{_PACKAGE}.actors.console.process:main", arguments=arguments)


def _tls_door(arguments: dict[str, Any]) -> ChildSpec:
    return ChildSpec(
        address=TLS_DOOR,
        start=f"{_PACKAGE}.actors.door.process:main",
        arguments=arguments,
        directory=(Kind.GATEWAY,),
    )


def preloaded_modules(role: Role, *, with_http: bool = False) -> list[str]:
    """Return the modules that the fork server loads, so that a child starts quickly.

    Names only: never imported here.
    """
    others = ("controller", "partition", "gateway", "coordinator", "transactions", "scheduler")
    http = ("http",) if with_http else ()
    actors = (*others, *http, "subscriber") if role == "broker" else ("subscriber",)
    return [
        "crc32c",
        f"{_PACKAGE}.supervisor.child",
        f"{_PACKAGE}.supervisor.forking",
        *(f"{_PACKAGE}.actors.{actor}.process" for actor in actors),
        f"{_PACKAGE}.supervisor.preload",
    ]

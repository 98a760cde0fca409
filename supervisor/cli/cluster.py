"""`planaria cluster`: show and operate the nodes and replicas of a cluster, through any of its nodes.

Every change is in the metadata store when the broker answers, and the controllers carry it out. The commands then show
the progress until it is done. One that is interrupted can be repeated: it changes nothing twice, and shows the rest.
"""

import importlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from ...transport import patterns
from ...transport.protocol.cluster import ClusterStatusReply, NodeAction, PartitionMove
from ..broker_tree import CLUSTER_IMPORT
from ..config import BrokerConfig
from ..data_directory import DataDirectoryError, locked, wait_for_predecessors
from ..node import NodeIdentity, save_identity
from .cluster_report import (
    Progress,
    draining,
    electing,
    leaving,
    moves_table,
    moving,
    nodes_table,
    overview,
    partition_of,
    refusals,
)
from .connection import DEFAULT_ENDPOINT, ConnectOption, JsonOption, attached
from .failures import CommandFailed
from .help_text import Command, Group
from .output import error_console, note, plural, print_json, show

if TYPE_CHECKING:
    from ...transport.client.cluster_admin import ClusterAdmin

app = typer.Typer(
    cls=Group, no_args_is_help=True, help="Show and operate the nodes and replicas of a cluster."
)

POLL_S = 0.3

NodeArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="NODE", show_default=False, help='Name shown by "planaria cluster nodes".')
]
ForceOption: TypeAlias = Annotated[
    bool, typer.Option("--force", help="Do it even if partitions would be below their min_in_sync_replicas.")
]
TimeoutOption: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        min=0.0,
        metavar="SECONDS",
        show_default=False,
        help="Longest wait; the cluster continues the work afterwards.",
    ),
]


@contextmanager
def _operating(endpoint: str) -> Iterator["ClusterAdmin"]:
    from ...transport.client.cluster_admin import ClusterAdmin  # noqa: PLC0415

    with attached(endpoint) as client:
        yield ClusterAdmin.over(client)


@app.command(cls=Command)
def status(as_json: JsonOption = False, connect: ConnectOption = DEFAULT_ENDPOINT) -> None:
    """Show the nodes and all partitions: replicas, leaders, and those that are in sync.

    --json: {"cluster", "node", "leading", "nodes": [{"node", "state",
    "endpoint", "peer_endpoint", "rack", "cordoned", "draining", "leaving",
    "stopping", "stop_refusal", "replicas", "leaders", "under_replicated"}],
    "partitions": [{"topic", "partition", "replicas", "target", "leader", "leader_epoch", "in_sync",
    "eligible", "unclean_epochs", "offline", "under_replicated"}], "unplaced"}
    """
    with _operating(connect) as operator:
        found = operator.status()
    if as_json:
        print_json(found)
    else:
        show(overview(found))


@app.command(cls=Command)
def nodes(as_json: JsonOption = False, connect: ConnectOption = DEFAULT_ENDPOINT) -> None:
    """List the nodes.

    --json: {"nodes": [...]} as "cluster status"
    """
    with _operating(connect) as operator:
        found = operator.status()
    if as_json:
        print_json({"nodes": found.nodes})
    else:
        show(nodes_table(found.nodes))
        for line in refusals(found.nodes):
            show(line)


@app.command(cls=Command)
def keys(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", show_default=False, help="File to write, mode 0600.")
    ],
) -> None:
    """Create the keys by which the nodes of a cluster authenticate each other.

    Make them once, copy the file to all nodes, and start each with --peer-keys FILE.

    Example:
      planaria cluster keys /etc/planaria/peers.key
    """
    from ...transport.security.key_files import new_key_pair, write_key_file  # noqa: PLC0415

    write_key_file(file, new_key_pair(), "the nodes of a cluster")
    note(f"wrote {file}: copy it to all nodes, and start each with --peer-keys")


@app.command(cls=Command)
def cordon(
    node: NodeArgument, as_json: JsonOption = False, connect: ConnectOption = DEFAULT_ENDPOINT
) -> None:
    """Give a node no new replicas. It keeps those that it has.

    --json: {"node", "action"}
    """
    _change(node, "cordon", f"{node} gets no new replicas", as_json, connect)


@app.command(cls=Command)
def uncordon(
    node: NodeArgument, as_json: JsonOption = False, connect: ConnectOption = DEFAULT_ENDPOINT
) -> None:
    """End the cordon, drain or decommission of a node.

    --json: {"node", "action"}
    """
    _change(node, "uncordon", f"{node} may hold replicas and lead", as_json, connect)


def _change(node: str, action: NodeAction, done: str, as_json: bool, connect: str) -> None:
    with _operating(connect) as operator:
        operator.change(node, action)
    if as_json:
        print_json({"node": node, "action": action})
    else:
        note(done)


@app.command(cls=Command)
def drain(
    node: NodeArgument,
    force: ForceOption = False,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Move all leaders away from a node, before it is stopped temporarily. It keeps its replicas.

    Refused if partitions would be below their min_in_sync_replicas without
    the node. "planaria cluster uncordon NODE" ends it.

    --json: {"node", "action"}
    """
    with _operating(connect) as operator:
        operator.change(node, "drain", force=force)
        _wait(operator, draining(node), timeout)
    if as_json:
        print_json({"node": node, "action": "drain"})
    else:
        note(
            f'{node} leads no partitions and can be stopped; "planaria cluster uncordon {node}" lets it lead again'
        )


@app.command(cls=Command)
def decommission(
    node: NodeArgument,
    force: ForceOption = False,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Move all replicas away from a node, before it is stopped for good. A node that is down may leave as well.

    Refused if the other nodes are too few for the replicas. "planaria
    cluster uncordon NODE" ends it at any time.

    --json: {"node", "action"}
    """
    with _operating(connect) as operator:
        operator.change(node, "leave", force=force)
        _wait(operator, leaving(node), timeout)
    if as_json:
        print_json({"node": node, "action": "leave"})
    else:
        note(f'{node} has no replicas: stop it, then "planaria cluster uncordon {node}" removes its name')


@app.command(cls=Command)
def rebalance(
    is_plan: Annotated[bool, typer.Option("--plan", help="Only show the moves.")] = False,
    is_applied: Annotated[bool, typer.Option("--apply", help="Make the moves.")] = False,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Spread replicas and preferred leaders evenly over the nodes, ten partitions at a time.

    Examples:
      planaria cluster rebalance --plan
      planaria cluster rebalance --apply

    --json: {"moves": [{"topic", "partition", "replicas"}], "applied"}
    """
    if is_plan == is_applied:
        raise typer.BadParameter("give --plan to see the moves, or --apply to make them")
    with _operating(connect) as operator:
        moves = operator.plan()
        before = operator.status()
        if is_applied:
            _move(operator, moves, timeout)
    if as_json:
        print_json({"moves": moves, "applied": is_applied})
    elif not moves:
        note("replicas are spread evenly: nothing to move")
    elif is_applied:
        note(f"{plural(len(moves), 'partition')} moved")
    else:
        show(moves_table(moves, before))


@app.command(cls=Command)
def reassign(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", show_default=False, help="Topic to move.")],
    replicas: Annotated[
        str,
        typer.Option(
            "--replicas", metavar="NODES", show_default=False, help="Nodes of its replicas, such as n1,n2,n3."
        ),
    ],
    partition: Annotated[
        int | None,
        typer.Option(
            "--partition", "-p", min=0, metavar="N", show_default=False, help="Only this partition."
        ),
    ] = None,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Move the replicas of a topic to these nodes; more or fewer of them than before are possible.

    The nodes become preferred leaders of its partitions in turn. With
    --partition the first node is the preferred leader. To withdraw a move in
    progress, give the nodes from before it.

    Examples:
      planaria cluster reassign ORDERS --replicas n1,n2,n3
      planaria cluster reassign ORDERS --partition 2 --replicas n4,n1

    --json: {"moves": [{"topic", "partition", "replicas"}], "applied"}
    """
    names = [name for name in (each.strip() for each in replicas.split(",")) if name]
    if not names or len(set(names)) < len(names):
        raise typer.BadParameter(
            f"{replicas!r} are not different nodes, such as n1,n2,n3", param_hint="--replicas"
        )
    with _operating(connect) as operator:
        moves = operator.moves_to(topic, names, partition)
        _move(operator, moves, timeout)
    if as_json:
        print_json({"moves": moves, "applied": True})
    else:
        note(f"{plural(len(moves), 'partition')} of {topic} on {', '.join(names)}")


@app.command(cls=Command)
def elect(
    partition: Annotated[
        str,
        typer.Argument(metavar="TOPIC/N", show_default=False, help="Partition to lead, such as ORDERS/0."),
    ],
    is_unclean: Annotated[
        bool,
        typer.Option(
            "--unclean", help="Elect a replica that may lack committed records, if no other one is alive."
        ),
    ] = False,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Let the preferred replica of a partition lead: the first one of its replicas.

    With --unclean, a partition that is offline is led by any replica that is
    alive. COMMITTED RECORDS THAT IT LACKS ARE LOST. Start the nodes that were in
    sync instead, if they can be started.

    --json: {"topic", "partition", "leader", "leader_epoch"}
    """
    topic, _, number = partition.rpartition("/")
    if not topic or not number.isascii() or not number.isdigit():
        raise typer.BadParameter(f"{partition!r} is not a partition such as ORDERS/0", param_hint="TOPIC/N")
    with _operating(connect) as operator:
        operator.elect(topic, int(number), unclean=is_unclean)
        found = _wait(operator, electing(topic, int(number)), timeout)
    report = partition_of(found, topic, int(number))
    if as_json:
        print_json(
            {
                "topic": topic,
                "partition": report.partition,
                "leader": report.leader,
                "leader_epoch": report.leader_epoch,
            }
        )
    else:
        note(f"{topic}/{report.partition} is led by {report.leader} in epoch {report.leader_epoch}")


# -- progress


@app.command("import", cls=Command)
def import_(
    node: Annotated[
        str, typer.Option("--node", metavar="NAME", show_default=False, help="Name of the new node.")
    ],
    cluster: Annotated[
        str,
        typer.Option(
            "--cluster",
            metavar="URL",
            show_default=False,
            help="etcd://HOST:PORT,HOST:PORT/NAME of a new cluster.",
        ),
    ],
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="DIRECTORY",
            envvar="PLANARIA_DATA",
            help="Data directory of the stopped broker.",
        ),
    ] = BrokerConfig().data,
) -> None:
    """Turn the data directory of a stopped broker into that of the first node of a cluster. Nothing is copied.

    Topics, groups with their offsets, quotas, users, deployments and mirrors belong to
    the cluster from then on; each partition has one replica, on this node. An interrupted
    import can be repeated. No node of the cluster may run meanwhile.

    Examples:
      planaria cluster import --data /var/lib/planaria --node n1 --cluster etcd://a:2379,b:2379/prod
    """
    path = Path(data)
    if not path.is_dir():
        raise CommandFailed(f"there is no data directory {data}")
    if (fault := patterns.name_fault(node)) is not None:
        raise typer.BadParameter(fault, param_hint="--node")
    module = importlib.import_module(CLUSTER_IMPORT)

    def save(data_id: str) -> None:
        save_identity(path, NodeIdentity(node, data_id, cluster.rpartition("/")[2]))

    try:
        with locked(path):
            if not wait_for_predecessors(path):
                raise CommandFailed(f"actors still run in {data}")
            lines = module.import_catalog(data, cluster, node, save)
    except DataDirectoryError as error:
        raise CommandFailed(str(error)) from error
    for line in lines:
        note(line)
    note(f'start it with "planaria serve --node {node} --cluster {cluster} --data {data}" and its endpoints')


def _move(operator: "ClusterAdmin", moves: list[PartitionMove], timeout_s: float | None) -> None:
    """Make the moves, a few at a time."""
    ends_at = None if timeout_s is None else time.monotonic() + timeout_s
    from ...transport.client.cluster_admin import MOVES_IN_PROGRESS  # noqa: PLC0415

    for first in range(0, len(moves), MOVES_IN_PROGRESS):
        some = moves[first : first + MOVES_IN_PROGRESS]
        operator.reassign(some)
        rest_s = None if ends_at is None else max(0.0, ends_at - time.monotonic())
        _wait(operator, moving(some), rest_s)


def _wait(operator: "ClusterAdmin", progress: Progress, timeout_s: float | None) -> ClusterStatusReply:
    """Show the progress until the change is done. Raises CommandFailed after the timeout."""
    ends_at = None if timeout_s is None else time.monotonic() + timeout_s
    shown = ""
    while left := progress(found := operator.status()):
        if left != shown:
            shown = left
            error_console().print(left, soft_wrap=True)
        if ends_at is not None and time.monotonic() >= ends_at:
            raise CommandFailed(
                f"{left} after {timeout_s:g} s; the cluster continues: run the command again to see the progress"
            )
        time.sleep(POLL_S)
    return found

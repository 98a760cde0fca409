"""`planaria deploy`: subscriptions that the broker keeps, and runs by itself.

A change is made on a machine of the broker, by its user: it carries the proof that this user alone can read.
"""

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any, TypeAlias

import msgspec
import typer
from msgspec import UNSET

from ...transport.endpoints import listed_endpoints
from ...transport.keywords import SubscriberConfig
from ...transport.protocol.deployments import (
    ChangeDeployment,
    Deploy,
    DeploymentSpec,
    ListDeployments,
    ListDeploymentsReply,
    SpecChange,
)
from ...transport.protocol.message import Done
from .confirmation import YesOption, confirm
from .connection import DEFAULT_ENDPOINT, ConnectOption, JsonOption, attached
from .deployed_output import LinesOption, show_output
from .failures import CommandFailed
from .help_text import Command, Group
from .output import note, plural, print_json, print_table
from .settings import parse_settings
from .tables import Listing

CREATE = "create"


class DeployGroup(Group):
    """`deploy GROUP TOPIC ...` is `deploy create GROUP TOPIC ...`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = [CREATE, *args]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=DeployGroup,
    no_args_is_help=True,
    help="Run handlers as deployments: the broker stores them, restarts them, and spreads them over a cluster."
    " planaria deploy GROUP TOPIC is planaria deploy create GROUP TOPIC.",
)

GroupArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="GROUP", show_default=False, help="Consumer group of the deployment.")
]
HandlerOption: TypeAlias = Annotated[
    str | None, typer.Option("--handler", metavar="MODULE:FUNCTION", help="The handler.")
]
FolderOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--app-dir", metavar="DIRECTORY", help="Folder of the modules, on every node."),
]
PythonOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--python",
        metavar="PATH",
        help="Python of the virtual environment to use; that of the broker by default.",
    ),
]
VariablesOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--env", metavar="NAME=VALUE", help="Variable of the handler's environment. Repeatable."),
]
FilesOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--env-from-file", metavar="FILE", help="File with variables, read at each start. Repeatable."
    ),
]
SettingsOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Option of the subscription, such as retries=5. Repeatable."
    ),
]
WorkersOption: TypeAlias = Annotated[
    int, typer.Option("--workers", min=1, max=1_000, metavar="N", help="Number of processes.")
]
UncheckedOption: TypeAlias = Annotated[
    bool, typer.Option("--no-check", help="Do not load the handler first.")
]


@app.command(CREATE, cls=Command)
def create(
    group: GroupArgument,
    topics: Annotated[
        list[str], typer.Argument(metavar="TOPIC", show_default=False, help="The topics to handle.")
    ],
    handler: HandlerOption = None,
    workers: WorkersOption = 1,
    settings: SettingsOption = None,
    folder: FolderOption = None,
    python: PythonOption = None,
    variables: VariablesOption = None,
    files: FilesOption = None,
    is_unchecked: UncheckedOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Deploy a handler. The broker runs it from now on, also after restarts.

    Examples:
      planaria deploy billing ORDERS --handler shop.billing:charge --workers 3
      planaria deploy billing ORDERS --handler shop:charge --python /srv/shop/.venv/bin/python \\
        --set retries=5 --set dead_letter=ORDERS.dlq --env-from-file /etc/shop.env
    """
    if handler is None:
        raise typer.BadParameter("name the handler: --handler module:function")
    spec = DeploymentSpec(
        handler=handler,
        topics=topics,
        workers=workers,
        options=_options(settings),
        folder=os.path.abspath(folder or os.getcwd()),
        python=_python(python) or "",
        environment=_variables(variables),
        environment_files=_files(files or []),
    )
    if not is_unchecked:
        _check(handler, spec.folder, spec.python, spec.environment)
    _ask(connect, lambda proof: Deploy(group=group, spec=spec, proof=proof))
    note(f"{group}: deployed, {plural(workers, 'worker')}")


@app.command("update", cls=Command)
def update(
    group: GroupArgument,
    handler: HandlerOption = None,
    settings: SettingsOption = None,
    folder: FolderOption = None,
    python: PythonOption = None,
    variables: VariablesOption = None,
    files: FilesOption = None,
    is_unchecked: UncheckedOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Replace the code of a deployment, one worker after another.

    Options that are not given keep their values. Without any, the present code is loaded again. --env NAME=
    removes a variable.
    """
    present = _found(connect, group)
    folder = os.path.abspath(folder) if folder is not None else None
    python = _python(python)
    if not is_unchecked:
        _check(
            handler or present.handler,
            present.folder if folder is None else folder,
            present.python if python is None else python,
            _variables(variables),
        )
    change = SpecChange(
        handler=UNSET if handler is None else handler,
        options=_options(settings) if settings else UNSET,
        folder=UNSET if folder is None else folder,
        python=UNSET if python is None else python,
        environment=_variables(variables) if variables else UNSET,
        environment_files=UNSET if files is None else _files(files),
    )
    _ask(connect, lambda proof: ChangeDeployment(group=group, proof=proof, update=change))
    note(f"{group}: the workers are replaced one after another")


@app.command("scale", cls=Command)
def scale(
    group: GroupArgument,
    workers: Annotated[
        int, typer.Argument(metavar="N", min=1, max=1_000, show_default=False, help="Number of processes.")
    ],
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Change the number of workers of a deployment."""
    _ask(connect, lambda proof: ChangeDeployment(group=group, proof=proof, workers=workers))
    note(f"{group}: {plural(workers, 'worker')}")


@app.command("rollback", cls=Command)
def rollback(group: GroupArgument, connect: ConnectOption = DEFAULT_ENDPOINT) -> None:
    """Return to the code before the last update: its handler, folder, Python, options and environment."""
    _ask(connect, lambda proof: ChangeDeployment(group=group, proof=proof, action="rollback"))
    note(f"{group}: the workers are replaced one after another")


@app.command("pause", cls=Command)
def pause(group: GroupArgument, connect: ConnectOption = DEFAULT_ENDPOINT) -> None:
    """Stop the workers of a deployment, until it is resumed. Running records are finished."""
    _ask(connect, lambda proof: ChangeDeployment(group=group, proof=proof, is_paused=True))
    note(f"{group}: paused")


@app.command("resume", cls=Command)
def resume(group: GroupArgument, connect: ConnectOption = DEFAULT_ENDPOINT) -> None:
    """Start the workers of a paused deployment again."""
    _ask(connect, lambda proof: ChangeDeployment(group=group, proof=proof, is_paused=False))
    note(f"{group}: resumed")


@app.command("delete", cls=Command)
def delete(
    group: GroupArgument, is_confirmed: YesOption = False, connect: ConnectOption = DEFAULT_ENDPOINT
) -> None:
    """Delete a deployment. Its workers finish their records and exit. The group and its offsets are kept."""
    confirm(f"deployment {group!r}", is_confirmed=is_confirmed)
    _ask(connect, lambda proof: ChangeDeployment(group=group, proof=proof, action="delete"))
    note(f"{group}: deleted")


@app.command("list", cls=Command)
def list_deployments(as_json: JsonOption = False, connect: ConnectOption = DEFAULT_ENDPOINT) -> None:
    """List the deployments. Values of variables are not shown.

    --json: {"deployments": [{"group", "topics", "handler", "workers", "version",
    "is_paused", "options", "folder", "python", "variables", "environment_files",
    "nodes"}]}
    """
    with attached(connect) as client:
        found = client._ask(ListDeployments(), ListDeploymentsReply).deployments
    if as_json:
        print_json({"deployments": msgspec.to_builtins(found)})
        return
    if not found:
        note("there are no deployments")
        return
    rows = [
        (
            each.group,
            ", ".join(each.topics),
            each.handler,
            str(each.workers),
            str(each.version),
            "paused" if each.is_paused else ", ".join(sorted(set(each.nodes) - {""})) or "here",
        )
        for each in found
    ]
    print_table(Listing("group", "topics", "handler", "workers", "version", "runs"), rows)


@app.command("logs", cls=Command)
def logs(
    group: GroupArgument,
    worker: Annotated[int | None, typer.Option("--worker", metavar="N", help="Only this worker.")] = None,
    lines: LinesOption = 100,
    is_following: Annotated[bool, typer.Option("--follow", "-f", help="Wait for further lines.")] = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Print the output of the workers of a deployment, each line with the number of its worker.

    In a cluster all nodes that run are asked, and NODE/ precedes the number.
    """
    show_output(connect, group, worker, lines, is_following=is_following)


def _ask(connect: str, request_of: Any) -> None:
    """Send a request with the proof of the broker's user."""
    from ..run_directory import proofs_at  # noqa: PLC0415

    proofs = [proof for each in listed_endpoints(connect) for proof in proofs_at(each)]
    if not proofs:
        raise CommandFailed(
            f"no broker of this user serves {connect} on this machine; deployments are changed where the broker runs"
        )
    with attached(connect) as client:
        client._ask(request_of(proofs[0]), Done)


def _found(connect: str, group: str) -> Any:
    with attached(connect) as client:
        found = client._ask(ListDeployments(), ListDeploymentsReply).deployments
    for each in found:
        if each.group == group:
            return each
    raise CommandFailed(f'there is no deployment {group!r}; "planaria deploy list" shows all of them')


def _options(settings: Sequence[str] | None) -> dict[str, Any]:
    return parse_settings(settings or [], sorted(SubscriberConfig.__annotations__))


def _variables(pairs: Sequence[str] | None) -> dict[str, str]:
    found = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise typer.BadParameter(f"{name!r} is not like NAME=VALUE", param_hint="--env")
        found[name] = value
    return found


def _python(python: str | None) -> str | None:
    if not python:
        return python
    # Not resolved: a virtual environment's Python is a link, and known by its own path.
    path = os.path.abspath(python)
    if not os.access(path, os.X_OK):
        raise typer.BadParameter(f"{path} cannot be run", param_hint="--python")
    return path


def _files(files: Sequence[str]) -> list[str]:
    return [os.path.abspath(file) for file in files]


def _check(handler: str, folder: str, python: str, environment: dict[str, str]) -> None:
    """Load the handler in a process like a worker's. Raises CommandFailed."""
    from ..rehearsal import RehearsalFailed, check_handler  # noqa: PLC0415

    try:
        check_handler(handler, folder, python or sys.executable, environment)
    except RehearsalFailed as error:
        raise CommandFailed(f"{error}; --no-check deploys it without this check") from error

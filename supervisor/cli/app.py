"""Assembly of all commands, and their entry point: `run` takes arguments and returns an exit code.

Owns no command. Exceptions end in failures.py, so no traceback reaches a user.
"""

import os
import platform
import sys
from collections.abc import Sequence
from functools import cache
from typing import Annotated, Any

import typer

from ... import __version__
from ...transport.security.variables import KEY_VARIABLE
from . import (
    audit,
    backup,
    cluster,
    console,
    consume,
    delayed,
    deploy,
    dlq,
    find,
    group,
    health,
    inflight,
    lag,
    mirror,
    operate,
    produce,
    quota,
    recover,
    security,
    serve,
    top,
    topic,
    trace,
    transaction,
    trials,
    worker,
)
from .failures import exit_code_for
from .help_text import Command, Group
from .output import note

PROGRAM = "planaria"
_COMPLETION_VARIABLE = "_PLANARIA_COMPLETE"

app = typer.Typer(
    name=PROGRAM,
    no_args_is_help=True,
    cls=Group,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Planaria: a publish-subscribe broker made of supervised processes that restart when they die.",
    epilog="Start with planaria demo, or run planaria serve in one terminal and the other commands"
    " in another.",
)


def version() -> None:
    """Print the versions of Planaria, Python and ZeroMQ."""
    import zmq  # noqa: PLC0415

    note(
        f"planaria {__version__} (Python {platform.python_version()}, "
        f"pyzmq {zmq.__version__}, ZeroMQ {zmq.zmq_version()})"
    )


def _on_version(is_asked: bool) -> None:
    if is_asked:
        version()
        raise typer.Exit


@app.callback()
def options(
    is_version_asked: Annotated[  # noqa: ARG001 - answered by its callback
        bool,
        typer.Option("--version", is_eager=True, callback=_on_version, help="Print the version and exit."),
    ] = False,
    key: Annotated[
        str | None,
        typer.Option(
            "--key", metavar="FILE", envvar=KEY_VARIABLE, help="Key file for a broker with authentication."
        ),
    ] = None,
) -> None:
    if key is not None:
        os.environ[KEY_VARIABLE] = key


BROKER = "The broker"
MESSAGES = "Messages"
PROOF = "See it work"

app.command(cls=Command, rich_help_panel=BROKER)(serve.serve)
app.command(cls=Command, rich_help_panel=BROKER)(console.console)
app.command(cls=Command, rich_help_panel=BROKER)(worker.worker)
app.add_typer(deploy.app, name="deploy", rich_help_panel=BROKER)
app.command(cls=Command, rich_help_panel=BROKER)(operate.status)
app.command(cls=Command, rich_help_panel=BROKER)(top.top)
app.command(cls=Command, rich_help_panel=BROKER)(health.health)
app.command(cls=Command, rich_help_panel=BROKER)(operate.kill)
app.command(cls=Command, rich_help_panel=BROKER)(operate.revive)
app.command(cls=Command, rich_help_panel=BROKER)(recover.recover)
app.command(cls=Command, rich_help_panel=BROKER)(backup.backup)
app.command(cls=Command, rich_help_panel=BROKER)(backup.restore)
app.command(cls=Command, rich_help_panel=BROKER)(backup.verify)
app.add_typer(quota.app, name="quota", rich_help_panel=BROKER)
app.add_typer(cluster.app, name="cluster", rich_help_panel=BROKER)
app.add_typer(mirror.app, name="mirror", rich_help_panel=BROKER)
app.add_typer(security.security, name="security", rich_help_panel=BROKER)
app.add_typer(security.key, name="key", rich_help_panel=BROKER)
app.add_typer(security.user, name="user", rich_help_panel=BROKER)
app.add_typer(security.acl, name="acl", rich_help_panel=BROKER)
app.command(cls=Command, rich_help_panel=BROKER)(audit.audit)
app.command(cls=Command, rich_help_panel=BROKER)(version)
app.add_typer(topic.app, name="topic", rich_help_panel=MESSAGES)
app.command(cls=Command, rich_help_panel=MESSAGES)(produce.produce)
app.command(cls=Command, rich_help_panel=MESSAGES)(consume.consume)
app.command(cls=Command, rich_help_panel=MESSAGES)(find.find)
app.command(cls=Command, rich_help_panel=MESSAGES)(trace.trace)
app.add_typer(group.app, name="group", rich_help_panel=MESSAGES)
app.command(cls=Command, rich_help_panel=MESSAGES)(lag.lag)
app.add_typer(delayed.app, name="delayed", rich_help_panel=MESSAGES)
app.add_typer(transaction.app, name="transaction", rich_help_panel=MESSAGES)
app.command(cls=Command, rich_help_panel=MESSAGES)(inflight.inflight)
app.add_typer(dlq.app, name="dlq", rich_help_panel=MESSAGES)
app.command(cls=Command, rich_help_panel=PROOF)(trials.demo)
app.command(cls=Command, rich_help_panel=PROOF)(trials.chaos)
app.command(cls=Command, rich_help_panel=PROOF)(trials.bench)


@cache
def root() -> Any:
    """Return the `planaria` command, which contains all others. Building it takes longer than most commands run."""
    return typer.main.get_command(app)


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    code = _invoke(arguments)
    try:
        # Flush now: if a closed pipe were found at interpreter exit, it would be reported as a bug.
        sys.stdout.flush()
    except OSError as error:
        return code or exit_code_for(error)
    return code


def _invoke(arguments: Sequence[str]) -> int:
    if _COMPLETION_VARIABLE in os.environ:
        app(args=list(arguments), prog_name=PROGRAM)
    try:
        with root().make_context(PROGRAM, list(arguments)) as context:
            root().invoke(context)
    except BaseException as error:  # noqa: BLE001 - the one place where they end
        return exit_code_for(error)
    return 0

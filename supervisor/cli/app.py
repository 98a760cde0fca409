"""Assembly of all commands, and their entry point: `run` takes arguments and returns an exit code.

Owns no command. Exceptions end in failures.py, so no traceback reaches a user.
"""

import os
import platform
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import import_module
from typing import Annotated, Any

import typer

from ... import __version__
from ...transport.compiled import is_compiled
from ...transport.security.variables import KEY_VARIABLE
from .failures import exit_code_for
from .help_text import Command, Group
from .output import note

PROGRAM = "planaria"
_COMPLETION_VARIABLE = "_PLANARIA_COMPLETE"


def version() -> None:
    """Print the versions of Planaria, Python and ZeroMQ."""
    import zmq  # noqa: PLC0415

    note(
        f"planaria {__version__}{', compiled' * is_compiled()} (Python {platform.python_version()}, "
        f"pyzmq {zmq.__version__}, ZeroMQ {zmq.zmq_version()})"
    )


def _on_version(is_asked: bool) -> None:
    if is_asked:
        version()
        raise typer.Exit


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

_COMMANDS = {
    "serve": (BROKER, "serve:serve"),
    "console": (BROKER, "console:console"),
    "worker": (BROKER, "worker:worker"),
    "deploy": (BROKER, "deploy:app"),
    "status": (BROKER, "operate:status"),
    "top": (BROKER, "top:top"),
    "health": (BROKER, "health:health"),
    "kill": (BROKER, "operate:kill"),
    "revive": (BROKER, "operate:revive"),
    "recover": (BROKER, "recover:recover"),
    "backup": (BROKER, "backup:backup"),
    "restore": (BROKER, "backup:restore"),
    "verify": (BROKER, "backup:verify"),
    "quota": (BROKER, "quota:app"),
    "cluster": (BROKER, "cluster:app"),
    "mirror": (BROKER, "mirror:app"),
    "security": (BROKER, "security:security"),
    "key": (BROKER, "security:key"),
    "user": (BROKER, "security:user"),
    "acl": (BROKER, "security:acl"),
    "audit": (BROKER, "audit:audit"),
    "version": (BROKER, "app:version"),
    "topic": (MESSAGES, "topic:app"),
    "produce": (MESSAGES, "produce:produce"),
    "consume": (MESSAGES, "consume:consume"),
    "find": (MESSAGES, "find:find"),
    "trace": (MESSAGES, "trace:trace"),
    "group": (MESSAGES, "group:app"),
    "lag": (MESSAGES, "lag:lag"),
    "delayed": (MESSAGES, "delayed:app"),
    "transaction": (MESSAGES, "transaction:app"),
    "inflight": (MESSAGES, "inflight:inflight"),
    "dlq": (MESSAGES, "dlq:app"),
    "demo": (PROOF, "trials:demo"),
    "chaos": (PROOF, "trials:chaos"),
    "bench": (PROOF, "trials:bench"),
}
"""The panel of each command in `--help`, and where it lives, in the order of `--help`."""


def assembly(names: Iterable[str]) -> typer.Typer:
    """Return the program with these commands."""
    app = typer.Typer(
        name=PROGRAM,
        no_args_is_help=True,
        cls=Group,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="Planaria: a publish-subscribe broker made of supervised processes that are restarted when they crash.",
        epilog="Start with planaria demo, or run planaria serve in one terminal and the other commands"
        " in another.",
    )
    app.callback()(options)
    for name in names:
        panel, home = _COMMANDS[name]
        module, _, attribute = home.partition(":")
        command = getattr(import_module(f".{module}", __package__), attribute)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name, rich_help_panel=panel)
        else:
            app.command(cls=Command, rich_help_panel=panel)(command)
    return app


@cache
def root(only: str | None = None) -> Any:
    """Return the `planaria` command, which contains all others, or `only` one of them."""
    return typer.main.get_command(assembly(_COMMANDS if only is None else [only]))


def _root_for(arguments: Sequence[str]) -> Any:
    """Return the `planaria` command with what these arguments need: to load and build all commands takes longer than most
    run. Help, completion and the words about a wrong name need all.
    """
    first = arguments[0] if arguments else ""
    if first == "--version":
        first = "version"
    return root(first if first in _COMMANDS else None)


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    code = _invoke(arguments)
    try:
        # Flush now: if a closed pipe were found at interpreter exit, it would be reported as a bug.
        sys.stdout.flush()
    except OSError as error:
        code = code or exit_code_for(error)
        # The rest of the buffer must not fail again at exit, which would change the exit code.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _invoke(arguments: Sequence[str]) -> int:
    if _COMPLETION_VARIABLE in os.environ:
        assembly(_COMMANDS)(args=list(arguments), prog_name=PROGRAM)
    try:
        command = _root_for(arguments)
        with command.make_context(PROGRAM, list(arguments)) as context:
            command.invoke(context)
    except BaseException as error:  # noqa: BLE001 - the one place where they end
        return exit_code_for(error)
    return 0

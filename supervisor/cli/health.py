"""`planaria health`: the probes of a service manager or an orchestrator."""

from typing import Annotated

import typer

from ...transport.addresses import CONTROLLER
from ...transport.protocol.errors import PlanariaError
from .connection import DEFAULT_ENDPOINT, ConnectOption, attached, operating
from .failures import EXIT_FAILED, CommandFailed, describe
from .operate import CHECK_TIMEOUT_MS, EXIT_UNREACHABLE
from .output import error_console, note


def health(
    is_live: Annotated[
        bool, typer.Option("--live", help="Test whether the supervisor answers; if not, restart the broker.")
    ] = False,
    is_ready: Annotated[
        bool, typer.Option("--ready", help="Test whether clients are served. The default.")
    ] = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Test the broker for a probe: exit code 0 if it is live or ready, otherwise 1 or 2.

    --live exits with 0 as long as the supervisor answers, whatever else is
    wrong: a restart of the broker would not repair more than the supervisor
    repairs. --ready exits with 0 when a client is served by the gateway and
    the controller; in a cluster, when this node serves. Quarantined partitions
    and alarms do not matter; "planaria status --check" tests these.

    Exit codes: 0; 1 not ready; 2 no broker answers.
    """
    if is_live and is_ready:
        raise typer.BadParameter("one of --live and --ready", param_hint="--live")
    try:
        if is_live:
            with operating(connect, CHECK_TIMEOUT_MS) as link:
                link.status()
        else:
            _check_ready(connect)
    except (CommandFailed, PlanariaError) as error:
        error_console().print(f"planaria: {describe(error)}", soft_wrap=True)
        raise typer.Exit(EXIT_UNREACHABLE) from error
    note("live" if is_live else "ready")


def _check_ready(connect: str) -> None:
    with attached(connect, CHECK_TIMEOUT_MS) as client:
        states = {actor.address: actor.state for actor in client.status().actors}
        state = states.get(CONTROLLER)
        if state != "ready":
            error_console().print(f"not ready: the controller is {state or 'not started'}", soft_wrap=True)
            raise typer.Exit(EXIT_FAILED)
        client.list_topics()

"""`planaria worker`: run the handlers of an application outside the broker."""

import os
from pathlib import Path
from typing import Annotated

import typer

from .connection import DEFAULT_ENDPOINT, ConnectOption

MAX_PROCESSES = 1_000
DATA_FOLDER = "planaria-worker"


def worker(
    app: Annotated[
        str,
        typer.Argument(metavar="MODULE:APP", show_default=False, help="The application: a planaria.App."),
    ],
    processes: Annotated[
        int,
        typer.Option(
            "--processes",
            "-p",
            min=1,
            max=MAX_PROCESSES,
            metavar="N",
            help="Processes of each subscription that does not state its `workers`.",
        ),
    ] = 1,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="DIRECTORY",
            help="Folder for the state of this worker; ./planaria-worker/MODULE.APP by default.",
        ),
    ] = None,
    folder: Annotated[
        Path,
        typer.Option(
            "--app-dir", metavar="DIRECTORY", file_okay=False, exists=True, help="Folder of the modules."
        ),
    ] = Path(),
    is_watching: Annotated[
        bool, typer.Option("--watch", help="Reload when a file of the application changes.")
    ] = False,
    log_format: Annotated[
        str, typer.Option("--log-format", metavar="text|json", help="Format of log lines.")
    ] = "text",
    log_level: Annotated[
        str, typer.Option("--log-level", metavar="LEVEL", help="debug, info, warning or error.")
    ] = "info",
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Run the handlers of an application, on any machine, until Ctrl-C or SIGTERM.

    SIGHUP reloads the code: processes are replaced one after another and keep
    their partitions.

    Examples:
      planaria worker shop.billing:app --connect tcp://10.0.0.1:5570 --processes 4
      planaria worker shop.billing:app --watch
    """
    from ..worker.options import WorkerOptions  # noqa: PLC0415
    from ..worker.run import run_worker  # noqa: PLC0415

    if not _is_path(app):
        raise typer.BadParameter(f"{app!r} is not of the form module:app", param_hint="MODULE:APP")
    run_worker(
        WorkerOptions(
            app=app,
            endpoint=connect,
            folders=[os.path.abspath(folder)],
            data=data or os.path.join(DATA_FOLDER, app.replace(":", ".")),
            processes=processes,
            is_watching=is_watching,
            log_level=log_level,
            log_format=log_format,
        )
    )


def _is_path(app: str) -> bool:
    module, _, name = app.partition(":")
    parts = [*module.split("."), *name.split(".")]
    return all(part.isidentifier() for part in parts)

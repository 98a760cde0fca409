"""`planaria backup`, `restore` and `verify`: copies of a data directory.

The modules of the package named by BACKUP do the work and are imported by name: this package does not load actors.
"""

import contextlib
import importlib
import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from ..broker_tree import BACKUP
from ..data_directory import DataDirectoryError, locked, wait_for_predecessors
from ..freezing import FreezeFailed, frozen
from .connection import DEFAULT_ENDPOINT, ConnectOption, JsonOption, operating
from .failures import EXIT_FAILED, CommandFailed
from .output import bytes_text, error_console, note, plural, print_json
from .tables import VISIBLE

DEFAULT_KEEP = 7
SHOWN = 100
"""Findings that `verify` prints."""


def _module(name: str) -> Any:
    return importlib.import_module(f"{BACKUP}.{name}")


def backup(
    directory: Annotated[
        str, typer.Argument(metavar="DIRECTORY", show_default=False, help="Folder for backups.")
    ],
    keep: Annotated[
        int,
        typer.Option("--keep", min=1, metavar="N", help="Number of backups to keep; older ones are deleted."),
    ] = DEFAULT_KEEP,
    is_copy: Annotated[
        bool,
        typer.Option(
            "--copy", help="Copy closed segments instead of making hard links to the broker's files."
        ),
    ] = False,
    as_json: JsonOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Back up a running broker, on its machine and as its user.

    Stops the broker's actors for some milliseconds to link their files, and
    then copies these. The backup has every message that was acknowledged
    before. It is the state that a simultaneous kill of all processes would
    have left. Another backup into the same folder copies only new bytes.

    Example:
      planaria backup /mnt/backups/planaria

    --json: {"id", "files", "bytes", "copied_bytes", "stopped_ms"}
    """
    target = Path(os.path.abspath(directory))
    with operating(connect) as client:
        status = client.status()
    data = Path(status.data_directory)
    if not (data / "format.json").exists():
        raise CommandFailed(f"{data} is not on this machine: run the command on the broker's machine")
    if (data / "node.json").exists():
        raise CommandFailed("the broker is a node of a cluster: its copies are the replicas on other nodes")
    image, store = _module("image"), _module("store")
    with _lock_of(data):
        store.remove_staging(data)
        staging = data / f"{image.STAGING_PREFIX}{os.getpid()}"
        try:
            with frozen(status.supervisor_pid) as begun:
                taken_ms = int(time.time() * 1000)
                image.take_image(data, staging, _module("store").Files())
                stopped_ms = int((time.monotonic() - begun) * 1000)
            found = store.store_image(staging, target, str(data), taken_ms, may_link=not is_copy, keep=keep)
        except FreezeFailed as error:
            raise CommandFailed(str(error)) from error
        finally:
            store.remove_staging(data)
    if as_json:
        print_json({**found, "stopped_ms": stopped_ms})
        return
    sizes = f"{bytes_text(found['bytes'])} in {plural(found['files'], 'file')}, {bytes_text(found['copied_bytes'])} new"
    note(f"backup {found['id']:015d} in {directory}: {sizes}; the actors were stopped for {stopped_ms} ms")


def restore(
    directory: Annotated[
        str, typer.Argument(metavar="DIRECTORY", show_default=False, help="Folder with backups.")
    ],
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA", show_default=False, help="Data directory to create; it must be empty or missing."
        ),
    ],
    identity: Annotated[
        str | None,
        typer.Option(
            "--id", metavar="ID", show_default=False, help="Backup to restore; the newest by default."
        ),
    ] = None,
) -> None:
    """Restore a backup into an empty data directory. Then start a broker on it.

    Example:
      planaria restore /mnt/backups/planaria /var/lib/planaria
    """
    path = Path(os.path.abspath(data))
    existing = locked(path) if path.exists() else contextlib.nullcontext()
    try:
        with existing:
            manifest = _module("restore").restore(Path(directory), path, int(time.time() * 1000), identity)
    except DataDirectoryError as error:
        raise CommandFailed(str(error)) from error
    note(f"backup {manifest.id} is restored in {data}: {plural(len(manifest.files), 'file')}")


def verify(
    directory: Annotated[
        str,
        typer.Argument(
            metavar="DIRECTORY",
            show_default=False,
            help="Data directory of a stopped broker, or folder of backups.",
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """Read a data directory or all backups of a folder, and compare every checksum. Changes nothing.

    Exit code 0: no damage; 1: damage, each on a line. A torn tail, which the
    next start cuts since it was never acknowledged, is printed and no damage.

    --json: {"findings": [{"path", "text", "is_damage"}], "batches", "bytes"}
    """
    path = Path(directory)
    if not path.is_dir():
        raise CommandFailed(f"there is no directory {directory}")
    is_data = (path / "format.json").exists()
    try:
        with locked(path) if is_data else contextlib.nullcontext():
            if is_data and not wait_for_predecessors(path):
                raise CommandFailed(f"actors still run in {directory}")
            found = _module("verify").verify(path)
    except DataDirectoryError as error:
        raise CommandFailed(f"{error}: stop it first, or verify a backup") from error
    damage = [each for each in found.findings if each.is_damage]
    if as_json:
        print_json(found)
    else:
        for each in found.findings[:SHOWN]:
            error_console().print(f"{each.path}: {each.text}".translate(VISIBLE), soft_wrap=True)
        if len(found.findings) > SHOWN:
            error_console().print(f"and {len(found.findings) - SHOWN} more", soft_wrap=True)
        read = f"{found.batches:,} batches in {bytes_text(found.bytes)} of segments"
        note(f"{read}: {plural(len(damage), 'damaged place')}" if damage else f"{read}: no damage")
    if damage:
        raise typer.Exit(EXIT_FAILED)


@contextlib.contextmanager
def _lock_of(data: Path) -> Any:
    """Hold the lock of backups of a data directory. Raises CommandFailed if another command does."""
    import fcntl  # noqa: PLC0415

    descriptor = os.open(data / "backup.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise CommandFailed(f"another backup of {data} is being made") from error
    finally:
        os.close(descriptor)

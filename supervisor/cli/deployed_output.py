"""Output of the workers of a deployment, from their files in the data directory of a broker on this machine."""

import re
import sys
import time
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from .failures import CommandFailed

FOLDER = "logs/deployments"
POLL_S = 0.2
MAX_READ_BYTES = 16 * 1024 * 1024

LinesOption: TypeAlias = Annotated[
    int, typer.Option("--lines", "-n", min=0, metavar="N", help="Number of last lines of each worker.")
]


def show_output(data: Path, group: str, worker: int | None, lines: int, *, is_following: bool) -> None:
    """Print the last lines of each worker, then those that are written, if `is_following`. Raises CommandFailed."""
    files = _files(data, group, worker)
    if not files:
        raise CommandFailed(f"no worker of {group!r} has run on this machine")
    positions: dict[Path, int] = {}
    for number, file in files:
        _print(number, _last_lines(file, lines))
        positions[file] = file.stat().st_size
    while is_following:
        time.sleep(POLL_S)
        for number, file in _files(data, group, worker):
            size = file.stat().st_size
            start = positions.get(file, 0)
            with file.open("rb") as stream:
                stream.seek(start if size >= start else 0)
                text = stream.read(MAX_READ_BYTES)
            whole = text.rpartition(b"\n")[0]
            _print(number, whole.decode(errors="replace").splitlines() if whole else [])
            positions[file] = (start if size >= start else 0) + len(whole) + bool(whole)


def _files(data: Path, group: str, worker: int | None) -> list[tuple[int, Path]]:
    pattern = re.compile(rf"{re.escape(group)}-([0-9]+)\.log")
    folder = data / FOLDER
    found = [
        (int(name[1]), path)
        for path in (folder.iterdir() if folder.is_dir() else ())
        if (name := pattern.fullmatch(path.name)) is not None
    ]
    return sorted(each for each in found if worker in (None, each[0]))


def _last_lines(file: Path, lines: int) -> list[str]:
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - MAX_READ_BYTES))
        found = stream.read().decode(errors="replace").splitlines()
    return found[-lines:] if lines else []


def _print(number: int, lines: list[str]) -> None:
    for line in lines:
        print(f"{number} | {line}")
    sys.stdout.flush()

"""The environment of a child that does not share the supervisor's: its variables, and the file of its output. Impure.

Called in the new process, before any code of the actor runs.
"""

import os
from pathlib import Path

from ..transport.protocol.control import Surroundings
from ..transport.protocol.errors import OperatorNeeded

MAX_OUTPUT_BYTES = 16 * 1024 * 1024
"""A file of output that is larger at a start is renamed to `.1`."""


class EnvironmentUnusable(OperatorNeeded):
    """A file of variables cannot be read."""


def enter(surroundings: Surroundings, data_directory: str) -> None:
    """Redirect the output, and set the variables."""
    if surroundings.output:
        _redirect(Path(data_directory) / surroundings.output)
    for file in surroundings.environment_files:
        os.environ.update(variables_in(file))
    os.environ.update(surroundings.environment)


def variables_in(file: str) -> dict[str, str]:
    """Return the variables of a file of NAME=value lines; `#` begins a comment line. Raises EnvironmentUnusable."""
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EnvironmentUnusable(f"{file} cannot be read: {error}") from error
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        name, equals, value = entry.removeprefix("export ").partition("=")
        if not equals or not name.strip().isidentifier():
            raise EnvironmentUnusable(f"{file}, line {number}: not of the form NAME=value")
        value = value.strip()
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        found[name.strip()] = value
    return found


def _redirect(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > MAX_OUTPUT_BYTES:
        path.rename(path.with_name(path.name + ".1"))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)

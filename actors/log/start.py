"""The start of a log, kept in the name of an empty file: `<first readable offset, 20 digits>.start`.

The checkpoint records it as well. It is kept twice because a log that has lost its first segments and its checkpoint
would otherwise look like one whose retention has deleted them; and in a name because a full disk has room for a
renamed file but not for a new checkpoint, and retention must be able to delete. The higher one is correct: a start
never moves back, unless the log starts again (`truncation.py`).
"""

from collections.abc import Iterable
from pathlib import Path

from .files import Files

START_SUFFIX = ".start"


def noted_start(names: Iterable[str]) -> int | None:
    """Return the start recorded in a folder's names; None when the file is missing."""
    return max((int(path.stem) for path in map(Path, names) if _is_start(path)), default=None)


def note_start(directory: Path, files: Files, offset: int) -> None:
    """Record `offset` in the file. The caller syncs the directory. Raises StorageFull with the file unchanged."""
    target = directory / f"{offset:020d}{START_SUFFIX}"
    found = [directory / name for name in files.names(directory) if _is_start(Path(name))]
    if target in found:
        return
    if found:
        files.rename(found[-1], target)
    else:
        files.close(files.open_append(target))


def replace_start(directory: Path, files: Files, offset: int) -> None:
    """Record `offset`, be it lower than before: the log starts again there. The caller syncs the directory."""
    note_start(directory, files, offset)
    target = directory / f"{offset:020d}{START_SUFFIX}"
    for name in files.names(directory):
        if _is_start(Path(name)) and name != target.name:
            files.unlink(directory / name)


def _is_start(path: Path) -> bool:
    return path.suffix == START_SUFFIX and path.stem.isdigit()

"""Changes of the application's files, found by their times of modification. Impure."""

import os
from collections.abc import Iterable


class FileWatch:
    def __init__(self) -> None:
        self._seen: dict[str, int | None] = {}

    def follow(self, files: Iterable[str]) -> None:
        """Watch these files and no others, as they are now."""
        self._seen = {file: _modified(file) for file in files}

    def changed(self) -> list[str]:
        """Return the files that differ from when this was last called."""
        now = {file: _modified(file) for file in self._seen}
        found = [file for file, modified in now.items() if modified != self._seen[file]]
        self._seen = now
        return found


def _modified(file: str) -> int | None:
    try:
        return os.stat(file).st_mtime_ns
    except OSError:  # an editor replaces it
        return None

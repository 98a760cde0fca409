"""The guard of a log's storage. A failure is final: only a recovery can determine the contents of the disk.

Owned by `log.py`, which does every access to its files inside of it.
"""

from .errors import StorageFailed, Unreadable


class Usable:
    """A context manager that refuses access after a storage failure, and remembers a new one.

    A class and not a generator, because it is entered twice in every turn.
    """

    def __init__(self) -> None:
        self._failure: str | None = None

    def end(self, reason: str) -> None:
        self._failure = self._failure or reason

    def __enter__(self) -> None:
        if self._failure is not None:
            raise StorageFailed(f"the log failed before: {self._failure}")

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        # A bad sector does not affect data elsewhere.
        if isinstance(error, StorageFailed) and not isinstance(error, Unreadable):
            self._failure = str(error)

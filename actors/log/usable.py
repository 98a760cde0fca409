"""Whether a log's storage may still be used. A failure is final: what is on the disk only a recovery can tell.

Owned by `log.py`, which does every access to its files inside of it.
"""

from .errors import StorageFailed, Unreadable


class Usable:
    """`with` it: refuses when the storage has failed before, and remembers it when it fails now.

    A class and no generator, for it is entered twice in every turn.
    """

    def __init__(self) -> None:
        self._failure: str | None = None

    def end(self, reason: str) -> None:
        self._failure = self._failure or reason

    def __enter__(self) -> None:
        if self._failure is not None:
            raise StorageFailed(f"the log failed before: {self._failure}")

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        # A bad sector says nothing of what is written elsewhere.
        if isinstance(error, StorageFailed) and not isinstance(error, Unreadable):
            self._failure = str(error)

"""A share group's acquisitions on their way to members, so that a lost one can be taken back. Pure.

    given    recorded, not durable yet: not answered
    sent     answered; the newest MAX_TOLD, since a cancel may cross the answer
    void     cancelled: its locks were returned, and it is never answered

Called by serving.py.
"""

from collections.abc import Callable

from ....transport.machine import Sender
from .reading import Acquired

MAX_TOLD = 1_000


class Answers:
    def __init__(self) -> None:
        self._given: dict[Sender, Acquired] = {}
        self._told: dict[Sender, Acquired] = {}

    def give(self, acquired: Acquired) -> None:
        self._given[acquired.sender] = acquired

    def tell(self, acquired: Acquired) -> bool:
        """Mark it answered; return True if its request still waits."""
        if self._given.pop(acquired.sender, None) is not acquired:
            return False
        self._told[acquired.sender] = acquired
        if len(self._told) > MAX_TOLD:
            del self._told[next(iter(self._told))]
        return True

    def void(self, is_gone: Callable[[Acquired], bool], *, also_told: bool) -> list[Acquired]:
        """Remove and return the acquisitions that did not reach their members."""
        found: list[Acquired] = []
        for table in (self._given, self._told) if also_told else (self._given,):
            for acquired in [each for each in table.values() if is_gone(each)]:
                del table[acquired.sender]
                found.append(acquired)
        return found

"""Numbers the changes of the children, so that a peer that has seen one version asks for the actors since then. Pure.

A change is another state, a process, an arrival or a removal; the figures of heartbeats are none. The cost of a question
is that of the changes it finds, for any number of children. Written by census.py, read by requests.py for `status`.
"""

from collections.abc import Iterator
from itertools import takewhile
from typing import NamedTuple

from ..transport.addresses import Address

MAX_REMOVED = 1_000
"""Removed addresses that are remembered; who has not seen an older removal gets the whole list."""


class Difference(NamedTuple):
    changed: list[Address]
    removed: list[Address]


class Changes:
    def __init__(self) -> None:
        self.version = 0
        self._changed: dict[Address, int] = {}
        """Version of the last change, by address, the oldest first."""
        self._removed: dict[Address, int] = {}
        self._forgotten = 0
        """Version of the newest removal that is no longer remembered."""

    def note(self, address: Address) -> None:
        self._removed.pop(address, None)
        self._changed.pop(address, None)
        self.version += 1
        self._changed[address] = self.version

    def note_removal(self, address: Address) -> None:
        self._changed.pop(address, None)
        self.version += 1
        self._removed[address] = self.version
        if len(self._removed) > MAX_REMOVED:
            self._forgotten = self._removed.pop(next(iter(self._removed)))

    def since(self, version: int) -> Difference | None:
        """Return the addresses that have changed after a version; None if that is not known any more, or not yet."""
        if not self._forgotten <= version <= self.version:
            return None
        return Difference(_after(self._changed, version), _after(self._removed, version))


def _after(versions: dict[Address, int], version: int) -> list[Address]:
    newest: Iterator[Address] = takewhile(lambda address: versions[address] > version, reversed(versions))
    return list(newest)[::-1]

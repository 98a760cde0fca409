"""The cluster's open proposals and their purposes. Pure. Structs and a table, no decision."""

from collections.abc import Iterator
from typing import TypeAlias

from msgspec import Struct

from ....transport.machine import Sender
from ...metadata.store import Change, Guard, Propose
from .local_replicas import Write


class Registration(Struct, frozen=True):
    """This node's session."""


class Generation(Struct, frozen=True):
    """The generation of this node's data directory."""


class Takeover(Struct, frozen=True):
    """This controller is to lead."""


class Leading(Struct, frozen=True):
    """A batch of decisions of the leading controller."""


class RemovalDone(Struct, frozen=True):
    """This node has removed the files of a topic that was deleted while it was away."""


class InSyncChange(Struct, frozen=True):
    """A change of the in-sync set that a local leader asked for."""

    sender: Sender
    write: Write


class OperatorChange(Struct, frozen=True):
    """A change that an operator asked for."""

    sender: Sender


Purpose: TypeAlias = (
    Registration | Generation | Takeover | Leading | RemovalDone | Write | InSyncChange | OperatorChange
)


class Proposals:
    def __init__(self, numbers: Iterator[int]) -> None:
        """`numbers` are those of all proposals of this controller."""
        self._numbers = numbers
        self._open: dict[int, Purpose] = {}

    def propose(self, purpose: Purpose, changes: tuple[Change, ...], guards: tuple[Guard, ...]) -> Propose:
        number = next(self._numbers)
        self._open[number] = purpose
        return Propose(number, changes, guards)

    def is_open(self, kind: type[Purpose]) -> bool:
        return any(isinstance(purpose, kind) for purpose in self._open.values())

    def close(self, number: int) -> Purpose | None:
        """Return the purpose of a proposal that has its outcome; None if it was not the cluster's."""
        return self._open.pop(number, None)

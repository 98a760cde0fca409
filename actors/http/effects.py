"""Events and effects of the HTTP actor's own, beside those of every actor's loop."""

from collections.abc import Mapping
from typing import TypeAlias

from msgspec import Struct

from ...transport.machine import LoopEffect, LoopEvent


class Opened(Struct, frozen=True):
    """A client has connected."""

    connection: int
    """Never used twice."""
    host: str = ""
    """Address of the client."""


class Arrived(Struct, frozen=True):
    connection: int
    data: bytes


class Ended(Struct, frozen=True):
    """The client has closed the connection, or it has failed."""

    connection: int


class Drained(Struct, frozen=True):
    """The system has taken all data of Send effects so far."""

    connection: int


class Measured(Struct, frozen=True):
    """Bytes by process id, and the disk of the data directory."""

    memory: Mapping[int, int]
    disk_free_bytes: int
    disk_size_bytes: int


class Send(Struct, frozen=True):
    connection: int
    data: bytes


class Close(Struct, frozen=True):
    """Close a connection. Data that has not left yet is dropped; no Ended follows."""

    connection: int


class Rest(Struct, frozen=True):
    """Accept and read nothing from now on, or go on."""

    is_on: bool


class Measure(Struct, frozen=True):
    """Measure the memory of these processes, and the disk; Measured follows at once."""

    pids: tuple[int, ...]


OwnEvent: TypeAlias = Opened | Arrived | Ended | Drained | Measured
OwnEffect: TypeAlias = Send | Close | Rest | Measure
Event: TypeAlias = LoopEvent | OwnEvent
Effect: TypeAlias = LoopEffect | OwnEffect

"""Events and effects of the machine of the etcd store. Pure.

    Send          one HTTP request, on any connection to that endpoint        -> Replied, unless it takes too long
    OpenWatch     one stream of its own                                       -> WatchSaid, until it has ended
    CloseWatch    the stream is of no use; nothing of it follows
    WakeAt        the only timer; a later WakeAt replaces it                  -> Woken
    Deliver       an event for the user of the store
    GiveUp        only an operator can help

All times are in milliseconds by a clock that also counts the machine's sleep.
"""

from typing import TypeAlias

from msgspec import Struct

from ..store import Propose, StoreEvent
from .requests import Outcome, Request, WatchMessage


class Opened(Struct, frozen=True):
    """The first event."""


class Proposed(Struct, frozen=True):
    proposal: Propose


class Replied(Struct, frozen=True):
    number: int
    outcome: Outcome


class WatchSaid(Struct, frozen=True):
    number: int
    message: WatchMessage


class Woken(Struct, frozen=True):
    pass


class Closing(Struct, frozen=True):
    """The last event: the session is to end. The reply to the last Send is not waited for."""


class Send(Struct, frozen=True):
    number: int
    endpoint: int
    """Index of the endpoint."""
    request: Request
    token: str
    timeout_ms: int


class OpenWatch(Struct, frozen=True):
    number: int
    endpoint: int
    key: bytes
    end: bytes
    start_revision: int
    token: str


class CloseWatch(Struct, frozen=True):
    number: int


class WakeAt(Struct, frozen=True):
    at: int


class Deliver(Struct, frozen=True):
    event: StoreEvent


class GiveUp(Struct, frozen=True):
    message: str


EtcdEvent: TypeAlias = Opened | Proposed | Replied | WatchSaid | Woken | Closing
EtcdEffect: TypeAlias = Send | OpenWatch | CloseWatch | WakeAt | Deliver | GiveUp

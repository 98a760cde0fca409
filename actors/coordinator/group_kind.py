"""The interface of a kind of group, by which the coordinator's machine serves consumer groups and share groups alike.

Every method is called by machine.py. A request goes to the first kind that serves it; all other events go to every kind,
since a group has none before its first request.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ...transport.machine import LoopEffect, LoopEvent, Received, Sender
from ...transport.protocol.message import Request
from ...transport.protocol.topics import CatalogTopic
from ..journal.recorder import Durable
from .records import Change


class GroupKind(Protocol):
    def serves(self, request: Request) -> bool:
        """Return True if this kind answers the request, be it with a refusal."""
        ...

    def on_request(self, event: Received, now: int) -> list[LoopEffect]:
        """Handle a request. Raises ProtocolError before any change is made."""
        ...

    def forget_senders(self, is_gone: Callable[[Sender], bool], *, also_sent: bool) -> list[LoopEffect]:
        """Cancel the requests of senders that are gone; `also_sent`: the latest replies to them are lost."""
        ...

    def handle(self, event: LoopEvent, now: int) -> list[LoopEffect]:
        """Handle an event, if it concerns this kind."""
        ...

    def set_topics(self, topics: Mapping[str, CatalogTopic], now: int) -> list[LoopEffect]: ...

    def on_durable(self, durable: Durable[Change, Any], now: int) -> list[LoopEffect]:
        """Answer the requests that waited for these changes, which have been applied to the durable state."""
        ...

    def advance(self, now: int) -> list[LoopEffect]:
        """Begin all work that can begin; called after every event."""
        ...

    def gather(self, now: int) -> None:
        """Make the decisions that are made once for each flush."""
        ...

    def is_working(self) -> bool:
        """Return True if the coordinator must not fall asleep."""
        ...

    def alarms(self, now: int) -> tuple[str, ...]: ...

    def close(self) -> list[LoopEffect]:
        """Refuse the waiting requests: the actor stops."""
        ...

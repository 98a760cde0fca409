"""One user's connection to the broker: a client, and on the broker's machine a link to the supervisor beside it.

The link answers in any state of the gateway, so the page that kills the gateway sees it return. It is used only where
the broker has no authentication: the socket gives the rights of the console's own system user, whoever asks.
"""

import threading
from types import TracebackType
from typing import Any, Self

from ...transport.client.client import Client
from ...transport.client.descriptions import BrokerStatus, KilledActor
from ...transport.endpoints import listed_endpoints
from ...transport.protocol.errors import ProtocolError
from ...transport.protocol.operations import ActorState, SignalName
from ..admin_link import AdminLink, Undelivered
from ..run_directory import is_listening, supervisors_at

CLIENT_ID = "planaria-console"
REQUEST_TIMEOUT_MS = 10_000
"""Time for which a page waits for the broker."""


class BrokerLink:
    """Safe to use from several threads."""

    def __init__(self, endpoint: str, *, is_local: bool, **credentials: Any) -> None:
        """Connect in the background. `is_local`: use the supervisor's own socket where there is one."""
        self.endpoint = endpoint
        self.client = Client(
            endpoint, client_id=CLIENT_ID, request_timeout_ms=REQUEST_TIMEOUT_MS, **credentials
        )
        self._is_local = is_local
        self._lock = threading.Lock()
        self._link: AdminLink | None = None
        self._control = ""

    def status(self, after_version: int | None = None) -> BrokerStatus:
        """Return the processes of the broker, or those that have changed since. Raises ProtocolError."""
        with self._lock:
            link = self._found_link()
            if link is not None:
                try:
                    return link.status(after_version)
                except ProtocolError:
                    self._drop_link()
                    raise
        return self.client.status(after_version)

    def kill(self, address: str, signal: SignalName) -> KilledActor:
        """Send a signal to an actor. Raises ProtocolError."""
        with self._lock:
            link = self._found_link()
            if link is not None:
                try:
                    return link.kill(address, signal)
                except Undelivered:
                    self._drop_link()
        return self.client.kill(address, signal)

    def revive(self, address: str) -> ActorState:
        """Start an actor that is quarantined, asleep or waits for its restart. Raises ProtocolError."""
        with self._lock:
            link = self._found_link()
            if link is not None:
                try:
                    return link.revive(address)
                except Undelivered:
                    self._drop_link()
        return self.client.revive(address)

    def close(self) -> None:
        with self._lock:
            self._drop_link()
        self.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _found_link(self) -> AdminLink | None:
        """Return the link to the supervisor; None where the broker has authentication, or is elsewhere."""
        if not self._is_local:
            return None
        if self._link is None:
            controls = [
                control for each in listed_endpoints(self.endpoint) for control in supervisors_at(each)
            ]
            if controls:
                control = controls[0]
                self._link = AdminLink(control, lambda: not is_listening(control), REQUEST_TIMEOUT_MS)
        return self._link

    def _drop_link(self) -> None:
        """Close the link: the supervisor may have been replaced, with a socket of another name."""
        link, self._link = self._link, None
        if link is not None:
            link.__exit__()

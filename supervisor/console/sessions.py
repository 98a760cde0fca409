"""Who uses the console: everybody, where the broker has no authentication; otherwise the user of a session.

A session is a connection to the broker with the user's own token or password, so every page and act has that user's
rights and is in the audit under that name; the console has none of its own. The cookie is a random number, of which the
console keeps the hash. A restart ends all sessions.
"""

import asyncio
import hashlib
import secrets
import time
from typing import Any

from anyio import to_thread
from msgspec import Struct
from starlette.requests import Request

from ...transport.protocol.errors import PlanariaError
from .broker_link import BrokerLink
from .failures import Refused
from .feed import Feed
from .pace import count_for_user

COOKIE = "planaria-console"
IDLE_S = 8 * 3600.0
MAX_SESSIONS = 64
LOGIN_TIMEOUT_S = 20.0
FAILED_LOGIN_S = 1.0
"""Delay of the answer to a wrong password; logins wait for each other."""


class Session(Struct):
    link: BrokerLink
    feed: Feed
    user: str
    """Empty where the broker has no authentication."""
    used_at: float

    async def close(self) -> None:
        await self.feed.close()
        await to_thread.run_sync(self.link.close)


class Sessions:
    def __init__(self, endpoint: str, server_key: str | None) -> None:
        """`server_key`: the broker's public key; None: it has no authentication."""
        self.endpoint = endpoint
        self._server_key = server_key
        self._sessions: dict[str, Session] = {}
        self._open: Session | None = None
        self._login = asyncio.Lock()

    @property
    def needs_login(self) -> bool:
        return self._server_key is not None

    def of(self, request: Request) -> Session | None:
        """Return the session of a request; None if its user has to sign in."""
        if not self.needs_login:
            if self._open is None:
                link = BrokerLink(self.endpoint, is_local=True)
                self._open = Session(link, Feed(link), "", 0.0)
            return self._open
        digest = _digest(request.cookies.get(COOKIE, ""))
        found = self._sessions.get(digest)
        if found is None or time.monotonic() - found.used_at > IDLE_S:
            return None
        found.used_at = time.monotonic()
        count_for_user(request, digest)
        return found

    async def sign_in(self, *, user: str, password: str, token: str) -> str:
        """Return the cookie of a new session. Raises Refused."""
        credentials: dict[str, Any] = {"server_key": self._server_key}
        credentials |= {"token": token} if token else {"user": user, "password": password}
        async with self._login:
            await self._make_room()
            link = BrokerLink(self.endpoint, is_local=False, **credentials)
            try:
                await to_thread.run_sync(link.client.wait_for_broker, LOGIN_TIMEOUT_S)
            except PlanariaError as error:
                await to_thread.run_sync(link.close)
                await asyncio.sleep(FAILED_LOGIN_S)
                raise Refused(401, "UNAUTHENTICATED", f"the broker refused it: {error}") from error
        cookie = secrets.token_urlsafe(32)
        self._sessions[_digest(cookie)] = Session(link, Feed(link), user or "token", time.monotonic())
        return cookie

    async def sign_out(self, request: Request) -> None:
        found = self._sessions.pop(_digest(request.cookies.get(COOKIE, "")), None)
        if found is not None:
            await found.close()

    async def close(self) -> None:
        for session in (*self._sessions.values(), *([self._open] if self._open else [])):
            await session.close()

    async def _make_room(self) -> None:
        """End sessions that are not used, the oldest when there are too many."""
        now = time.monotonic()
        by_use = sorted(self._sessions.items(), key=lambda item: item[1].used_at)
        surplus = len(by_use) - MAX_SESSIONS + 1
        for position, (digest, session) in enumerate(by_use):
            if position < surplus or now - session.used_at > IDLE_S:
                del self._sessions[digest]
                await session.close()


def _digest(cookie: str) -> str:
    return hashlib.sha256(cookie.encode()).hexdigest()

"""The principals of connections, and the decision on each of their requests. Pure.

Owns the table of principals and rules from the controller, and the sessions of those who gave a token or a password in
`hello`. A connection is known by its client's CURVE public key, which every message proves.

    key of a connection                   principal
    the broker's own, of this start       internal: everything
    the one of `security init`            admin: everything
    a key in the table, not expired       the principal that has it
    that of a relayed TLS connection      the principal in the client's certificate, if it exists and is not disabled
    any other, with a session             the principal of its token or password, until that expires or is removed
    any other                             none: only `hello` is served, and in the mode `curve` not even a handshake

No decision is kept beyond a change of the table: the next request of a revoked principal is refused, and `revoked`
finds those that are parked. A principal with any restriction gets no endpoint that bypasses the gateway.

A password is checked by the gateway's process in another thread (`CheckPassword`), because it takes 50 ms.
"""

from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from ...transport.addresses import is_internal
from ...transport.machine import Received
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.groups import ListGroupsReply
from ...transport.protocol.message import Request
from ...transport.protocol.session import Hello
from ...transport.protocol.topics import ListTopicsReply
from ...transport.request_context import KEY_PREFIX
from ...transport.security.credentials import PasswordRecord, has_expired, matches, token_parts
from ...transport.security.principals import ADMIN, INTERNAL, Principal, SecurityTable
from ...transport.security.rights import Need, decide
from ...transport.security.vouchers import vouched_principal
from .needs import ANY_ON_GROUP, ANY_ON_TOPIC, OPERATES, Needs, needs_of

MAX_SESSIONS = 20_000
"""Beyond this the oldest is forgotten: its client has to send `hello` again."""
MAX_DECISIONS = 100_000
"""Decisions that are kept; beyond this all are forgotten, and made again."""


class Session(Struct, frozen=True):
    """The credential that a connection gave in `hello`."""

    principal: str
    token_id: str
    """Empty for a password."""
    password: PasswordRecord | None = None


class Granted(Struct, frozen=True):
    """A request that was permitted: it is checked again while it is parked."""

    key: str
    principal: str
    needs: Needs


class Access:
    def __init__(self, internal_key: str, admin_key: str, *, takes_sessions: bool) -> None:
        """`takes_sessions`: tokens and passwords are accepted from keys that are not in the table."""
        self._fixed = {internal_key: INTERNAL, admin_key: ADMIN}
        self._takes_sessions = takes_sessions
        self._table = SecurityTable()
        self.is_loaded = False
        """True once the controller has sent the table."""
        self._by_key: dict[str, str] = {}
        self._by_token: dict[str, str] = {}
        self._sessions: dict[str, Session] = {}
        self._decisions: dict[tuple[str, Need], bool] = {}

    def configure(self, table: SecurityTable) -> bool:
        """Replace the table; return True if it differs from the previous one."""
        self.is_loaded = True
        if table == self._table:
            return False
        self._table = table
        names = table.principals.items()
        self._by_key = {each.public_key: name for name, found in names for each in found.keys}
        self._by_token = {each.token_id: name for name, found in names for each in found.tokens}
        self._decisions.clear()
        return True

    def admits(self, key: str, wall_ms: int) -> bool | None:
        """Return True if a connection with this key may be opened; None while that is not known."""
        if self._takes_sessions or self._of_key(key, wall_ms) is not None:
            return True
        return False if self.is_loaded else None

    def principal_of(self, key: str, wall_ms: int) -> str | None:
        """Return the principal of a connection; None if it has none."""
        found = self._of_key(key, wall_ms)
        if found is not None:
            return found
        session = self._sessions.get(key)
        return None if session is None or not self._lasts(session, wall_ms) else session.principal

    def require(self, key: str, request: Request, wall_ms: int) -> Granted:
        """Return the permission of a request. Raises ProtocolError: UNAUTHENTICATED without one,
        HELLO_REQUIRED if `hello` has been sent before, FORBIDDEN without the right."""
        principal = self.principal_of(key, wall_ms)
        if principal is None:
            if not self.is_loaded:
                raise STARTING
            if request.greeted is True and key not in self._sessions and self._takes_sessions:
                raise ProtocolError(
                    ErrorCode.HELLO_REQUIRED, "no session: send `hello` again, then the request"
                )
            raise ProtocolError(
                ErrorCode.UNAUTHENTICATED,
                "this connection has no principal: its credentials are missing or revoked",
            )
        needs = needs_of(request)
        for need in needs:
            if not self.permits(principal, need):
                raise ProtocolError(ErrorCode.FORBIDDEN, f"{principal} lacks {need}")
        return Granted(key, principal, needs)

    def knows(self, name: str) -> bool:
        """Return True for a principal that exists."""
        return name in self._table.principals

    def missing(self, principal: str, request: Request) -> Need | None:
        """Return the first right that a principal lacks for a request."""
        return next((need for need in needs_of(request) if not self.permits(principal, need)), None)

    def permits(self, principal: str, need: Need) -> bool:
        if principal in (INTERNAL, ADMIN):
            return True
        key = (principal, need)
        decided = self._decisions.get(key)
        if decided is None:
            if len(self._decisions) >= MAX_DECISIONS:
                self._decisions.clear()
            rules = [rule for _, rule in self._table.rules_of(principal)]
            decided = self._decisions[key] = decide(rules, need).is_allowed
        return decided

    def still_permits(self, granted: Granted, wall_ms: int) -> ProtocolError | None:
        """Return the refusal of a parked request that is no longer permitted."""
        principal = self.principal_of(granted.key, wall_ms)
        if principal is None:
            return ProtocolError(
                ErrorCode.UNAUTHENTICATED, "the credentials of this connection have been revoked"
            )
        for need in granted.needs:
            if not self.permits(principal, need):
                return ProtocolError(ErrorCode.FORBIDDEN, f"{principal} lacks {need}")
        return None

    def sees_topic(self, granted: Granted, topic: str) -> bool:
        """Return True if the principal has any right on a topic."""
        need = OPERATES if is_internal(topic) else Need(ANY_ON_TOPIC, "topic", topic)
        return self.permits(granted.principal, need)

    def visible(self, granted: Granted, reply: Any) -> Any:
        """Return a reply of the controller without the topics and groups on which the principal has no right."""
        if isinstance(reply, ListTopicsReply):
            return replace(
                reply, topics=[each for each in reply.topics if self.sees_topic(granted, each.topic)]
            )
        if isinstance(reply, ListGroupsReply):
            needs = [(group, Need(ANY_ON_GROUP, "group", group)) for group in reply.groups]
            return replace(reply, groups=[g for g, need in needs if self.permits(granted.principal, need)])
        return reply

    # Sessions

    def greet(self, key: str, hello: Hello, wall_ms: int) -> PasswordRecord | None:
        """Open a session by the token in a `hello`, if it has one. Return the record that its password must match;
        None if it has none. Raises ProtocolError for credentials that are refused."""
        if not self.is_loaded and self._of_key(key, wall_ms) is None:
            raise STARTING
        if (hello.token or hello.user) and not (key and self._takes_sessions):
            # Without a key the connection is not encrypted and not relayed by the broker.
            raise ProtocolError(ErrorCode.UNAUTHENTICATED, "hello: no tokens and passwords are accepted here")
        if hello.token:
            parts = token_parts(hello.token)
            name = None if parts is None else self._by_token.get(parts[0])
            if parts is None or name is None or not self._has_token(name, *parts, wall_ms):
                raise _refused("token")
            self._open(key, Session(name, parts[0]))
            return None
        if hello.user:
            principal = self._table.principals.get(hello.user)
            record = None if principal is None else _usable(principal, wall_ms)
            # A user who does not exist takes as long as a wrong password.
            return record or NO_PASSWORD
        if self.principal_of(key, wall_ms) is None:
            raise ProtocolError(
                ErrorCode.UNAUTHENTICATED,
                "hello: the key of this connection is not known, or disabled or expired, and there is no token or user",
            )
        return None

    def on_password(
        self, key: str, user: str, record: PasswordRecord, wall_ms: int, *, is_right: bool
    ) -> None:
        """Open a session after a password was checked. Raises ProtocolError if it was wrong, or has been changed
        meanwhile."""
        principal = self._table.principals.get(user)
        if not is_right or principal is None or _usable(principal, wall_ms) != record:
            raise _refused("user or password")
        self._open(key, Session(user, "", record))

    def expiry_ms(self, key: str, wall_ms: int) -> int:
        """Return the time at which the credentials of a connection expire; 0: never."""
        name = self.principal_of(key, wall_ms)
        principal = None if name is None else self._table.principals.get(name)
        if principal is None:
            return 0
        vouched = vouched_principal(key)
        if vouched is not None and self._vouched(key, wall_ms) is not None:
            return vouched[1]
        for own in principal.keys:
            if own.public_key == key:
                return own.expires_ms
        session = self._sessions.get(key)
        if session is None:
            return 0
        if session.password is not None:
            return session.password.expires_ms
        return next((each.expires_ms for each in principal.tokens if each.token_id == session.token_id), 0)

    def _open(self, key: str, session: Session) -> None:
        self._sessions.pop(key, None)
        self._sessions[key] = session
        while len(self._sessions) > MAX_SESSIONS:
            del self._sessions[next(iter(self._sessions))]

    def _of_key(self, key: str, wall_ms: int) -> str | None:
        name = self._fixed.get(key)
        if name is not None:
            return name
        name = self._by_key.get(key)
        if name is None:
            return self._vouched(key, wall_ms)
        principal = self._table.principals[name]
        if principal.is_disabled:
            return None
        return (
            name if any(k.public_key == key and not has_expired(k, wall_ms) for k in principal.keys) else None
        )

    def _vouched(self, key: str, wall_ms: int) -> str | None:
        """Return the principal in the certificate of a relayed connection."""
        found = vouched_principal(key)
        if found is None:
            return None
        name, expires_ms = found
        principal = self._table.principals.get(name)
        return None if principal is None or principal.is_disabled or expires_ms <= wall_ms else name

    def _lasts(self, session: Session, wall_ms: int) -> bool:
        principal = self._table.principals.get(session.principal)
        if principal is None or principal.is_disabled:
            return False
        if session.password is not None:
            return _usable(principal, wall_ms) == session.password
        return any(
            each.token_id == session.token_id and not has_expired(each, wall_ms) for each in principal.tokens
        )

    def _has_token(self, name: str, token_id: str, digest: str, wall_ms: int) -> bool:
        principal = self._table.principals[name]
        return not principal.is_disabled and any(
            each.token_id == token_id and matches(each, digest) and not has_expired(each, wall_ms)
            for each in principal.tokens
        )


STARTING = ProtocolError(ErrorCode.ACTOR_UNAVAILABLE, "the gateway does not have the principals yet")
NO_PASSWORD = PasswordRecord(salt="AAAAAAAAAAAAAAAAAAAAAA==", scrypt="", created_ms=0)
"""The record of a user without a password: none matches it."""


def _usable(principal: Principal, wall_ms: int) -> PasswordRecord | None:
    record = principal.password
    if record is None or principal.is_disabled or has_expired(record, wall_ms):
        return None
    return record


def _refused(what: str) -> ProtocolError:
    return ProtocolError(ErrorCode.UNAUTHENTICATED, f"hello: the {what} is not accepted")


def key_of(event: Received) -> str | None:
    """Return the public key of a client's connection; None for a request of an actor, and without authentication."""
    principal = event.context.principal
    return principal.removeprefix(KEY_PREFIX) if principal.startswith(KEY_PREFIX) else None

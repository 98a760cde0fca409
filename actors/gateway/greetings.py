"""Greetings: the answers to `hello`, and the sessions that it opens in a broker with authentication. Pure.

Owns the greetings whose passwords are being checked, which takes 50 ms in another thread: one at a time, and at most
MAX_CHECKS wait. A further one is refused for now, so guesses cannot occupy the processor. A greeting whose
connection is gone is checked in vain.
"""

from msgspec import UNSET, Struct, UnsetType

from ... import __version__
from ...transport.machine import Effect, Received, Reply
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.message import PROTOCOL_VERSION
from ...transport.protocol.session import Hello, HelloReply
from ...transport.security.credentials import PasswordRecord
from .access import Access, key_of
from .audit import Audit
from .nodes import Nodes
from .quotas import Quotas

MAX_CHECKS = 100


class CheckPassword(Struct, frozen=True):
    """Compare a password with its record."""

    number: int
    password: str
    record: PasswordRecord

    def __repr__(self) -> str:
        return f"CheckPassword(number={self.number})"


class PasswordChecked(Struct, frozen=True):
    number: int
    record: PasswordRecord
    is_right: bool


class Greetings:
    def __init__(
        self,
        access: Access | None,
        audit: Audit,
        quotas: Quotas,
        nodes: Nodes,
        instance_id: str,
        run_directory: str,
    ) -> None:
        self._access = access
        self._audit = audit
        self._quotas = quotas
        self._nodes = nodes
        self._instance_id = instance_id
        self._run_directory = run_directory
        self._checked: dict[int, tuple[Received, Hello]] = {}
        """Greetings whose passwords are being checked."""
        self._last_number = 0

    def on_hello(self, event: Received, hello: Hello, wall_ms: int) -> list[Effect]:
        """Answer a greeting, or check its password first. Raises ProtocolError."""
        if hello.version != PROTOCOL_VERSION:
            raise ProtocolError(
                ErrorCode.UNSUPPORTED_VERSION,
                f"version: {hello.version} is not supported, this broker supports {PROTOCOL_VERSION}",
            )
        key = key_of(event)
        if self._access is None and (hello.token or hello.user or hello.password):
            raise ProtocolError(
                ErrorCode.INVALID_REQUEST,
                "hello: this broker has no authentication and accepts no credentials",
            )
        record = None if self._access is None or key is None else self._access.greet(key, hello, wall_ms)
        if record is None:
            return [self._welcome(event, hello, wall_ms)]
        if len(self._checked) >= MAX_CHECKS:
            raise ProtocolError(
                ErrorCode.OVERLOADED, "too many passwords are being checked", retry_after_ms=1_000
            )
        self._last_number += 1
        self._checked[self._last_number] = (event, hello)
        return [CheckPassword(self._last_number, hello.password, record)]

    def knows(self, key: str, wall_ms: int) -> bool | None:
        """Return True if connections with this key have a principal; None if that is not decided yet."""
        if self._access is None or self._access.principal_of(key, wall_ms) is not None:
            return True
        is_open = not self._access.is_loaded or any(
            key_of(event) == key for event, _ in self._checked.values()
        )
        return None if is_open else False

    def on_checked(self, checked: PasswordChecked, wall_ms: int) -> list[Effect]:
        """Answer the greeting that waited for the check of its password."""
        event, hello = self._checked.pop(checked.number)
        key = key_of(event)
        assert self._access is not None
        assert key is not None
        try:
            self._access.on_password(key, hello.user, checked.record, wall_ms, is_right=checked.is_right)
        except ProtocolError as error:
            self._audit.refuse(event, error.body)
            return [Reply(event.sender, error.body)]
        return [self._welcome(event, hello, wall_ms)]

    def _welcome(self, event: Received, hello: Hello, wall_ms: int) -> Reply:
        self._quotas.on_hello(event.sender.route[0], hello.client_id)
        principal, expires_ms = self._identity(event, wall_ms)
        reply = HelloReply(
            version=PROTOCOL_VERSION,
            server=f"planaria/{__version__}",
            instance_id=self._instance_id,
            run_directory=self._run_directory,
            nodes=self._nodes.named,
            principal=principal,
            expires_ms=expires_ms,
        )
        return Reply(event.sender, reply)

    def _identity(self, event: Received, wall_ms: int) -> tuple[str | UnsetType, int | UnsetType]:
        """Return the principal of a connection, and the time at which its credentials expire."""
        key = key_of(event)
        if self._access is None or key is None:
            return UNSET, UNSET
        return self._access.principal_of(key, wall_ms) or UNSET, self._access.expiry_ms(key, wall_ms)

"""Requests of administrators: principals, credentials and rules, over a client's connection. Called by the command line.

Secrets are made here and never leave this process: the broker receives their records.
"""

import time
from typing import Self

from ..protocol.message import Done
from ..protocol.security import (
    AddCredential,
    AddRule,
    AlterPrincipal,
    ListPrincipals,
    ListPrincipalsReply,
    ListRules,
    ListRulesReply,
    PrincipalDescription,
    RemoveCredential,
    RemovePrincipal,
    RemoveRule,
    TestAccess,
    TestAccessReply,
)
from ..security.credentials import (
    MIN_PASSWORD_CHARACTERS,
    KeyRecord,
    TokenRecord,
)
from ..security.new_credentials import hash_password, make_token
from ..security.rights import Right, Rule
from .admin_requests import AdminRequests
from .options import InvalidOption


class SecurityAdmin(AdminRequests):
    """The calls of an administrator. All raise ProtocolError and TimedOut."""

    @classmethod
    def over(cls, client: AdminRequests) -> Self:
        """Return the calls over the connection of a client."""
        return cls(client._network, client._request_timeout_ms)

    def add_key(self, principal: str, public_key: str, expires_ms: int = 0) -> None:
        """Let the holder of a key be this principal, until `expires_ms` (0: for good)."""
        record = KeyRecord(public_key=public_key, created_ms=_now_ms(), expires_ms=expires_ms)
        self._ask(AddCredential(principal=principal, key=record), Done)

    def add_token(self, principal: str, expires_ms: int = 0) -> tuple[str, str]:
        """Return a new token of this principal, and its id. It cannot be shown again."""
        token, token_id, digest = make_token()
        record = TokenRecord(token_id=token_id, sha256=digest, created_ms=_now_ms(), expires_ms=expires_ms)
        self._ask(AddCredential(principal=principal, token=record), Done)
        return token, token_id

    def set_password(self, principal: str, password: str, expires_ms: int = 0) -> None:
        """Set the password of this principal. Raises InvalidOption if it is too short."""
        if len(password) < MIN_PASSWORD_CHARACTERS:
            raise InvalidOption(f"password: it needs {MIN_PASSWORD_CHARACTERS} characters or more")
        record = hash_password(password, _now_ms(), expires_ms)
        self._ask(AddCredential(principal=principal, password=record), Done)

    def remove_credential(self, principal: str, credential: str) -> None:
        """Remove a credential: a public key, the id of a token, or `password`."""
        self._ask(RemoveCredential(principal=principal, credential=credential), Done)

    def disable(self, principal: str, is_disabled: bool = True) -> None:
        """Refuse everything to this principal, or end that."""
        self._ask(AlterPrincipal(principal=principal, is_disabled=is_disabled), Done)

    def set_roles(self, principal: str, roles: list[str]) -> None:
        """Give this principal exactly these roles."""
        self._ask(AlterPrincipal(principal=principal, roles=roles), Done)

    def remove(self, principal: str) -> None:
        """Remove this principal with its credentials and rules."""
        self._ask(RemovePrincipal(principal=principal), Done)

    def principals(self) -> list[PrincipalDescription]:
        return self._ask(ListPrincipals(), ListPrincipalsReply).principals

    def grant(self, subject: str, rule: Rule) -> None:
        """Add a rule to a principal, or to `role:NAME`."""
        self._ask(AddRule(subject=subject, rule=rule), Done)

    def revoke(self, subject: str, rule: Rule) -> None:
        """Remove a rule."""
        self._ask(RemoveRule(subject=subject, rule=rule), Done)

    def rules(self) -> dict[str, list[Rule]]:
        """Return all rules by their subjects."""
        return self._ask(ListRules(), ListRulesReply).rules

    def test(self, principal: str, right: Right, resource: str) -> TestAccessReply:
        """Return whether a principal has a right, and the rule that decides."""
        return self._ask(TestAccess(principal=principal, right=right, resource=resource), TestAccessReply)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

"""The security API group, answered by the controller: principals, their credentials, and the rules that grant rights.

    add_credential(principal, key | token | password)   -> done     makes the principal if there is none
    remove_credential(principal, credential)            -> done     a public key, the id of a token, or `password`
    alter_principal(principal, is_disabled?, roles?)    -> done
    remove_principal(principal)                         -> done     with its credentials and rules
    list_principals()                                   -> their credentials without secrets, their roles
    add_rule(subject, rule), remove_rule(subject, rule) -> done     a subject is a principal or `role:NAME`
    list_rules()                                        -> rules by subject
    test_access(principal, right, resource)             -> the decision, and the rule that makes it

All need `admin` on the cluster. The broker never receives a secret here: the client makes tokens and hashes passwords,
and sends their records. A change acts on the next request of each connection, and ends requests that are parked.
"""

from typing import Annotated

from msgspec import Meta, Struct

from ..security.credentials import KeyRecord, PasswordRecord, TokenRecord
from ..security.principals import PrincipalName, Subject
from ..security.rights import Resource, Right, Rule
from .message import Reply, Request

PASSWORD = "password"


class AddCredential(Request, tag="add_credential", frozen=True):
    """Exactly one of the three. A new password replaces the old one."""

    principal: PrincipalName
    key: KeyRecord | None = None
    token: TokenRecord | None = None
    password: PasswordRecord | None = None


class RemoveCredential(Request, tag="remove_credential", frozen=True):
    principal: PrincipalName
    credential: Annotated[str, Meta(min_length=1, max_length=64)]


class AlterPrincipal(Request, tag="alter_principal", frozen=True):
    principal: PrincipalName
    is_disabled: bool | None = None
    """None: unchanged."""
    roles: Annotated[list[PrincipalName], Meta(max_length=100)] | None = None
    """All of its roles from now on; None: unchanged."""


class RemovePrincipal(Request, tag="remove_principal", frozen=True):
    principal: PrincipalName


class ListPrincipals(Request, tag="list_principals", frozen=True):
    pass


class CredentialDescription(Struct, frozen=True, kw_only=True):
    kind: str
    """`key`, `token` or `password`."""
    credential: str
    """The public key, the id of the token, or `password`."""
    created_ms: int
    expires_ms: int
    """0: never."""


class PrincipalDescription(Struct, frozen=True, kw_only=True):
    principal: str
    is_disabled: bool
    roles: list[str]
    credentials: list[CredentialDescription]


class ListPrincipalsReply(Reply):
    principals: list[PrincipalDescription]


class AddRule(Request, tag="add_rule", frozen=True):
    subject: Subject
    rule: Rule


class RemoveRule(Request, tag="remove_rule", frozen=True):
    """Remove a rule that is equal to this one."""

    subject: Subject
    rule: Rule


class ListRules(Request, tag="list_rules", frozen=True):
    pass


class ListRulesReply(Reply):
    rules: dict[str, list[Rule]]
    """By subject."""


class TestAccess(Request, tag="test_access", frozen=True):
    principal: PrincipalName
    right: Right
    resource: Resource


class TestAccessReply(Reply):
    is_allowed: bool
    subject: str = ""
    """The principal or role whose rule decides; empty if no rule applies."""
    rule: Rule | None = None


SECURITY_REQUESTS: tuple[type[Request], ...] = (
    AddCredential,
    RemoveCredential,
    AlterPrincipal,
    RemovePrincipal,
    ListPrincipals,
    AddRule,
    RemoveRule,
    ListRules,
    TestAccess,
)

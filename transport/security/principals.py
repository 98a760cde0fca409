"""Principals: who may connect, by which credentials, with which rights. Pure.

A principal has a name, credentials, roles and rules of its own. A role is a named set of rules. Both are entries of the
catalog, and the gateway has the table of all of them.

    internal    the broker's own actors and its embedding program: everything, by the key of this start
    admin       who holds the key made by `planaria security init`: everything
    others      their rules and those of their roles; nothing while disabled
"""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated

from msgspec import Meta, Struct, field

from .credentials import KeyRecord, PasswordRecord, TokenRecord
from .rights import Rule

INTERNAL = "internal"
ADMIN = "admin"
RESERVED = frozenset({INTERNAL, ADMIN})
ROLE_PREFIX = "role:"
NAME_PATTERN = r"^[A-Za-z0-9._@-]{1,200}$"
MAX_PRINCIPALS = 10_000
MAX_RULES = 1_000
MAX_CREDENTIALS = 20

PrincipalName = Annotated[str, Meta(pattern=NAME_PATTERN)]
Subject = Annotated[str, Meta(pattern=r"^(role:)?[A-Za-z0-9._@-]{1,200}$")]
"""A principal, or `role:NAME`."""


class Principal(Struct, frozen=True, kw_only=True):
    keys: tuple[KeyRecord, ...] = ()
    tokens: tuple[TokenRecord, ...] = ()
    password: PasswordRecord | None = None
    roles: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()
    is_disabled: bool = False


class Role(Struct, frozen=True, kw_only=True):
    rules: tuple[Rule, ...] = ()


class SecurityTable(Struct, frozen=True, kw_only=True):
    """All principals and roles, by name."""

    principals: Mapping[str, Principal] = field(default_factory=dict)
    roles: Mapping[str, Role] = field(default_factory=dict)

    def rules_of(self, name: str) -> Iterator[tuple[str, Rule]]:
        """Yield the rules that apply to a principal, each with its subject."""
        principal = self.principals.get(name)
        if principal is None:
            return
        for rule in principal.rules:
            yield name, rule
        for role in principal.roles:
            if role in self.roles:
                for rule in self.roles[role].rules:
                    yield f"{ROLE_PREFIX}{role}", rule


def is_principal_name(name: str) -> bool:
    return re.fullmatch(NAME_PATTERN, name) is not None

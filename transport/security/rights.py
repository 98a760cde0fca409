"""Rights, resources and the rules that grant them. Pure.

    right     topic:                group:                        transaction:        cluster
    produce   publish               -                             write under the id  -
    consume   fetch                 join, commit                  -                   -
    queue     acquire, acknowledge  acquire, acknowledge          -                   -
    manage    create, alter,        reset, delete, configure      -                   delayed messages
              delete, truncate
    operate   -                     -                             -                   status, kill, quotas, nodes, mirrors
    admin     -                     -                             -                   everything, rules and users too

A resource is `kind:name`, `kind:prefix*`, `kind:*`, or `cluster`. A rule allows or denies rights on a resource. A
principal has its own rules and those of its roles. Everything is denied that no rule allows, and a rule that denies
wins over any that allow. `admin` allows everything, except rights that a rule denies.
"""

import re
from collections.abc import Iterable
from typing import Annotated, Literal, get_args

from msgspec import Meta, Struct

Right = Literal["produce", "consume", "queue", "manage", "operate", "admin"]
Effect = Literal["allow", "deny"]
Kind = Literal["topic", "group", "transaction", "cluster"]

RIGHTS: tuple[Right, ...] = get_args(Right)
CLUSTER: Kind = "cluster"
RESOURCE_PATTERN = r"^(cluster|(topic|group|transaction):[^*\x00-\x1f]{0,255}\*?)$"
RIGHTS_ON: dict[str, frozenset[Right]] = {
    "topic": frozenset({"produce", "consume", "queue", "manage"}),
    "group": frozenset({"consume", "queue", "manage"}),
    "transaction": frozenset({"produce"}),
    "cluster": frozenset({"manage", "operate", "admin"}),
}
"""The rights that have a meaning on each kind of resource."""

Resource = Annotated[str, Meta(pattern=RESOURCE_PATTERN, max_length=270)]


class Rule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Allow or deny rights on a resource."""

    effect: Effect = "allow"
    rights: Annotated[tuple[Right, ...], Meta(min_length=1, max_length=len(RIGHTS))]
    resource: Resource

    def __str__(self) -> str:
        return f"{self.effect} {','.join(self.rights)} {self.resource}"


class Need(Struct, frozen=True):
    """The permission that a request needs: one of these rights on one resource."""

    rights: tuple[Right, ...]
    kind: Kind
    name: str = ""

    @property
    def resource(self) -> str:
        return self.kind if self.kind == CLUSTER else f"{self.kind}:{self.name}"

    def __str__(self) -> str:
        return f"{' or '.join(self.rights)} on {self.resource[:250]}"


class Decision(Struct, frozen=True):
    is_allowed: bool
    rule: Rule | None
    """The rule that decided; None if no rule applies."""


def rule_fault(rule: Rule) -> str | None:
    """Return why a rule can never apply; None for a useful one."""
    if re.fullmatch(RESOURCE_PATTERN, rule.resource) is None:
        return (
            f"{rule.resource[:250]!r} is not topic:, group: or transaction: and a name or prefix*, or cluster"
        )
    kind, _, name = rule.resource.partition(":")
    if kind != CLUSTER and not name:
        return f"{rule.resource!r} names nothing: use {kind}:* for all"
    useless = sorted(set(rule.rights) - RIGHTS_ON[kind])
    if useless:
        possible = ", ".join(sorted(RIGHTS_ON[kind]))
        return f"{useless[0]} has no meaning on {rule.resource}: the rights there are {possible}"
    return None


def decide(rules: Iterable[Rule], need: Need) -> Decision:
    """Return whether these rules permit it, and the rule that decides. One of the rights that it needs is enough."""
    applicable = [rule for rule in rules if _covers(rule, need)]
    denied: Rule | None = None
    for right in need.rights:
        denying = next((rule for rule in applicable if rule.effect == "deny" and right in rule.rights), None)
        if denying is not None:
            denied = denying
            continue
        allowing = next((rule for rule in applicable if _allows(rule, right)), None)
        if allowing is not None:
            return Decision(True, allowing)
    return Decision(False, denied)


def _allows(rule: Rule, right: Right) -> bool:
    return rule.effect == "allow" and (right in rule.rights or "admin" in rule.rights)


def _covers(rule: Rule, need: Need) -> bool:
    if "admin" in rule.rights and rule.effect == "allow":
        return True
    if rule.resource.endswith("*"):
        return need.resource.startswith(rule.resource[:-1])
    return rule.resource == need.resource

"""Principals, roles and rules: decided, stored in the catalog, sent with it to the gateway, which enforces them. Pure."""

from msgspec.structs import replace

from ...transport.machine import Reply, Sender
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.message import Done, Request
from ...transport.protocol.security import (
    PASSWORD,
    AddCredential,
    AddRule,
    AlterPrincipal,
    CredentialDescription,
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
from ...transport.security.principals import (
    MAX_CREDENTIALS,
    MAX_PRINCIPALS,
    MAX_RULES,
    RESERVED,
    ROLE_PREFIX,
    Principal,
    Role,
    SecurityTable,
)
from ...transport.security.rights import Need, Rule, decide, rule_fault
from .catalog import Catalog
from .decisions import Decisions, FollowUp
from .effects import Effect


class Security:
    def __init__(self, decisions: Decisions) -> None:
        self._decisions = decisions

    def on_request(self, sender: Sender, request: Request) -> list[Effect]:
        match request:
            case AddCredential():
                return self._change(sender, request.principal, self._with_credential(request))
            case RemoveCredential():
                return self._change(sender, request.principal, self._without_credential(request))
            case AlterPrincipal():
                return self._change(sender, request.principal, self._altered(request))
            case RemovePrincipal():
                self._known(request.principal)
                return self._decide(sender, self._decisions.latest.without_principal(request.principal))
            case AddRule(subject=subject, rule=rule):
                return self._change_rules(sender, subject, self._with_rule(subject, rule))
            case RemoveRule(subject=subject, rule=rule):
                return self._change_rules(sender, subject, self._without_rule(subject, rule))
            case ListPrincipals():
                return [Reply(sender, self._principals())]
            case ListRules():
                return [Reply(sender, ListRulesReply(rules=self._rules()))]
            case TestAccess():
                return [Reply(sender, self._tested(request))]
        raise AssertionError(f"no request of this role: {request!r}")

    def apply_changed(self, follow_up: FollowUp) -> list[Effect]:
        return [] if follow_up.sender is None else [Reply(follow_up.sender, Done())]

    # Changes

    def _change(self, sender: Sender, name: str, principal: Principal) -> list[Effect]:
        latest = self._decisions.latest
        if latest.principals.get(name) == principal:
            return [Reply(sender, Done())]
        return self._decide(sender, latest.with_principal(name, principal))

    def _decide(self, sender: Sender, catalog: Catalog) -> list[Effect]:
        return self._decisions.decide(catalog, FollowUp("security_changed", "", sender))

    def _with_credential(self, request: AddCredential) -> Principal:
        given = [each for each in (request.key, request.token, request.password) if each is not None]
        if len(given) != 1:
            raise _invalid("exactly one of key, token and password is required")
        if request.principal in RESERVED:
            raise _invalid(f"principal: {request.principal!r} is reserved for the broker")
        latest = self._decisions.latest
        principal = latest.principals.get(request.principal)
        if principal is None:
            if len(latest.principals) >= MAX_PRINCIPALS:
                raise _invalid(f"a broker has at most {MAX_PRINCIPALS} principals")
            principal = Principal()
        if request.password is not None:
            return replace(principal, password=request.password)
        if len(principal.keys) + len(principal.tokens) >= MAX_CREDENTIALS:
            raise _invalid(f"a principal has at most {MAX_CREDENTIALS} keys and tokens: remove one first")
        if request.token is not None:
            kept = [each for each in principal.tokens if each.token_id != request.token.token_id]
            return replace(principal, tokens=(*kept, request.token))
        assert request.key is not None
        self._refuse_key_of_other(request.principal, request.key.public_key)
        own = [each for each in principal.keys if each.public_key != request.key.public_key]
        return replace(principal, keys=(*own, request.key))

    def _refuse_key_of_other(self, name: str, public_key: str) -> None:
        for other, principal in self._decisions.latest.principals.items():
            if other != name and any(each.public_key == public_key for each in principal.keys):
                raise _invalid(f"key: already belongs to the principal {other!r} already")

    def _without_credential(self, request: RemoveCredential) -> Principal:
        principal = self._known(request.principal)
        changed = replace(
            principal,
            keys=tuple(each for each in principal.keys if each.public_key != request.credential),
            tokens=tuple(each for each in principal.tokens if each.token_id != request.credential),
            password=None if request.credential == PASSWORD else principal.password,
        )
        if changed == principal:
            raise _unknown(f"{request.principal!r} has no credential {request.credential!r}")
        return changed

    def _altered(self, request: AlterPrincipal) -> Principal:
        principal = self._known(request.principal)
        if request.is_disabled is not None:
            principal = replace(principal, is_disabled=request.is_disabled)
        if request.roles is not None:
            principal = replace(principal, roles=tuple(dict.fromkeys(request.roles)))
        return principal

    def _change_rules(self, sender: Sender, subject: str, rules: tuple[Rule, ...]) -> list[Effect]:
        latest = self._decisions.latest
        if rules == self._rules_of(subject):
            return [Reply(sender, Done())]
        role = _role(subject)
        if role is None:
            principal = replace(self._known(subject), rules=rules)
            return self._decide(sender, latest.with_principal(subject, principal))
        if rules:
            return self._decide(sender, latest.with_role(role, Role(rules=rules)))
        return self._decide(sender, latest.without_role(role))

    def _with_rule(self, subject: str, rule: Rule) -> tuple[Rule, ...]:
        fault = rule_fault(rule)
        if fault is not None:
            raise _invalid(f"rule: {fault}")
        rules = self._rules_of(subject)
        if rule in rules:
            return rules
        if len(rules) >= MAX_RULES:
            raise _invalid(f"{subject!r} has {MAX_RULES} rules, and cannot have more: use prefixes or roles")
        return (*rules, rule)

    def _without_rule(self, subject: str, rule: Rule) -> tuple[Rule, ...]:
        rules = self._rules_of(subject)
        if rule not in rules:
            raise _unknown(f"{subject!r} has no rule to {rule}")
        return tuple(each for each in rules if each != rule)

    def _rules_of(self, subject: str) -> tuple[Rule, ...]:
        role = _role(subject)
        if role is None:
            return self._known(subject).rules
        found = self._decisions.latest.roles.get(role)
        return () if found is None else found.rules

    def _known(self, name: str) -> Principal:
        principal = self._decisions.latest.principals.get(name)
        if principal is None:
            raise _unknown(f"there is no principal {name!r}")
        return principal

    # Answers, from what is durable

    def _principals(self) -> ListPrincipalsReply:
        principals = sorted(self._decisions.durable.principals.items())
        return ListPrincipalsReply(principals=[_description(name, each) for name, each in principals])

    def _rules(self) -> dict[str, list[Rule]]:
        durable = self._decisions.durable
        rules = {name: list(each.rules) for name, each in sorted(durable.principals.items()) if each.rules}
        return rules | {
            f"{ROLE_PREFIX}{name}": list(each.rules) for name, each in sorted(durable.roles.items())
        }

    def _tested(self, request: TestAccess) -> TestAccessReply:
        durable = self._decisions.durable
        principal = durable.principals.get(request.principal)
        if principal is None:
            raise _unknown(f"there is no principal {request.principal!r}")
        kind, _, name = request.resource.partition(":")
        need = Need((request.right,), kind, name)  # type: ignore[arg-type]
        table = SecurityTable(principals=durable.principals, roles=durable.roles)
        rules = list(table.rules_of(request.principal))
        decision = decide([rule for _, rule in rules], need)
        subject = next((subject for subject, rule in rules if rule is decision.rule), "")
        is_allowed = decision.is_allowed and not principal.is_disabled
        return TestAccessReply(is_allowed=is_allowed, subject=subject, rule=decision.rule)


def _description(name: str, principal: Principal) -> PrincipalDescription:
    credentials = [("key", each.public_key, each) for each in principal.keys]
    credentials += [("token", each.token_id, each) for each in principal.tokens]  # type: ignore[misc]
    if principal.password is not None:
        credentials.append((PASSWORD, PASSWORD, principal.password))  # type: ignore[arg-type]
    return PrincipalDescription(
        principal=name,
        is_disabled=principal.is_disabled,
        roles=list(principal.roles),
        credentials=[
            CredentialDescription(
                kind=kind, credential=text, created_ms=each.created_ms, expires_ms=each.expires_ms
            )
            for kind, text, each in credentials
        ],
    )


def _role(subject: str) -> str | None:
    """Return the name of the role that a subject is; None for a principal."""
    return subject.removeprefix(ROLE_PREFIX) if subject.startswith(ROLE_PREFIX) else None


def _invalid(message: str) -> ProtocolError:
    return ProtocolError(ErrorCode.INVALID_CONFIG, message)


def _unknown(message: str) -> ProtocolError:
    return ProtocolError(ErrorCode.UNKNOWN_PRINCIPAL, message)

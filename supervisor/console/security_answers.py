"""Answers of the page of security: users, keys, rules, a trial of a right, and the audit. For administrators."""

from typing import Any, Literal

from msgspec import Struct, structs
from starlette.datastructures import QueryParams
from starlette.routing import Route

from ...transport.client.errors import UnknownTopic
from ...transport.client.security_admin import SecurityAdmin
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.security.rights import Effect, Right, Rule
from .answers import acts, reads
from .broker_link import BrokerLink
from .decoding import shown_message

AUDIT_TOPIC = "__audit"
MAX_ENTRIES = 200


class UserBody(Struct, forbid_unknown_fields=True):
    principal: str
    action: Literal["password", "token", "disable", "enable", "remove", "roles", "remove_credential"]
    password: str = ""
    roles: list[str] = []
    credential: str = ""


class RuleBody(Struct, forbid_unknown_fields=True):
    subject: str
    rights: list[Right]
    resource: str
    effect: Effect = "allow"
    is_removed: bool = False


def security(link: BrokerLink, _: QueryParams) -> dict[str, Any]:
    admin = SecurityAdmin.over(link.client)
    try:
        principals, rules = admin.principals(), admin.rules()
    except ProtocolError as error:
        if error.code == ErrorCode.INVALID_REQUEST:
            return {"principals": None, "message": error.message}
        raise
    return {
        "principals": principals,
        "rules": [
            {"subject": subject, **structs.asdict(rule)} for subject, found in rules.items() for rule in found
        ],
    }


def change_user(link: BrokerLink, body: UserBody) -> dict[str, str]:
    """Change a principal; a new token is answered once, and kept nowhere."""
    admin = SecurityAdmin.over(link.client)
    match body.action:
        case "password":
            admin.set_password(body.principal, body.password)
        case "token":
            return {"token": admin.add_token(body.principal)[0]}
        case "disable":
            admin.disable(body.principal)
        case "enable":
            admin.disable(body.principal, is_disabled=False)
        case "roles":
            admin.set_roles(body.principal, body.roles)
        case "remove_credential":
            admin.remove_credential(body.principal, body.credential)
        case "remove":
            admin.remove(body.principal)
    return {}


def change_rule(link: BrokerLink, body: RuleBody) -> None:
    admin = SecurityAdmin.over(link.client)
    rule = Rule(effect=body.effect, rights=tuple(body.rights), resource=body.resource)
    if body.is_removed:
        admin.revoke(body.subject, rule)
    else:
        admin.grant(body.subject, rule)


def try_right(link: BrokerLink, query: QueryParams) -> dict[str, Any]:
    right: Any = query.get("right", "")
    found = SecurityAdmin.over(link.client).test(query.get("principal", ""), right, query.get("resource", ""))
    return {name: value for name, value in structs.asdict(found).items() if name != "id"}


def audit(link: BrokerLink, _: QueryParams) -> dict[str, Any]:
    """Answer with the newest entries of the audit, which is a topic."""
    try:
        parts = link.client.describe_topic(AUDIT_TOPIC).partitions
    except UnknownTopic:
        return {"entries": None}
    ends = {each.partition: (each.log_start_offset or 0, each.high_watermark or 0) for each in parts}
    since = {number: max(start, end - MAX_ENTRIES) for number, (start, end) in ends.items()}
    found = list(link.client.read(AUDIT_TOPIC, since=since, partitions=list(since)))
    found.sort(key=lambda message: message.timestamp, reverse=True)
    return {"entries": [shown_message(each) for each in found[:MAX_ENTRIES]]}


ROUTES = [
    Route("/api/security", reads(security)),
    Route("/api/security/user", acts(UserBody, change_user), methods=["POST"]),
    Route("/api/security/rule", acts(RuleBody, change_rule), methods=["POST"]),
    Route("/api/security/test", reads(try_right)),
    Route("/api/audit", reads(audit)),
]

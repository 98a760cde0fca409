"""Every request against every right: allowed, denied, revoked; and the sessions of tokens and passwords."""

from typing import Any

import pytest
from msgspec.structs import replace

from planaria.actors.gateway.access import NO_PASSWORD, Access
from planaria.actors.gateway.machine import REQUESTS
from planaria.actors.gateway.needs import NOTHING, needs_of
from planaria.transport.protocol.data import Fetch
from planaria.transport.protocol.errors import ErrorCode, ProtocolError
from planaria.transport.protocol.message import Request
from planaria.transport.protocol.session import Cancel, Hello
from planaria.transport.security.credentials import KeyRecord, TokenRecord
from planaria.transport.security.new_credentials import hash_password, make_token
from planaria.transport.security.principals import Principal, Role, SecurityTable
from planaria.transport.security.rights import RIGHTS, RIGHTS_ON, Need, Right, Rule
from planaria.transport.security.vouchers import Voucher
from request_samples import samples

INTERNAL_KEY, ADMIN_KEY, SHOP_KEY, STRANGER = ("i" * 40, "a" * 40, "s" * 40, "x" * 40)
NOW = 1_790_000_000_000


def access(principal: Principal | None = None, *, takes_sessions: bool = True, **roles: Role) -> Access:
    made = Access(INTERNAL_KEY, ADMIN_KEY, takes_sessions=takes_sessions)
    principals = {} if principal is None else {"shop": principal}
    made.configure(SecurityTable(principals=principals, roles=roles))
    return made


def shop(*rules: Rule, **fields: Any) -> Principal:
    return Principal(keys=(KeyRecord(public_key=SHOP_KEY, created_ms=0),), rules=rules, **fields)


def rule_for(need: Need, right: Right) -> Rule:
    return Rule(rights=(right,), resource=need.resource)


def refusal(made: Access, request: Request, key: str = SHOP_KEY) -> ErrorCode | str | None:
    try:
        made.require(key, request, NOW)
    except ProtocolError as error:
        return error.code
    return None


REQUEST_SAMPLES = [(name, request) for name, _, request in samples()]


def test_every_public_request_is_tried() -> None:
    assert {type(request) for _, request in REQUEST_SAMPLES} == set(REQUESTS)


@pytest.mark.parametrize(
    ("name", "request_"), REQUEST_SAMPLES, ids=lambda each: each if isinstance(each, str) else ""
)
def test_a_request_is_served_with_exactly_the_rights_that_it_needs(name: str, request_: Request) -> None:
    needs = needs_of(request_)
    assert refusal(access(), request_, STRANGER) == ErrorCode.UNAUTHENTICATED
    assert refusal(access(), request_, ADMIN_KEY) is None
    assert refusal(access(), request_, INTERNAL_KEY) is None
    if needs == NOTHING:
        assert refusal(access(shop()), request_) is None
        return
    assert refusal(access(shop()), request_) == ErrorCode.FORBIDDEN
    everything_else = [
        Rule(rights=(right,), resource=need.resource)
        for need in needs
        for right in RIGHTS_ON[need.kind] - set(needs[0].rights)
        if right not in need.rights and right != "admin"
    ]
    assert refusal(access(shop(*everything_else)), request_) == ErrorCode.FORBIDDEN, "another right suffices"
    for chosen in range(max(len(need.rights) for need in needs)):
        rules = [rule_for(need, need.rights[chosen % len(need.rights)]) for need in needs]
        assert refusal(access(shop(*rules)), request_) is None
        for missing in range(len(rules)):
            fewer = rules[:missing] + rules[missing + 1 :]
            if rules[missing] not in fewer:
                assert refusal(access(shop(*fewer)), request_) == ErrorCode.FORBIDDEN
        denied = [
            Rule(
                effect="deny",
                rights=tuple(r for r in RIGHTS if r in RIGHTS_ON[needs[0].kind]),
                resource=needs[0].resource,
            )
        ]
        assert refusal(access(shop(*rules, *denied)), request_) == ErrorCode.FORBIDDEN


@pytest.mark.parametrize(
    ("name", "request_"), REQUEST_SAMPLES, ids=lambda each: each if isinstance(each, str) else ""
)
def test_a_parked_request_ends_when_its_principal_loses_the_right(name: str, request_: Request) -> None:
    needs = needs_of(request_)
    rules = [rule_for(need, need.rights[0]) for need in needs]
    made = access(shop(*rules))
    granted = made.require(SHOP_KEY, request_, NOW)
    assert made.still_permits(granted, NOW) is None
    if needs:
        made.configure(SecurityTable(principals={"shop": shop()}))
        ended = made.still_permits(granted, NOW)
        assert ended is not None
        assert ended.code == ErrorCode.FORBIDDEN
    made.configure(SecurityTable(principals={"shop": shop(*rules, is_disabled=True)}))
    ended = made.still_permits(granted, NOW)
    assert ended is not None
    assert ended.code == ErrorCode.UNAUTHENTICATED


def test_roles_give_their_rules_to_those_who_have_them() -> None:
    request = next(request for _, request in REQUEST_SAMPLES if type(request).__name__ == "Produce")
    [need] = needs_of(request)
    writers = Role(rules=(rule_for(need, "produce"),))
    assert refusal(access(shop(roles=("writers",)), writers=writers), request) is None
    assert refusal(access(shop(), writers=writers), request) == ErrorCode.FORBIDDEN


def test_internal_topics_need_the_right_of_an_operator() -> None:
    request = Fetch(topic="__offsets", partition=0, offset=0)
    assert (
        refusal(access(shop(Rule(rights=("consume",), resource="topic:*"))), request) == ErrorCode.FORBIDDEN
    )
    assert refusal(access(shop(Rule(rights=("operate",), resource="cluster"))), request) is None


def test_an_expired_key_has_no_principal() -> None:
    principal = Principal(keys=(KeyRecord(public_key=SHOP_KEY, created_ms=0, expires_ms=NOW),))
    made = access(principal, takes_sessions=False)
    assert made.principal_of(SHOP_KEY, NOW - 1) == "shop"
    assert made.principal_of(SHOP_KEY, NOW) is None
    assert made.admits(SHOP_KEY, NOW) is False


def test_handshakes_of_unknown_keys_are_refused_without_tokens_and_deferred_before_the_table_is_there() -> (
    None
):
    made = Access(INTERNAL_KEY, ADMIN_KEY, takes_sessions=False)
    assert made.admits(STRANGER, NOW) is None
    assert made.admits(ADMIN_KEY, NOW) is True
    made.configure(SecurityTable())
    assert made.admits(STRANGER, NOW) is False
    assert access().admits(STRANGER, NOW) is True


def token_of(expires_ms: int = 0) -> tuple[str, Principal]:
    token, token_id, digest = make_token()
    record = TokenRecord(token_id=token_id, sha256=digest, created_ms=0, expires_ms=expires_ms)
    return token, Principal(tokens=(record,))


def test_a_token_opens_a_session_of_its_connections_key_that_ends_with_the_token() -> None:
    token, principal = token_of(NOW + 10)
    made = access(principal)
    assert made.principal_of(STRANGER, NOW) is None
    assert made.greet(STRANGER, Hello(token=token), NOW) is None
    assert made.principal_of(STRANGER, NOW) == "shop"
    assert made.principal_of("y" * 40, NOW) is None, "the session of another key"
    assert made.expiry_ms(STRANGER, NOW) == NOW + 10
    assert made.principal_of(STRANGER, NOW + 10) is None
    made.configure(SecurityTable(principals={"shop": Principal()}))
    assert made.principal_of(STRANGER, NOW) is None


@pytest.mark.parametrize("change", ["another secret", "expired", "disabled", "no form"])
def test_a_token_that_is_not_good_opens_none(change: str) -> None:
    token, principal = token_of(NOW if change == "expired" else 0)
    if change == "another secret":
        token = token[:-4] + ("AAAA" if not token.endswith("AAAA") else "BBBB")
    elif change == "no form":
        token = "planaria"
    elif change == "disabled":
        principal = Principal(tokens=principal.tokens, is_disabled=True)
    made = access(principal)
    with pytest.raises(ProtocolError, match="token is not accepted") as refused:
        made.greet(STRANGER, Hello(token=token), NOW)
    assert refused.value.code == ErrorCode.UNAUTHENTICATED
    assert made.principal_of(STRANGER, NOW) is None


def test_a_password_is_checked_against_the_record_of_its_time_also_for_users_who_do_not_exist() -> None:
    record = hash_password("correct horse", 0)
    made = access(Principal(password=record))
    assert made.greet(STRANGER, Hello(user="shop", password="correct horse"), NOW) == record
    assert made.greet(STRANGER, Hello(user="nobody", password="x"), NOW) is NO_PASSWORD
    with pytest.raises(ProtocolError, match="not accepted"):
        made.on_password(STRANGER, "shop", record, NOW, is_right=False)
    assert made.principal_of(STRANGER, NOW) is None
    made.on_password(STRANGER, "shop", record, NOW, is_right=True)
    assert made.principal_of(STRANGER, NOW) == "shop"
    changed = Principal(password=hash_password("another horse", 0))
    made.configure(SecurityTable(principals={"shop": changed}))
    assert made.principal_of(STRANGER, NOW) is None, "the password was changed"
    with pytest.raises(ProtocolError, match="not accepted"):
        made.on_password(STRANGER, "shop", record, NOW, is_right=True)


def test_a_client_that_has_greeted_a_gateway_before_this_one_is_asked_to_greet_again() -> None:
    made = access(shop())
    request = next(request for _, request in REQUEST_SAMPLES if type(request).__name__ == "ListTopics")
    assert refusal(made, replace(request, greeted=True), STRANGER) == ErrorCode.HELLO_REQUIRED
    assert refusal(made, request, STRANGER) == ErrorCode.UNAUTHENTICATED
    starting = Access(INTERNAL_KEY, ADMIN_KEY, takes_sessions=True)
    assert refusal(starting, request, SHOP_KEY) == ErrorCode.ACTOR_UNAVAILABLE


def test_the_greeting_and_its_withdrawal_need_no_right() -> None:
    assert needs_of(Hello()) == needs_of(Cancel()) == NOTHING


# Connections that the TLS door relays.

CERTIFIED = Voucher(bytes(8), "10.0.0.1", "shop", NOW + 1_000).key
BY_TOKEN = Voucher(bytes([1] * 8), "10.0.0.1").key
TOKEN, TOKEN_ID, DIGEST = make_token()
RECORD = TokenRecord(token_id=TOKEN_ID, sha256=DIGEST, created_ms=0)


def greeted(*rules: Rule, is_disabled: bool = False) -> Access:
    """Return the table with the principal `shop`, whose token one of the connections has given."""
    made = access(shop(*rules, tokens=(RECORD,)))
    made.greet(BY_TOKEN, Hello(token=TOKEN), NOW)
    if is_disabled:
        made.configure(SecurityTable(principals={"shop": shop(*rules, is_disabled=True)}))
    return made


@pytest.mark.parametrize(
    ("name", "request_"), REQUEST_SAMPLES, ids=lambda each: each if isinstance(each, str) else ""
)
def test_a_request_over_tls_is_served_as_over_curve(name: str, request_: Request) -> None:
    needs = needs_of(request_)
    rules = [rule_for(need, need.rights[0]) for need in needs]
    for key in (CERTIFIED, BY_TOKEN):
        assert refusal(greeted(*rules), request_, key) is None
        assert refusal(greeted(), request_, key) == (ErrorCode.FORBIDDEN if needs else None)
        assert refusal(greeted(*rules, is_disabled=True), request_, key) == ErrorCode.UNAUTHENTICATED
    other = Voucher(bytes([2] * 8), "10.0.0.1").key
    assert refusal(greeted(*rules), request_, other) == ErrorCode.UNAUTHENTICATED


def test_a_certificate_is_no_administrator_expires_and_needs_a_principal() -> None:
    made = greeted()
    for name, expires_ms in (("admin", NOW + 1), ("internal", NOW + 1), ("stranger", NOW + 1), ("shop", NOW)):
        assert made.principal_of(Voucher(bytes(8), "::1", name, expires_ms).key, NOW) is None
    assert made.principal_of(CERTIFIED, NOW) == "shop"
    assert made.expiry_ms(CERTIFIED, NOW) == NOW + 1_000


def test_tokens_are_refused_where_keys_and_certificates_are_required_and_on_connections_without_a_key() -> (
    None
):
    strict = access(Principal(tokens=(RECORD,)), takes_sessions=False)
    for made, key in ((strict, CERTIFIED), (strict, BY_TOKEN), (greeted(), "")):
        with pytest.raises(ProtocolError, match="no tokens and passwords are accepted here"):
            made.greet(key, Hello(token=TOKEN), NOW)

"""The rules of rights: which rule decides."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planaria.transport.security.rights import RIGHTS_ON, Need, Rule, decide, rule_fault

ORDERS = Need(("produce",), "topic", "orders")


def allow(resource: str, *rights: str) -> Rule:
    return Rule(rights=rights, resource=resource)  # type: ignore[arg-type]


def deny(resource: str, *rights: str) -> Rule:
    return Rule(effect="deny", rights=rights, resource=resource)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rules", "is_allowed", "deciding"),
    [
        ([], False, None),
        ([allow("topic:orders", "produce")], True, 0),
        ([allow("topic:orders", "consume")], False, None),
        ([allow("topic:order", "produce")], False, None),
        ([allow("topic:orders-eu", "produce")], False, None),
        ([allow("topic:ord*", "produce")], True, 0),
        ([allow("topic:*", "produce")], True, 0),
        ([allow("group:*", "consume"), allow("topic:*", "produce")], True, 1),
        ([allow("cluster", "operate")], False, None),
        ([allow("cluster", "admin")], True, 0),
        ([allow("topic:*", "produce"), deny("topic:ord*", "produce")], False, 1),
        ([deny("topic:orders", "produce"), allow("topic:orders", "produce")], False, 0),
        ([allow("cluster", "admin"), deny("topic:orders", "produce")], False, 1),
        ([deny("topic:orders", "consume"), allow("topic:orders", "produce")], True, 1),
    ],
)
def test_what_no_rule_allows_is_denied_and_denial_wins(
    rules: list[Rule], is_allowed: bool, deciding: int | None
) -> None:
    decision = decide(rules, ORDERS)
    assert decision.is_allowed is is_allowed
    assert decision.rule is (None if deciding is None else rules[deciding])


def test_one_of_the_rights_that_a_request_needs_is_enough_and_denying_the_other_does_not_matter() -> None:
    read = Need(("consume", "queue"), "topic", "jobs")
    assert decide([allow("topic:jobs", "queue")], read).is_allowed
    assert decide([allow("topic:jobs", "queue", "consume"), deny("topic:jobs", "consume")], read).is_allowed
    assert not decide([allow("topic:jobs", "queue"), deny("topic:*", "queue")], read).is_allowed


@given(
    st.lists(
        st.sampled_from(
            [allow("topic:o*", "produce"), allow("cluster", "admin"), allow("topic:x", "produce")]
        )
    )
)
def test_adding_a_denial_never_allows_anything(rules: list[Rule]) -> None:
    assert not decide([*rules, deny("topic:orders", "produce")], ORDERS).is_allowed


@pytest.mark.parametrize(
    ("rule", "fault"),
    [
        (allow("topic:orders", "produce"), None),
        (allow("cluster", "operate"), None),
        (allow("topic:orders", "operate"), "operate has no meaning on topic:orders"),
        (allow("group:g", "produce"), "produce has no meaning on group:g"),
        (allow("cluster", "produce"), "produce has no meaning on cluster"),
        (allow("topic:", "produce"), "use topic:* for all"),
        (allow("topics:orders", "produce"), "is not topic:"),
        (allow("topic:a*b", "produce"), "is not topic:"),
    ],
)
def test_a_rule_that_can_never_apply_is_refused(rule: Rule, fault: str | None) -> None:
    found = rule_fault(rule)
    assert (found is None) if fault is None else (found is not None and fault in found)


def test_each_kind_of_resource_has_rights() -> None:
    assert {"topic", "group", "transaction", "cluster"} == set(RIGHTS_ON)

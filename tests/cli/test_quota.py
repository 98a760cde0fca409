"""`planaria quota` as a person types it."""

import pytest

from command_line import ServedBroker, planaria


@pytest.mark.processes
def test_quotas_are_set_shown_and_removed(broker: ServedBroker) -> None:
    limits = ("--produce-bytes", "1MB", "--fetch-requests", "50", "--connections", "7")
    broker.run("quota", "set", "reports", *limits)
    changed = broker.json("quota", "set", "reports", "--fetch-requests", "unlimited")
    assert changed["quota"] == {
        "produce_bytes": 1_000_000,
        "fetch_bytes": None,
        "produce_requests": None,
        "fetch_requests": None,
        "connections": 7,
        "requests_in_flight": None,
    }
    assert list(broker.json("quota", "list")["quotas"]) == ["reports"]
    text = broker.run("quota", "list")
    assert "reports" in text
    assert "1,000,000" in text
    assert "has no quota of its own" in broker.run("quota", "remove", "reports")
    assert "no client has a quota" in broker.run("quota", "list")
    done = planaria("quota", "remove", "reports", "--connect", broker.endpoint)
    assert done.returncode == 1
    assert "'reports' has no quota" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ((), "name at least one limit"),
        (("--produce-bytes", "much"), "--produce-bytes: 'much' is not like"),
        (("--fetch-bytes", "-5"), "--fetch-bytes: '-5' is not like"),
        (("--fetch-requests", "0"), "'0' is neither a number from 1 up"),
        (("--fetch-requests", "many"), "'many' is neither a number from 1 up"),
    ],
)
def test_a_wrong_limit_is_a_usage_error(arguments: tuple[str, ...], wrong: str) -> None:
    done = planaria("quota", "set", "reports", *arguments)
    assert done.returncode == 2
    assert wrong in done.stderr

"""`planaria group create` and `describe` of share groups."""

import pytest

from command_line import ServedBroker, planaria

pytestmark = pytest.mark.processes


def test_a_share_group_is_made_and_shown(broker: ServedBroker) -> None:
    broker.run("topic", "create", "JOBS.dead")
    told = broker.run("group", "create", "workers", "--dead-letter", "JOBS.dead", "--max-deliveries", "3")
    assert told == "share group workers: locks of 30000 ms, dead after delivery 3, dead letters: JOBS.dead\n"
    changed = broker.json("group", "create", "workers", "--lock-ms", "500")
    assert (changed["lock_ms"], changed["max_deliveries"], changed["dead_letter"]) == (500, 3, "JOBS.dead")
    found = broker.json("group", "describe", "workers")
    assert (found["type"], found["state"], found["share"]["partitions"]) == ("share", "empty", [])
    assert "share group workers is empty" in broker.run("group", "describe", "workers")
    assert "workers" in broker.json("group", "list")["groups"]


def test_what_is_wrong_is_said(broker: ServedBroker) -> None:
    refused = planaria("group", "create", "clash", "--dead-letter", "NONE", "--connect", broker.endpoint)
    assert refused.returncode == 1
    assert "there is no topic 'NONE'" in refused.stderr

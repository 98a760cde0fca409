"""`planaria group create` and `describe` of share groups."""

import pytest

from command_line import ServedBroker, planaria
from patience import TIMEOUT_S
from planaria import Client

pytestmark = pytest.mark.processes


def test_a_share_group_is_made_and_shown(broker: ServedBroker) -> None:
    broker.run("topic", "create", "JOBS.dead")
    told = broker.run("group", "create", "workers", "--dead-letter", "JOBS.dead", "--max-deliveries", "3")
    assert told == "share group workers: locks of 30000 ms, dead after delivery 3, dead letters: JOBS.dead\n"
    changed = broker.json("group", "create", "workers", "--lock-ms", "500")
    assert (changed["lock_ms"], changed["max_deliveries"], changed["dead_letter"]) == (500, 3, "JOBS.dead")
    found = broker.json("group", "describe", "workers")
    assert (found["type"], found["state"], found["share"]["partitions"]) == ("share", "empty", [])
    by_key = broker.json(
        "group", "create", "workers", "--weight", "gold=5", "--weight", "a=b=2", "--coalesce", "latest",
        "--max-wait", "2s",
    )  # fmt: skip
    assert by_key["weights"] == {"gold": 5, "a=b": 2}
    assert (by_key["coalesce"], by_key["max_wait_ms"], by_key["lock_ms"]) == ("latest", 2_000, 500)
    assert broker.json("group", "create", "workers", "--weight", "=")["weights"] == {}
    assert "share group workers is empty" in broker.run("group", "describe", "workers")
    assert broker.json("group", "list")["groups"] == [
        {"group": "workers", "type": "share", "state": "empty", "paused": None}
    ]
    assert "share" in broker.run("group", "list")


def test_who_holds_a_job_is_shown(broker: ServedBroker) -> None:
    broker.run("topic", "create", "HELD")
    with Client(broker.endpoint) as client, client.share_consumer("holders", "HELD", member_id="ann") as ann:
        for number in range(3):
            client.publish("HELD", number)
        jobs = ann.poll(TIMEOUT_S, max_messages=2)
        jobs[0].accept()
        ann.flush()
        [found] = broker.json("inflight", "HELD")["records"]
        assert found.pop("since_ms") > 0
        told = {"group": "holders", "member": "ann", "pid": None, "topic": "HELD", "partition": 0}
        assert found == told | {"offset": 1, "attempt": 1}
        assert "ann" in broker.run("inflight", "HELD", "--group", "holders")
    assert broker.json("inflight", "HELD")["records"] == []


def test_what_is_wrong_is_said(broker: ServedBroker) -> None:
    for weight in ("gold", "gold=0", "gold=101", "=3"):
        broken = planaria("group", "create", "clash", "--weight", weight, "--connect", broker.endpoint)
        assert broken.returncode == 2, weight
    refused = planaria("group", "create", "clash", "--dead-letter", "NONE", "--connect", broker.endpoint)
    assert refused.returncode == 1
    assert "there is no topic 'NONE'" in refused.stderr

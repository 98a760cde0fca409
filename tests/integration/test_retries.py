"""Records that wait for their next attempt, as `inflight`, `group describe` and `status` show them. Real processes."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from command_line import planaria
from live_trees import actor, until
from patience import TIMEOUT_S
from planaria import Broker, Message

pytestmark = pytest.mark.processes


def run(broker: Broker, *arguments: str) -> str:
    done = planaria(*arguments, "--connect", broker.endpoint)
    assert done.returncode == 0, done.stderr
    return done.stdout


def waiting(broker: Broker, *arguments: str) -> list[dict[str, Any]]:
    found = json.loads(run(broker, *arguments, "--json"))
    records: list[dict[str, Any]] = found["retrying"]
    assert found["retrying_count"] == len(records)
    return records


def test_a_record_that_waits_for_its_retry_is_shown_with_key_reason_and_time(
    broker: Broker, tmp_path: Path
) -> None:
    fixed = tmp_path / "fixed"

    def handle(message: Message) -> None:
        if message.data == "poison" and not fixed.exists():
            raise ValueError("no amount")

    broker.create_topic("T", 1)
    broker.create_topic("OTHER", 1)
    broker.publish("T", "k1", "fine")
    broker.publish("T", "order-17", "poison")
    began_ms = time.time() * 1000
    broker.subscribe("g", "T", handler=handle, retries=1_000, backoff_ms=[1_000], retry_alarm_ms=1_500)

    def second_time() -> dict[str, Any] | None:
        found = waiting(broker, "inflight", "T")
        return found[0] if found and found[0]["attempts"] >= 2 else None

    record = until(second_time, "it failed twice and is shown")
    assert record["first_failed_ms"] >= began_ms
    assert began_ms < record.pop("next_try_ms") <= time.time() * 1000 + 1_000
    del record["first_failed_ms"], record["attempts"]
    told = {"group": "g", "topic": "T", "partition": 0, "offset": 1, "key": "order-17"}
    assert record == told | {"member": "subscriber/g/1", "reason": "ValueError: no amount", "parked": False}
    assert waiting(broker, "inflight", "OTHER") == []
    until(lambda: waiting(broker, "inflight", "T", "--group", "g"), "its group has it")
    assert until(lambda: waiting(broker, "group", "describe", "g"), "group describe has it")
    assert until(lambda: "order-17" in run(broker, "inflight", "T"), "the table has it")
    until(lambda: "order-17" in run(broker, "group", "describe", "g"), "the other table too")
    until(lambda: "1 record failed and will be tried again" in run(broker, "status"), "status counts it")
    [alarm] = until(lambda: actor(broker.client, "subscriber/g/1").alarms, "the alarm")
    assert alarm.startswith("retrying: T/0 offset 1 has been failing for more than 1.5 s, ")
    fixed.touch()
    until(lambda: not waiting(broker, "inflight", "T"), "it is done")
    until(lambda: not actor(broker.client, "subscriber/g/1").alarms, "no alarm any more")


def test_a_job_that_waits_for_its_next_delivery_is_shown_with_key_reason_and_time(broker: Broker) -> None:
    broker.create_topic("JOBS", 1)
    for key in ("a", "b", "c"):
        broker.publish("JOBS", key, key)
    with broker.share_consumer("workers", "JOBS") as consumer:
        _, second, _ = consumer.poll(TIMEOUT_S)
        second.fail(delay=600, reason="disk full")
        consumer.flush()
        # From here on the record is in two accounts, of which `inflight` reads both: the group's and the heartbeat's.
        until(lambda: actor(broker.client, "coordinator/workers").retrying.count, "status counts it")
        [record] = waiting(broker, "inflight", "JOBS")
        assert abs(record.pop("next_try_ms") - time.time() * 1000 - 600_000) < 100_000
        assert time.time() * 1000 - record.pop("first_failed_ms") < 100_000
        told = {"group": "workers", "topic": "JOBS", "partition": 0, "offset": 1, "key": "b", "member": None}
        assert record == told | {"attempts": 1, "reason": "disk full", "parked": False}
        assert len(waiting(broker, "group", "describe", "workers")) == 1
        assert "disk full" in run(broker, "inflight", "JOBS")

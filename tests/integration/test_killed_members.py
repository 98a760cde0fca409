"""A member that is killed leaves its group long before its session or locks end. Real processes, on both ways to it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from live_trees import until
from patience import TIMEOUT_S
from planaria import Broker
from planaria.supervisor.security import initialise
from warm_start import WarmPopen

pytestmark = pytest.mark.processes

SESSION_MS = 120_000
MEMBER = f"""
import sys
from planaria import Client
key = sys.argv[2] or None
with Client(sys.argv[1], key=key) as client, client.consumer("g", ["T"], session_timeout_ms={SESSION_MS}) as consumer:
    while True:
        consumer.poll(0.1)
        if consumer.assignment():
            print("owns", flush=True)
"""

WORKER = """
import os, signal, sys
from planaria import Client
url, key, topic, end = sys.argv[1:]
with Client(url, key=key or None) as client, client.share_consumer("w", [topic]) as consumer:
    while True:
        for message in consumer.poll(0.1, max_messages=1):
            print(message.delivery_count, flush=True)
            if end == "waits":
                signal.pause()
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("is_secured", [False, True], ids=["its own connection", "through the gateway"])
def test_the_partitions_of_a_killed_member_move_at_once(tmp_path: Path, is_secured: bool) -> None:
    key = tmp_path / "admin.key"
    if is_secured:
        initialise(tmp_path / "data", key)
    with Broker(tmp_path / "data", endpoint="tcp://127.0.0.1:*") as broker:
        broker.create_topic("T", 1)
        command = [sys.executable, "-c", MEMBER, broker.endpoint, os.fspath(key) if is_secured else ""]
        with WarmPopen(command, stdout=subprocess.PIPE) as member:
            assert member.stdout is not None
            assert member.stdout.readline() == b"owns\n"
            with broker.client.consumer("g", ["T"], session_timeout_ms=SESSION_MS) as survivor:
                until(lambda: not survivor.poll(0.05) and len(members(broker)) == 2, "both are members")
                member.send_signal(signal.SIGKILL)
                killed = time.monotonic()
                until(lambda: survivor.poll(0.05) or survivor.assignment(), "the survivor has the partition")
                print(f"{(time.monotonic() - killed) * 1000:.0f} ms from the kill to the next owner")
                until(lambda: len(members(broker)) == 1, "the killed one has left")
        worker_command = [sys.executable, "-c", WORKER, *command[3:]]
        check_that_the_record_of_a_killed_worker_is_delivered_at_once(broker, worker_command)
        if is_secured:
            check_a_record_that_kills_its_workers(broker, worker_command)


def check_that_the_record_of_a_killed_worker_is_delivered_at_once(broker: Broker, command: list[str]) -> None:
    """Its lock of ten minutes is not waited for."""
    broker.create_topic("JOBS", 1)
    broker.client.configure_share_group("w", lock_ms=600_000)
    broker.client.publish("JOBS", b"job")
    with WarmPopen([*command, "JOBS", "waits"], stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"1\n"
        with broker.client.share_consumer("w", ["JOBS"]) as survivor:
            assert not survivor.poll(0.1)
            worker.send_signal(signal.SIGKILL)
            killed = time.monotonic()
            [message] = until(lambda: survivor.poll(0.5), "the record is delivered again")
            print(f"{(time.monotonic() - killed) * 1000:.0f} ms from the kill to the next delivery")
            assert message.value == b"job"
            message.accept()


def check_a_record_that_kills_its_workers(broker: Broker, command: list[str]) -> None:
    """Each delivery is lost, the locks of ten minutes with it, and is counted as lost: the second is the last."""
    broker.create_topic("DEAD", 1)
    broker.client.configure_share_group("w", lock_ms=600_000, max_deliveries=2, dead_letter="DEAD")
    broker.client.publish("T", b"killer")
    command = [*command, "T", "dies"]
    done = [subprocess.run(command, stdout=subprocess.PIPE, check=False, timeout=TIMEOUT_S) for _ in range(2)]
    assert [each.stdout for each in done] == [b"1\n", b"1\n"]
    until(lambda: [letter.value for letter in broker.client.read("DEAD")] == [b"killer"], "it is dead")


def members(broker: Broker) -> list[str]:
    return [member.member_id for member in broker.describe_group("g").members]

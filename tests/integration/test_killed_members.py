"""A member that is killed leaves its group long before its session ends. Real processes, on both ways to the group."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from live_trees import until
from planaria import Broker
from planaria.supervisor.security import initialise

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


@pytest.mark.parametrize("is_secured", [False, True], ids=["its own connection", "through the gateway"])
def test_the_partitions_of_a_killed_member_move_at_once(tmp_path: Path, is_secured: bool) -> None:
    key = tmp_path / "admin.key"
    if is_secured:
        initialise(tmp_path / "data", key)
    with Broker(tmp_path / "data", endpoint="tcp://127.0.0.1:*") as broker:
        broker.create_topic("T", 1)
        command = [sys.executable, "-c", MEMBER, broker.endpoint, os.fspath(key) if is_secured else ""]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as member:
            assert member.stdout is not None
            assert member.stdout.readline() == b"owns\n"
            with broker.client.consumer("g", ["T"], session_timeout_ms=SESSION_MS) as survivor:
                until(lambda: not survivor.poll(0.05) and len(members(broker)) == 2, "both are members")
                member.send_signal(signal.SIGKILL)
                killed = time.monotonic()
                until(lambda: survivor.poll(0.05) or survivor.assignment(), "the survivor has the partition")
                print(f"{(time.monotonic() - killed) * 1000:.0f} ms from the kill to the next owner")
                until(lambda: len(members(broker)) == 1, "the killed one has left")


def members(broker: Broker) -> list[str]:
    return [member.member_id for member in broker.describe_group("g").members]

"""`planaria.testing` as a project uses it: the documented tests pass, one broker serves many, time moves."""

import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from patience import TIMEOUT_S
from planaria import Broker, Client, Message
from planaria.testing import FakeContext, TestBroker, message
from source_tree import ROOT

pytestmark = pytest.mark.processes

FENCED = re.compile(r"^```python\n# (\w+\.py)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_the_documented_tests_pass_side_by_side(tmp_path: Path) -> None:
    """With two workers, each of which has a broker."""
    for name, text in FENCED.findall((ROOT / "docs" / "testing.md").read_text()):
        (tmp_path / name).write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-W", "error", "-p", "no:cacheprovider"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=2 * TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout


def fails_twice(record: Message) -> None:
    path = Path(record.data)
    attempts = len(path.read_text()) + 1 if path.exists() else 1
    path.write_text("x" * attempts)
    if attempts < 3:
        raise ValueError(f"attempt {attempts}")


def poll(broker: Broker, topic: str) -> list[Message]:
    with broker.consumer(None, topic, auto_offset_reset="earliest") as consumer:
        return consumer.poll(TIMEOUT_S)


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process and its ended children: unlike the time on the wall, no load makes it long."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def test_a_broker_is_empty_for_each_test_and_its_time_moves(tmp_path: Path) -> None:
    with TestBroker(tmp_path) as broker:
        pids = {broker.supervisor_pid, *(actor.pid for actor in broker.status().actors if actor.pid)}
        assert sum(map(cpu_s, pids)) < 1.2, "it starts in half a second of an idle core"
        for _ in range(2):
            broker.create_topic("T")
            hosted = broker.subscribe("g", "T", handler=fails_twice, backoff_ms=[3_600_000], retries=5)
            broker.publish("T", None, str(tmp_path / "attempts"))
            broker.publish("T", None, str(tmp_path / "delayed"), delay=7_200)
            with broker.consumer("other", "T", auto_offset_reset="earliest") as consumer:
                assert len(consumer.poll(TIMEOUT_S)) == 1
                while not (tmp_path / "attempts").exists():
                    consumer.poll(0.05)
                for _ in range(4):
                    broker.advance(timedelta(hours=1))
                assert len(consumer.poll(TIMEOUT_S)) == 1
                while (tmp_path / "attempts").read_text() != "xxx":
                    broker.advance(3_600)
                    consumer.poll(0.2)
            hosted.stop()
            assert broker.describe_group("g").members == [], "its deadline moves with its time, so it leaves"
            broker.set_quota("someone", fetch_bytes=10**9)
            broker.publish("T", None, "for the topic of the next test", delay=30 * 86_400)
            broker.clean()
            assert (broker.list_topics(), broker.list_groups(), broker.list_quotas()) == ([], [], {})
            assert broker.list_scheduled() == []
            for left in ("attempts", "delayed"):
                (tmp_path / left).unlink(missing_ok=True)


def test_delays_and_locks_of_a_work_queue_move_and_members_of_groups_stay(tmp_path: Path) -> None:
    with TestBroker(tmp_path) as broker, Client(broker.endpoint) as client:
        broker.create_topic("T", 1)
        broker.publish("T", None, "job")
        client.configure_share_group("workers", lock_ms=3_600_000, max_deliveries=10)
        with (
            broker.consumer("readers", "T", auto_offset_reset="earliest") as reader,
            client.share_consumer("workers", "T") as hung,
            client.share_consumer("workers", "T", renew=False) as worker,
        ):
            assert len(reader.poll(TIMEOUT_S)) == 1
            reader.commit()
            generation = broker.describe_group("readers").generation
            (failed,) = worker.poll(TIMEOUT_S)
            failed.fail(delay=1_800)
            assert worker.flush() == []
            assert hung.poll(0.01) == [], "the delay is not over"
            broker.advance(timedelta(minutes=30))
            (held,) = hung.poll(TIMEOUT_S)
            assert held.delivery_count == 2
            broker.advance(3_600)
            (again,) = worker.poll(TIMEOUT_S)
            assert again.delivery_count == 3
            again.accept()
            assert worker.flush() == []
            assert reader.poll(0.01) == []
            assert broker.describe_group("readers").generation == generation
            assert len(broker.describe_group("readers").members) == 1


def test_a_message_is_as_a_consumer_gets_it() -> None:
    made = message(
        {"a": [1, "x"]}, key="k", headers={"h": "v"}, topic="T", partition=2, offset=7, timestamp_ms=5
    )
    assert (made.data, made.key, made.topic_partition, made.offset, made.timestamp) == (
        {"a": [1, "x"]},
        b"k",
        ("T", 2),
        7,
        5,
    )
    assert made.headers == {"h": "v", "content-type": "application/json"}
    assert (message(b"raw").data, message(None).value, message(b"").headers) == (b"raw", None, {})


def test_a_context_keeps_what_was_published() -> None:
    context = FakeContext(message("in"))
    context.publish("A", {"n": 1}, key="k")
    context.publish("B", b"raw", partition=3, timestamp_ms=9)
    first, second = context.published
    assert (first.topic, first.data, first.key, first.partition, first.offset) == ("A", {"n": 1}, b"k", 0, 0)
    assert (second.topic, second.data, second.partition, second.timestamp) == ("B", b"raw", 3, 9)
    assert context.message.data == "in"

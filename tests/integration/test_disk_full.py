"""A disk that fills up under a running broker: producers wait, readers and commits go on, space heals it."""

import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from live_trees import TIMEOUT_S, read_topic, until
from planaria import Broker
from planaria.transport.client.errors import DeliveryFailed

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(sys.platform != "linux", reason="needs a file system of a chosen size: tmpfs"),
    pytest.mark.skipif(os.getuid() != 0, reason="only root may mount a small file system"),
]

DISK_BYTES = 8 * 1024 * 1024
PATIENT: dict[str, Any] = {"hang_timeout_ms": 60_000}
"""Deaths are counted here: no actor is killed for its silence while a busy machine does not run it."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    libc = ctypes.CDLL(None, use_errno=True)
    disk = tmp_path / "disk"
    disk.mkdir()
    if libc.mount(b"tmpfs", bytes(disk), b"tmpfs", 0, f"size={DISK_BYTES}".encode()) != 0:
        pytest.skip(f"no right to mount: {os.strerror(ctypes.get_errno())}")
    yield disk
    libc.umount2(bytes(disk), 2)  # MNT_DETACH: also while it is in use


def fill(disk: Path, leave_bytes: int = 0) -> Path:
    ballast = disk / "ballast"
    usage = os.statvfs(disk)
    free = usage.f_bavail * usage.f_frsize
    with ballast.open("wb") as stream:
        stream.write(bytes(max(0, free - leave_bytes)))
    return ballast


def incarnations(broker: Broker) -> dict[str, int]:
    return {each.address: each.incarnation for each in broker.status().actors}


def test_a_full_disk_stops_producers_and_nothing_else(small_disk: Path) -> None:
    with (
        Broker(small_disk / "data", disk_reserve_bytes=0, **PATIENT) as broker,
        broker.producer(linger_ms=0) as producer,
        broker.producer(delivery_timeout_ms=2_000) as impatient,
    ):
        broker.create_topic("T", 1)
        with broker.consumer("g", ["T"], auto_offset_reset="earliest", auto_commit=False) as consumer:
            producer.publish("T", b"first").result(TIMEOUT_S)
            # Connected by now, it has an answer within its time.
            impatient.publish("T", b"second").result(TIMEOUT_S)
            assert consumer.poll(TIMEOUT_S)
            consumer.commit()
            before = incarnations(broker)
            # Space for the commits of a group, none for a message.
            ballast = fill(small_disk, leave_bytes=256 * 1024)
            waiting = [producer.publish("T", bytes(200_000)) for _ in range(4)]
            with pytest.raises(DeliveryFailed) as refused:
                impatient.publish("T", bytes(300_000)).result(TIMEOUT_S)
            assert "last answer: STORAGE_FULL" in str(refused.value)

            refusal = publish_once(broker.endpoint, "x" * 300_000)
            assert (refusal["code"], refusal["retriable"]) == ("STORAGE_FULL", True)
            assert not waiting[-1].done()

            assert read_topic(broker.client, "T")[0].value == b"first"
            consumer.seek("T", 0, 0)
            assert consumer.poll(TIMEOUT_S)[0].value == b"first"
            consumer.commit({("T", 0): 1})
            assert broker.client.group_offsets("g") == {("T", 0): 1}

            ballast.unlink()
            offsets = [delivery.result(TIMEOUT_S).offset for delivery in waiting]
            assert offsets == sorted(set(offsets))
        assert incarnations(broker) == before
        sizes = [len(message.value or b"") for message in read_topic(broker.client, "T")]
        assert sizes.count(200_000) == 4
    with Broker(small_disk / "data", disk_reserve_bytes=0, **PATIENT) as broker:
        assert [len(message.value or b"") for message in read_topic(broker.client, "T")] == sizes


def publish_once(endpoint: str, value: str) -> dict[str, Any]:
    """Make one attempt without a retrying client; return the broker's error."""
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.linger = 0
        socket.connect(endpoint)
        socket.send_json({"op": "publish", "id": 1, "topic": "T", "records": [{"value_text": value}]})
        assert socket.poll(int(TIMEOUT_S * 1000))
        error: dict[str, Any] = socket.recv_json()["error"]
    return error


def test_actors_that_die_on_a_full_disk_come_back(small_disk: Path) -> None:
    with Broker(small_disk / "data", disk_reserve_bytes=0, **PATIENT) as broker:
        broker.create_topic("T", 2)
        for number in range(10):
            broker.publish("T", f"k{number}", number)
        with broker.consumer("g", ["T"], auto_offset_reset="earliest") as consumer:
            seen = 0
            while seen < 10:
                seen += len(consumer.poll(TIMEOUT_S))
        ballast = fill(small_disk)
        for address in ("partition/T/0", "partition/T/1", "controller", "gateway/0", "coordinator/g"):
            before = incarnations(broker)[address]
            broker.kill(address)
            until(lambda: incarnations(broker)[address] > before, f"{address} is back")  # noqa: B023
        assert sorted(message.data for message in read_topic(broker.client, "T")) == list(range(10))
        ballast.unlink()
        until(lambda: {each.state for each in broker.status().actors} == {"ready"}, "all are ready")
        broker.publish("T", "k", 10)
        assert sum(broker.client.group_offsets("g").values()) == 10
        assert all(each.restarts <= 3 for each in broker.status().actors)


def free_bytes(disk: Path) -> int:
    usage = os.statvfs(disk)
    return usage.f_bavail * usage.f_frsize


def test_the_reserve_is_left_for_everything_but_messages(small_disk: Path) -> None:
    reserve = DISK_BYTES // 2
    with Broker(small_disk / "data", disk_reserve_bytes=reserve, **PATIENT) as broker:
        broker.create_topic("T", 1, segment_bytes=1024 * 1024)
        with broker.consumer("g", ["T"], auto_offset_reset="earliest", auto_commit=False) as consumer:
            deliveries = []
            with broker.producer(linger_ms=0, delivery_timeout_ms=4_000) as producer:
                producer.publish("T", b"first").result(
                    TIMEOUT_S
                )  # the time of the others begins when it is connected
                deliveries = [producer.publish("T", bytes(200_000)) for _ in range(30)]
            errors = [error for each in deliveries if (error := each.exception(TIMEOUT_S))]
            assert errors
            assert all("STORAGE_FULL" in str(error) for error in errors)
            assert free_bytes(small_disk) > reserve - 2 * 1024 * 1024, "it is a reserve"
            (alarmed,) = until(lambda: [each for each in broker.status().actors if each.alarms], "the alarm")
            assert alarmed.address == "partition/T/0"
            assert "the reserve is" in alarmed.alarms[0]
            # A new group, its commits, a new topic's catalog: the broker's own records find space.
            written = 1 + len(deliveries) - len(errors)
            seen = 0
            while seen < written:
                seen += len(consumer.poll(TIMEOUT_S))
            consumer.commit()
            broker.create_topic("OTHER", 1)
            broker.client.delete_records("T", 0, written)
            until(lambda: not any(each.alarms for each in broker.status().actors), "there is room again")
            broker.publish("T", None, "x")

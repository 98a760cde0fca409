"""The request for a short wake-up latency: what is written, for how long it stands, and who may make it."""

import os
from pathlib import Path

import pytest

from planaria.supervisor.broker import Broker
from planaria.supervisor.cpu_latency import ANY, DEVICE, LatencyRefused, hold_cpu_latency

HARMLESS_US = 100_000
"""More than any idle state takes."""


def test_it_is_a_number_of_four_bytes_in_a_descriptor_that_no_child_inherits(tmp_path: Path) -> None:
    device = tmp_path / "device"
    device.touch()
    descriptor = hold_cpu_latency(20, device)
    assert descriptor is not None
    try:
        assert device.read_bytes() == (20).to_bytes(4, "little")
        assert not os.get_inheritable(descriptor)
    finally:
        os.close(descriptor)


def test_any_latency_makes_no_request(tmp_path: Path) -> None:
    assert hold_cpu_latency(ANY, tmp_path / "no device") is None


def test_a_device_that_is_not_there_or_is_forbidden_is_named(tmp_path: Path) -> None:
    device = tmp_path / "device"
    with pytest.raises(LatencyRefused, match=f"^cpu_latency_us needs to write to {device}: No such file"):
        hold_cpu_latency(0, device)
    device.mkdir()
    with pytest.raises(LatencyRefused, match=f"^cpu_latency_us needs to write to {device}: Is a directory"):
        hold_cpu_latency(0, device)


@pytest.mark.processes
@pytest.mark.skipif(
    not os.access(DEVICE, os.W_OK), reason=f"needs the right to write to {DEVICE}, as root has"
)
def test_a_broker_holds_the_request_alone_and_until_it_ends(tmp_path: Path) -> None:
    with Broker(tmp_path / "data", cpu_latency_us=HARMLESS_US) as broker:
        broker.create_topic("ORDERS")
        supervisor = broker.supervisor_pid
        pids = [actor.pid for actor in broker.status().actors if actor.pid]
        assert pids
        assert _holds(supervisor)
        assert not [pid for pid in pids if pid != supervisor and _holds(pid)]
    assert not Path(f"/proc/{supervisor}").exists()


def _holds(pid: int) -> bool:
    return any(
        os.path.realpath(f"/proc/{pid}/fd/{number}") == str(DEVICE)
        for number in os.listdir(f"/proc/{pid}/fd")
    )

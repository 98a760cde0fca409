"""Records of an unsynced log lost in a power cut, with everything above it running: groups continue at the divergence."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from live_trees import TIMEOUT_S, actor, pid_of, until, until_reborn, wait_gone
from planaria import Broker, LogTruncated
from planaria.actors.log.checkpoint import CHECKPOINT_NAME
from planaria.transport.batch import parse_header

pytestmark = pytest.mark.processes


def cut(broker: Broker, data_of_the_module: Path, keep: int) -> None:
    """Cut the log of T/0 back to its first `keep` batches, as a power cut may with `flush = os`."""
    address = "partition/T/0"
    before, pid = actor(broker.client, address), pid_of(broker.client, address)
    os.kill(broker.supervisor_pid, signal.SIGSTOP)
    try:
        os.kill(pid, signal.SIGKILL)
        assert wait_gone(pid, TIMEOUT_S)
        [segment] = data_of_the_module.glob("topics/T*/0/*.log")
        data, position = segment.read_bytes(), 0
        for _ in range(keep):
            position += parse_header(data, position).size_bytes
        os.truncate(segment, position)
        # A checkpoint, which a slow run has time for, would prove that all of it was synced.
        (segment.parent / CHECKPOINT_NAME).unlink(missing_ok=True)
        for snapshot in segment.parent.glob("*.snapshot"):
            if int(snapshot.stem) > keep:
                snapshot.unlink()
    finally:
        os.kill(broker.supervisor_pid, signal.SIGCONT)
    until_reborn(broker.client, before)


def publish(broker: Broker, numbers: range) -> None:
    """Publish each number in a batch of its own."""
    for number in numbers:
        broker.client.publish("T", number, key=f"k{number}")


@pytest.mark.parametrize("refill", [2, 20], ids=["shorter", "longer again"])
def test_a_group_goes_on_where_the_log_differs(broker: Broker, data_of_the_module: Path, refill: int) -> None:
    broker.create_topic("T", 1, flush="os")
    publish(broker, range(10))
    with broker.consumer("g", ["T"], auto_offset_reset="earliest") as consumer:
        found = []
        while len(found) < 10:
            found += [message.data for message in consumer.poll(TIMEOUT_S)]
    assert dict(broker.client.group_offsets("g")) == {("T", 0): 10}
    cut(broker, data_of_the_module, 6)
    publish(broker, range(100, 100 + refill))
    with (
        broker.consumer("g", partitions=[("T", 0)], auto_offset_reset="error") as strict,
        pytest.raises(LogTruncated) as told,
    ):
        strict.poll(TIMEOUT_S)
    assert told.value.next_offset == 6
    with broker.consumer("g", ["T"]) as consumer:
        found = []
        while len(found) < refill:
            messages = consumer.poll(TIMEOUT_S)
            assert messages, f"only {found}"
            found += [message.data for message in messages]
    assert found == list(range(100, 100 + refill))
    assert dict(broker.client.group_offsets("g")) == {("T", 0): 6 + refill}


def handler_into(path: Path) -> Callable[[object], None]:
    def handle(message: object) -> None:
        with path.open("a") as file:
            file.write(f"{message.data}\n")  # type: ignore[attr-defined]

    return handle


@pytest.mark.parametrize("delivery", ["at-least-once", "at-most-once", "exactly-once"])
def test_a_hosted_subscriber_handles_what_took_the_place_of_handled_records(
    broker: Broker, data_of_the_module: Path, tmp_path: Path, delivery: str
) -> None:
    broker.create_topic("T", 1, flush="os")
    calls = tmp_path / "calls"
    calls.touch()
    broker.subscribe("g", "T", handler=handler_into(calls), delivery=delivery)
    publish(broker, range(10))
    until(lambda: broker.client.group_offsets("g").get(("T", 0)) == 10, "all is committed")
    cut(broker, data_of_the_module, 6)
    publish(broker, range(100, 120))

    def handled() -> set[int]:
        return {int(line) for line in calls.read_text().split()}

    until(lambda: handled() >= set(range(100, 120)), "what is new is handled")
    until(lambda: broker.client.group_offsets("g").get(("T", 0)) == 26, "and committed")
    if delivery == "at-most-once":
        assert len(calls.read_text().split()) == 30

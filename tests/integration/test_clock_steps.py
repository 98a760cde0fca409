"""The machine's clock is set by hours, under a whole broker of real processes: durations stay, times of day follow.

The step is rehearsed (`transport/clock.py`): the processes of the broker see another time of day, the test does not. A
boot is a start of the broker without its `clock.json`: then the steady clock restarts at the time of day.
"""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from live_trees import read_topic, until, until_reborn, until_state
from planaria import Broker
from planaria.supervisor.broker import LOG_FILE
from planaria.transport.clock import REHEARSAL

pytestmark = pytest.mark.processes

HOUR_MS = 3_600_000
HOURS = pytest.mark.parametrize("hours", [3, -3])


def rare(*case: object) -> object:
    """A case of long runs: its step and its death are both in the ordinary run, each with another."""
    return pytest.param(*case, marks=pytest.mark.chaos)


Step = Callable[..., None]


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Step:
    """Set the clock wrong by some hours, for all processes or for one."""
    folder = tmp_path / "clocks"
    folder.mkdir()
    monkeypatch.setenv(REHEARSAL, str(folder))

    def write(hours: int, address: str = "all") -> None:
        (folder / address.replace("/", "-")).write_text(str(hours * HOUR_MS))

    return write


def running(data_dir: Path) -> Broker:
    return Broker(data_dir, heartbeat_interval_ms=200, backoff_reset_ms=1, restart_intensity=1_000)


def restart(broker: Broker, address: str) -> None:
    before = until_state(broker.client, address, "ready")
    broker.kill(address)
    until_reborn(broker.client, before)


def arrived(broker: Broker) -> list[str]:
    return [message.data for message in read_topic(broker.client, "T")]


@pytest.mark.parametrize(
    ("hours", "death"),
    [
        (3, "nobody"),
        (-3, "the schedulers"),
        (3, "the broker"),
        rare(-3, "nobody"),
        rare(3, "the schedulers"),
        rare(-3, "the broker"),
    ],
)
def test_a_delay_stays_a_duration_and_a_time_of_day_follows(
    data_dir: Path, step: Step, hours: int, death: str
) -> None:
    with running(data_dir) as broker:
        broker.create_topic("T", 1)
        at_ms = int(time.time() * 1000) + 2 * HOUR_MS
        broker.publish("T", None, "at two", deliver_at=at_ms, scheduled_id="at two")
        broker.publish("T", None, "in two hours", delay=7_200, scheduled_id="in two hours")
        asked_at = time.monotonic()
        broker.publish("T", None, "soon", delay=2.0, scheduled_id="soon")
        step(hours)
        if death == "the schedulers":
            restart(broker, "scheduler/0")
            restart(broker, "scheduler/1")
        if death != "the broker":
            check_delayed(broker, hours, asked_at)
    if death == "the broker":
        with running(data_dir) as broker:
            check_delayed(broker, hours, asked_at)


def check_delayed(broker: Broker, hours: int, asked_at: float) -> None:
    due = {"at two"} if hours > 0 else set()
    until(lambda: "soon" in arrived(broker), "the message with a short delay")
    assert time.monotonic() - asked_at >= 2.0
    until(lambda: {*arrived(broker)} >= due, "what the step has made due")
    pending = {each.scheduled_id: each.deliver_at_ms for each in broker.client.list_scheduled("T")}
    assert pending.keys() == {"at two", "in two hours"} - due
    told_ms = pending["in two hours"] - time.time() * 1000
    assert abs(told_ms - (hours + 2) * HOUR_MS) < 60_000, "as the clock goes now"
    assert sorted(arrived(broker)) == sorted({"soon", *due})


@pytest.mark.parametrize(
    ("hours", "address"),
    [(-3, "all"), (3, "partition/T/0"), rare(3, "all"), rare(-3, "partition/T/0")],
)
def test_no_producer_is_shut_out_by_a_step(data_dir: Path, step: Step, hours: int, address: str) -> None:
    with running(data_dir) as broker:
        broker.create_topic("T", 1)
        broker.publish("T", None, "before")
        step(hours, address)
        broker.publish("T", None, "after it")
        restart(broker, "partition/T/0")
        broker.publish("T", None, "after a restart")
    with running(data_dir) as broker:
        broker.publish("T", None, "after a restart of all")
        assert arrived(broker) == ["before", "after it", "after a restart", "after a restart of all"]


@HOURS
def test_an_open_transaction_outlives_a_step_and_a_restart(data_dir: Path, step: Step, hours: int) -> None:
    with running(data_dir) as broker:
        broker.create_topic("T", 1)
        with (
            broker.producer(transactional_id="t", transaction_timeout_ms=60_000) as producer,
            producer.transaction() as transaction,
        ):
            transaction.publish("T", "one", partition=0)
            started_ms = until(lambda: open_since_ms(broker), "the transaction")
            step(hours)
            for actor in broker.status().actors:
                if actor.address.startswith("transactions/"):
                    restart(broker, actor.address)
            told_ms = until(lambda: open_since_ms(broker), "the transaction that is still open")
            assert abs(told_ms - started_ms - hours * HOUR_MS) < 60_000, "as the clock goes now"
            transaction.publish("T", "two", partition=0)
        assert arrived(broker) == ["one", "two"]


def open_since_ms(broker: Broker) -> int | None:
    found = [each.started_ms for each in broker.client.list_transactions() if each.state == "Ongoing"]
    return found[0] if found else None


@pytest.mark.parametrize("hours", [3, pytest.param(-3, marks=pytest.mark.chaos)])
@pytest.mark.parametrize("death", ["nobody", "the coordinator", "the broker", "the machine"])
def test_a_failed_record_of_a_work_queue_comes_again_after_its_delay(
    data_dir: Path, step: Step, hours: int, death: str
) -> None:
    with running(data_dir) as broker:
        broker.create_topic("T", 1)
        broker.publish("T", None, "work")
        with broker.share_consumer("workers", "T") as consumer:
            (message,) = until(lambda: consumer.poll(0.5), "the record")
            failed_at = time.monotonic()
            message.fail(delay=3.0)
        step(hours)
        if death == "the coordinator":
            restart(broker, "coordinator/workers")
        if death in ("nobody", "the coordinator"):
            check_retry(broker, failed_at, least_s=3.0)
            return
    if death == "the machine":
        (data_dir / "clock.json").unlink()
    with running(data_dir) as broker:
        check_retry(broker, failed_at, least_s=0.0 if death == "the machine" else 3.0)


def check_retry(broker: Broker, failed_at: float, least_s: float) -> None:
    with broker.share_consumer("workers", "T") as consumer:
        until(lambda: consumer.poll(0.2), "the record again")
        assert time.monotonic() - failed_at >= least_s


def test_the_log_tells_of_a_step_of_one_process(data_dir: Path, step: Step) -> None:
    with running(data_dir):
        step(3, "gateway/0")
        log = data_dir / LOG_FILE
        until(lambda: "the wall clock has stepped" in log.read_text(), "the line in the log")
        [line] = [line for line in log.read_text().splitlines() if "the wall clock has stepped" in line]
        assert "gateway/0" in line

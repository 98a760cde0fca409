"""Start and end: resumed data, refusals in one line, no process left running."""

import logging
import os
import random
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from live_trees import TIMEOUT_S, fork_server_of, marked_processes, read_topic, until, wait_gone
from planaria import Broker, Client, ConfigError, Message
from planaria.supervisor import data_directory
from planaria.supervisor.config import load
from planaria.supervisor.launch import StartFailed, launch_supervisor
from planaria.transport.subscription import InvalidSubscription

pytestmark = pytest.mark.processes


def started_after(data: Path, pid: int) -> int | None:
    """Return the process id of a supervisor that follows `pid`, from the moment it holds the data directory."""
    text = (data / "supervisor.lock").read_text().strip()
    return int(text) if text.isdigit() and int(text) != pid else None


def refusal(data: Path, **settings: str) -> str:
    with pytest.raises(StartFailed) as failed:
        Broker(data, **settings)
    line = str(failed.value)
    assert "\n" not in line
    return line


@pytest.mark.cold_start
def test_the_shortest_program(data_dir: Path) -> None:
    with Broker(data_dir) as broker:
        broker.create_topic("ORDERS", 3)
        broker.create_topic("ORDERS", 3)
        broker.publish("ORDERS", "order_id_1", {"amount": 100})
        broker.publish("ORDERS", "order_id_2", {"amount": 200})
        broker.subscribe("payment_group", "ORDERS", "consumer_1")

        first = broker.consume("payment_group", "consumer_1")

        assert first is not None
        assert first.data in ({"amount": 100}, {"amount": 200})
        assert broker.get_offset("payment_group", "consumer_1") == first.offset + 1


@pytest.mark.cold_start
def test_everything_is_resumed_by_the_next_broker(data_dir: Path) -> None:
    with Broker(data_dir) as broker:
        broker.create_topic("ORDERS", 2, retention_ms=3_600_000)
        for number in range(20):
            broker.publish("ORDERS", f"k{number}", {"n": number})
        broker.subscribe("billing", "ORDERS", "one")
        before = [broker.consume("billing", "one") for _ in range(8)]

    with Broker(data_dir) as broker:
        assert broker.client.describe_topic("ORDERS").config.retention_ms == 3_600_000
        broker.publish("ORDERS", "k20", {"n": 20})
        broker.subscribe("billing", "ORDERS", "one")
        after = [broker.consume("billing", "one") for _ in range(13)]
        assert broker.consume("billing", "one", timeout=0.2) is None

    assert sorted(message.data["n"] for message in before + after if message) == list(range(21))


@pytest.mark.cold_start
def test_no_process_is_left_behind(data_dir: Path, tree_mark: str) -> None:
    with Broker(data_dir) as broker:
        broker.create_topic("T", 3)
        broker.publish("T", "k", 1)
        broker.subscribe("g", "T", handler="builtins:print", workers=2)
        assert len(marked_processes(tree_mark)) >= 8
        fork_server = fork_server_of(broker.supervisor_pid)
    left = marked_processes(tree_mark)
    # The fork server sees the supervisor's end, and follows.
    assert left.keys() <= {fork_server}
    assert all(wait_gone(pid, TIMEOUT_S) for pid in left)


@pytest.mark.cold_start
def test_a_program_that_is_killed_takes_its_broker_along(data_dir: Path, tree_mark: str) -> None:
    program = (
        "import sys; from planaria import Broker; broker = Broker(sys.argv[1]); broker.create_topic('T', 2);"
        " print('up', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(data_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        assert len(marked_processes(tree_mark)) >= 6
        process.kill()
    until(lambda: not marked_processes(tree_mark), "everything has ended")


@pytest.mark.cold_start
def test_a_program_that_forgets_to_close_ends_in_order(data_dir: Path, tree_mark: str) -> None:
    program = (
        "import sys; from planaria import Broker; broker = Broker(sys.argv[1]); broker.create_topic('T', 1);"
        " broker.publish('T', 'k', 1); broker.subscribe('g', 'T', 'c'); print(broker.consume('g', 'c').data)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(data_dir)],
        check=True,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert (done.stdout, done.stderr) == ("1\n", "")
    until(lambda: not marked_processes(tree_mark), "everything has ended")
    with Broker(data_dir) as broker:
        assert broker.client.group_offsets("g") == {("T", 0): 1}


def test_the_data_directory_is_any_path_under_either_name(data_dir: Path) -> None:
    with Broker(data=data_dir, log_file=Path("logs") / "own.log") as broker:
        broker.create_topic("T")
    assert (data_dir / "logs" / "own.log").is_file()
    with pytest.raises(ConfigError, match="given twice"):
        Broker(data_dir, data=data_dir)


def test_several_brokers_at_once(tmp_path: Path) -> None:
    brokers = [Broker(tmp_path / name) for name in ("one", "two", "three")]
    try:
        assert len({broker.endpoint for broker in brokers}) == 3
        for number, broker in enumerate(brokers):
            broker.create_topic("T", 1)
            broker.publish("T", "k", number)
        for number, broker in enumerate(brokers):
            assert [message.data for message in read_topic(broker.client, "T")] == [number]
    finally:
        for broker in brokers:
            broker.close()


def test_closing_twice_is_nothing(data_dir: Path) -> None:
    broker = Broker(data_dir)
    broker.close()
    broker.close()


def test_a_second_broker_on_the_same_data_is_refused(data_dir: Path) -> None:
    with Broker(data_dir) as broker:
        line = refusal(data_dir)
        assert line.endswith(f"in use by the supervisor with process id {broker.supervisor_pid}")


def test_a_killed_program_starts_again_while_its_handler_is_at_work(data_dir: Path, tmp_path: Path) -> None:
    """The old supervisor stops in order, which takes as long as the handler; the new one waits for it."""
    begun, end = tmp_path / "begun", tmp_path / "end"
    os.mkfifo(end)
    program = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from planaria import Broker\n"
        "def work(message):\n"
        "    Path(sys_argv[1]).touch()\n"
        "    open(sys_argv[2]).read()\n"
        "sys_argv = sys.argv[1:]\n"
        "broker = Broker(sys.argv[1])\n"
        "broker.create_topic('T', 1)\n"
        "broker.subscribe('g', 'T', handler=work)\n"
        "broker.publish('T', 'k', 1)\n"
        "while not Path(sys.argv[2]).exists():\n"
        "    time.sleep(0.01)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    command = [sys.executable, "-c", program, str(data_dir), str(begun), str(end)]
    assert subprocess.run(command, timeout=TIMEOUT_S, check=False).returncode == -9
    # Longer than the time in which a running supervisor must announce its stop.
    release = threading.Timer(data_directory.NOTICE_MS / 1000 + 1, end.write_text, ["now"])
    release.start()
    with Broker(data_dir) as broker:
        assert broker.client.group_offsets("g") == {("T", 0): 1}
    release.join()


def test_a_port_in_use_is_refused(tmp_path: Path) -> None:
    with Broker(tmp_path / "one") as broker:
        line = refusal(tmp_path / "two", endpoint=broker.endpoint)
    assert line == f"cannot listen on {broker.endpoint}: Address already in use"


def test_data_of_a_newer_program_is_refused(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "format.json").write_text('{"format": 2}')
    assert "has format 2, this program knows formats up to 1" in refusal(data_dir)


def test_a_damaged_catalog_is_refused(data_dir: Path) -> None:
    with Broker(data_dir) as broker:
        broker.create_topic("T", 1)
    (data_dir / "catalog.json").write_text("{")
    line = refusal(data_dir)
    assert line.startswith("controller cannot start: ")
    assert "catalog" in line


def test_a_handler_that_cannot_travel_is_refused(data_dir: Path) -> None:
    lock = threading.Lock()

    def guarded(_: object) -> None:
        with lock:
            pass

    with Broker(data_dir) as broker:
        broker.create_topic("T", 1)
        with pytest.raises(InvalidSubscription, match=r"^handler: cannot be sent to another process: .*lock"):
            broker.subscribe("g", "T", handler=guarded)
        with pytest.raises(InvalidSubscription, match="'module:function'"):
            broker.subscribe("g", "T", handler="not a path")
        with pytest.raises(InvalidSubscription, match="unknown option 'wrokers'"):
            broker.subscribe("g", "T", handler=print, wrokers=3)
        assert not [each for each in broker.status().actors if each.address.startswith("subscriber/")]


def test_the_supervisor_is_started_again_on_its_port(
    data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with Broker(data_dir) as broker:
        broker.create_topic("T", 2)
        broker.publish("T", "k", 1)
        endpoint, first = broker.endpoint, broker.supervisor_pid
        for _ in range(2):
            before = broker.status()
            os.kill(broker.supervisor_pid, 9)
            until(lambda: broker.status().instance_id != before.instance_id, "another supervisor answers")  # noqa: B023
            broker.publish("T", "k", 2)
        assert broker.endpoint == endpoint == broker.status().endpoint
        assert broker.supervisor_pid == broker.status().supervisor_pid != first
        assert [message.data for message in read_topic(broker.client, "T")] == [1, 2, 2]
    assert len(re.findall("the supervisor exited with code -9", caplog.text)) == 2


def test_hosted_subscribers_outlive_a_supervisor_that_dies_again_and_again(
    data_dir: Path, tmp_path: Path, seed: int
) -> None:
    """At any moment of its start, including the installation of the subscribers."""
    chance = random.Random(seed)
    seen = tmp_path / "seen"

    def note(message: Message) -> None:
        with seen.open("a") as stream:
            stream.write(f"{message.data}\n")

    with Broker(data_dir) as broker:
        broker.create_topic("T", 2)
        subscription = broker.subscribe("g", "T", handler=note, workers=2)
        assert subscription is not None
        pid = broker.supervisor_pid
        for _ in range(4):  # the keeper gives up after five starts in a row that fail
            os.kill(pid, 9)
            pid = until(lambda: started_after(data_dir, pid), "a supervisor starts")  # noqa: B023
            # In any state: a start takes some 300 ms.
            wait_gone(pid, chance.uniform(0, 0.5))
        for number in range(10):
            broker.publish("T", f"k{number}", number)
        until(lambda: seen.exists() and set(seen.read_text().split()) == set(map(str, range(10))), "all seen")
        subscription.stop()
        assert not [each for each in broker.status().actors if each.address.startswith("subscriber/")]


@pytest.mark.cold_start
def test_a_killed_supervisor_leaves_no_orphan(data_dir: Path, tree_mark: str) -> None:
    config = load({"data": str(data_dir), "endpoint": "tcp://127.0.0.1:*", "log_file": "broker.log"})
    for life in range(2):
        handle = launch_supervisor(config)
        with Client(handle.started.endpoint) as client:
            client.create_topic("T", 3, if_not_exists=True)
            client.publish("T", life, key="k")
            with client.consumer("g", ["T"], auto_offset_reset="earliest") as consumer:
                assert [message.data for message in consumer.poll(TIMEOUT_S)] == [life]
            pids = list(marked_processes(tree_mark))
            assert len(pids) >= 10  # the supervisor, its fork server, ten actors
            handle.kill()
        assert all(wait_gone(pid, TIMEOUT_S) for pid in pids)
        assert marked_processes(tree_mark) == {}

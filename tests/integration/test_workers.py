"""Workers outside the broker: faults of every process, reloads, stops, and starts that are refused."""

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from live_trees import marked_processes, read_topic, until
from patience import TIMEOUT_S
from planaria import Broker, GroupDescription
from planaria.transport.dead_letters import decode
from worker_process import WorkerProcess

pytestmark = pytest.mark.processes

SHOP = """
import os, time
from planaria import App, Context

app = App("shop")

@app.subscribe("ORDERS", group="billing", delivery="exactly-once", retries=2, backoff_ms=[20], dead_letter="DLQ")
def charge(order: dict, context: Context) -> None:
    if order["number"] == "deadly":
        os._exit(3)
    time.sleep(PAUSE_S)
    context.publish("PAYMENTS", {"number": order["number"], "version": VERSION}, key=context.message.key)
"""


def write_shop(folder: Path, version: int = 1, pause_s: float = 0.002) -> None:
    new = folder / "shop.new"
    new.write_text(SHOP.replace("VERSION", str(version)).replace("PAUSE_S", str(pause_s)))
    new.replace(folder / "shop.py")


def create_topics(broker: Broker) -> None:
    for topic in ("ORDERS", "PAYMENTS", "DLQ"):
        broker.create_topic(topic, 4)


def publish(broker: Broker, numbers: range) -> None:
    with broker.producer() as producer:
        for number in numbers:
            producer.publish("ORDERS", {"number": number}, key=f"k{number % 20}")


def paid(broker: Broker) -> list[int]:
    return [message.data["number"] for message in read_topic(broker.client, "PAYMENTS")]


def test_nothing_is_lost_or_doubled_over_kills_of_every_process(
    broker: Broker, tmp_path: Path, tree_mark: str
) -> None:
    write_shop(tmp_path)
    create_topics(broker)
    own = set(marked_processes(tree_mark))
    with WorkerProcess(tmp_path, broker.endpoint, "--processes", "2") as worker:
        publish(broker, range(200))
        with broker.producer() as producer:
            producer.publish("ORDERS", {"number": "deadly"}, key="deadly").result()
        until(lambda: paid(broker), "orders are handled")
        first = until(lambda: kill(worker, "subscriber/billing/1"), "it runs, and is killed")
        until(lambda: worker.pid_of("subscriber/billing/1") != first, "the process is restarted")
        os.kill(broker.supervisor_pid, signal.SIGKILL)
        publish(broker, range(200, 300))
        os.kill(worker.supervisor_pid(), signal.SIGKILL)
        worker.until_logged("tree up", 2)
        publish(broker, range(300, 400))
        assert of_workers(left_of(tree_mark, own, broker))
        worker.process.kill()
    until(lambda: not of_workers(left_of(tree_mark, own, broker)), "a killed worker leaves no processes")
    with WorkerProcess(tmp_path, broker.endpoint, "--processes", "2") as worker:
        until(lambda: len(paid(broker)) >= 400, "all orders are handled")
        letters = until(lambda: read_topic(broker.client, "DLQ"), "the deadly order is a dead letter")
        assert worker.stop() == 0
    assert Counter(paid(broker)) == Counter(range(400))
    assert [decode(letter.headers).failures for letter in letters] == [3]
    assert not broker.describe_group("billing").members, "they have left the group"


def kill(worker: WorkerProcess, address: str) -> int | None:
    """Return the id of the process, None if the deadly order has just ended it."""
    pid = worker.pid_of(address)
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return None
    return pid


def of_workers(lines: list[str]) -> list[str]:
    return [line for line in lines if "--role worker" in line or "forkserver" in line]


def left_of(mark: str, own: set[int], broker: Broker) -> list[str]:
    """Return the command lines of processes that neither the test nor its broker has."""
    tree = {each.pid for each in broker.status().actors} | {broker.supervisor_pid}
    return [
        line
        for pid, line in marked_processes(mark).items()
        if pid not in own and pid not in tree and parent_of(pid) not in tree
    ]


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def place_of(group: GroupDescription) -> dict[str | None, object]:
    return {member.instance_id: member.assignment for member in group.members}


def test_a_reload_replaces_the_code_and_moves_no_partition(broker: Broker, tmp_path: Path) -> None:
    write_shop(tmp_path)
    create_topics(broker)
    with WorkerProcess(tmp_path, broker.endpoint, "--processes", "2", "--watch") as worker:
        worker.until_logged("worker ready")
        publish(broker, range(100))
        until(lambda: len(paid(broker)) == 100, "version 1 is at work")
        places = until(lambda: place_of(broker.describe_group("billing")), "the members")
        publish(broker, range(100, 600))
        write_shop(tmp_path, version=2)
        os.kill(worker.process.pid, signal.SIGHUP)
        worker.until_logged("event=reloaded")
        publish(broker, range(600, 700))
        until(lambda: len(paid(broker)) == 700, "version 2 is at work")
        messages = read_topic(broker.client, "PAYMENTS")
        assert Counter(message.data["number"] for message in messages) == Counter(range(700))
        versions = {message.data["number"]: message.data["version"] for message in messages}
        assert {versions[number] for number in range(100)} == {1}
        assert {versions[number] for number in range(600, 700)} == {2}
        for key in range(20):  # of one key, no order is handled by version 1 after one by version 2
            of_key = [versions[number] for number in range(key, 700, 20)]
            assert of_key == sorted(of_key)
        assert place_of(broker.describe_group("billing")) == places
        (tmp_path / "shop.py").write_text("raise RuntimeError('half-written')")
        worker.until_logged("half-written")
        publish(broker, range(700, 710))
        until(lambda: len(paid(broker)) == 710, "the code before a broken version goes on")
        assert worker.stop() == 0


def test_a_worker_waits_for_its_broker_and_for_no_longer_than_its_stop(tmp_path: Path) -> None:
    write_shop(tmp_path)
    with WorkerProcess(tmp_path, "tcp://127.0.0.1:9") as worker:
        worker.until_logged("waiting for the broker")
        assert worker.stop() == 0


def test_a_worker_whose_application_is_still_imported_stops_at_once(tmp_path: Path) -> None:
    mark = tmp_path / "imported"
    (tmp_path / "shop.py").write_text(f"import time\nopen({str(mark)!r}, 'w').close()\ntime.sleep(600)\n")
    with WorkerProcess(tmp_path, "tcp://127.0.0.1:9") as worker:
        until(mark.exists, "the import has begun")
        assert worker.stop() == 0


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("import nothing_of_this_name", "cannot be imported: ModuleNotFoundError"),
        ("app = 7", "shop:app is not a planaria.App but int"),
        (
            "import threading, time; threading.Thread(target=time.sleep, args=(600,)).start(); app = 7",
            "shop:app is not a planaria.App but int",
        ),
        ("raise ValueError('\\ud800')", "cannot be imported: ValueError: \\ud800"),
        ("raise KeyboardInterrupt", "cannot be imported: KeyboardInterrupt"),
        ("import planaria; app = planaria.App()", "shop:app has no subscriptions"),
        (
            "import planaria; app = planaria.App()\n@app.subscribe('T', group='g')\ndef f(_: 'Order'): ...",
            "f: the handler cannot be called: the annotation 'Order'",
        ),
        (
            "import planaria; app = planaria.App()\napp.subscribe('ORDERS', group='g', retrys=3)(print)",
            "unknown option 'retrys'",
        ),
    ],
)
def test_an_application_that_cannot_run_is_refused_in_one_line(
    tmp_path: Path, code: str, complaint: str
) -> None:
    (tmp_path / "shop.py").write_text(code)
    worker = WorkerProcess(tmp_path, "tcp://127.0.0.1:9")
    assert worker.process.wait(TIMEOUT_S) == 1
    [line] = [line for line in worker.log().splitlines() if line.startswith("planaria: ")]
    assert complaint in line


def test_an_unknown_topic_is_refused(broker: Broker, tmp_path: Path) -> None:
    write_shop(tmp_path)
    worker = WorkerProcess(tmp_path, broker.endpoint)
    assert worker.process.wait(TIMEOUT_S) == 1
    assert "planaria: topics: there is no topic 'ORDERS'; create it first" in worker.log()


def test_periodic_functions_run_once_over_all_workers(broker: Broker, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "from pathlib import Path\n"
        "from planaria import App\n"
        "app = App('shop')\n"
        "@app.every('1s')\n"
        "def tick():\n"
        f"    with Path({str(tmp_path / 'ticks')!r}).open('a') as file:\n"
        "        file.write('tick\\n')\n"
    )
    ticks = tmp_path / "ticks"

    def runs() -> int:
        return ticks.read_text().count("tick") if ticks.exists() else 0

    with (
        WorkerProcess(tmp_path, broker.endpoint, data="a") as first,
        WorkerProcess(tmp_path, broker.endpoint, data="b") as second,
    ):
        first.until_logged("worker ready")
        second.until_logged("worker ready")
        until(lambda: runs() >= 2, "it runs")
        first.process.kill()
        before = runs()
        until(lambda: runs() >= before + 2, "the other worker goes on")
        assert second.stop() == 0
    # Of two runs a moment apart, one may be late and the other in time: the ticks that ordered them are counted.
    due_ms = [message.data["due_ms"] for message in read_topic(broker.client, "shop.periodic")]
    assert len(due_ms) == len(set(due_ms)), "one tick per period"
    assert runs() <= len(due_ms) + 1, "each tick runs once, and that of the killed worker perhaps twice"


def test_a_wrong_path_is_a_usage_error(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "planaria", "worker", "shop.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 2
    assert "is not of the form module:app" in done.stderr

"""Each example is run as a user runs it, and prints the output that its docstring describes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from patience import TIMEOUT_S

pytestmark = pytest.mark.processes

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(name: str, directory: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py")],
        cwd=directory,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_every_example_is_run() -> None:
    """raw_client is among the tests of the protocol, which it documents."""
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")} | {"raw_client"}
    assert {path.stem for path in EXAMPLES.glob("*.py")} <= tested


def test_quickstart(tmp_path: Path) -> None:
    """Run again in the same directory, the group continues where it stopped."""
    line = re.compile(
        r"consumed b'order_id_([12])': {'amount': ([12])00}, from partition ([0-2]) at offset (\d)\n"
        r"the group goes on at offset (\d)\n"
    )
    seen = []
    for _ in range(2):
        found = line.fullmatch(run("quickstart", tmp_path))
        assert found is not None
        order, amount, partition, offset, goes_on = map(int, found.groups())
        assert order == amount
        assert goes_on == offset + 1
        seen.append((partition, offset))
    assert len(set(seen)) == 2
    assert (tmp_path / "planaria-data").is_dir()


def test_worker(tmp_path: Path) -> None:
    output = run("worker", tmp_path)
    assert "killed a process of the worker\n" in output
    assert "killed the worker, and started it again\n" in output
    assert re.search(r"^dead letter \{'customer': 'c1'\}: .*missing required field `amount`", output, re.M)
    assert output.endswith("300 payments for 300 orders\n")


def test_mirror(tmp_path: Path) -> None:
    output = run("mirror", tmp_path)
    assert "killed the mirror's process\n" in output
    assert output.endswith("the first broker is gone\n3000 messages, in order: True\n")


def test_deployment(tmp_path: Path) -> None:
    output = run("deployment", tmp_path)
    assert "killed a worker and the controller\nstarted the broker again\n" in output
    assert output.endswith("200 counts of 200 texts\n")


def test_order_pipeline(tmp_path: Path) -> None:
    output = run("order_pipeline", tmp_path)
    orders: dict[str, list[int]] = {"billing": [], "shipping": []}
    for group, number in re.findall(r"^(billing|shipping)-\d +order +(\d+) of customer-\d$", output, re.M):
        orders[group].append(int(number))
    assert sorted(orders["billing"]) == sorted(orders["shipping"]) == list(range(12))
    assert "'shipping-1': 12" in output.splitlines()[-1]


def test_hosted_subscriber(tmp_path: Path) -> None:
    output = run("hosted_subscriber", tmp_path)
    charged = dict(re.findall(r"^process \d+ charged payment (\d) \(attempt (\d)\)$", output, re.M))
    assert charged == {"0": "1", "1": "1", "3": "3", "4": "1"}
    assert "dead letter: {'id': 2, 'amount': -1}\n" in output
    assert "ValueError: cannot charge -1" in output


def test_kill_and_watch(tmp_path: Path) -> None:
    lines = run("kill_and_watch", tmp_path).splitlines()
    victims = [line.split()[1] for line in lines if line.startswith("killed ")]
    assert victims == ["partition/EVENTS/0", "coordinator/readers", "gateway/0", "controller"]
    for victim in victims:
        assert any(re.match(rf" +{victim} +incarnation 2 ready$", line) for line in lines)
    assert lines[-1] == "published 2000, consumed 2000, in order: True"


def test_work_queue(tmp_path: Path) -> None:
    first, *lines, last = run("work_queue", tmp_path).splitlines()
    assert first == "a worker died with job 0 in its hands"
    assert last == "dead: job 5, this job is impossible"
    done = [re.fullmatch(r"(ann|bob|cid) did job (\d+) \(delivery (\d)\)", line) for line in lines]
    deliveries = {int(found[2]): int(found[3]) for found in done if found is not None}
    assert len(lines) == len(deliveries) == 11
    assert {number for number, count in deliveries.items() if count == 2} == {7}, (
        "a lost delivery does not count"
    )


def test_dead_letters(tmp_path: Path) -> None:
    assert run("dead_letters", tmp_path).splitlines() == [
        "1 dead: planaria.transport.verdicts.Reject: no currency in 'Nx'",
        "1 dead: planaria.transport.verdicts.Reject: no currency in 'thirty'",
        "letter 0 passes",
        "letter 1 passes",
        "sent back: 2",
        "and again: 0",
        "charged: [0, 1, 2, 3, 4]",
    ]


def test_exactly_once(tmp_path: Path) -> None:
    lines = run("exactly_once", tmp_path).splitlines()
    assert lines[-1] == "200 orders, 200 payments, 200 receipts"
    assert [line for line in lines if "was killed" in line]


def test_quickstart_async(tmp_path: Path) -> None:
    stored, *consumed = run("quickstart_async", tmp_path).splitlines()
    assert re.fullmatch(r"stored in partition [0-2] at offset 0", stored)
    assert {re.sub(r", from .*", "", line) for line in consumed} == {
        "consumed {'amount': 100}",
        "consumed {'amount': 200}",
    }


def test_fair_queue(tmp_path: Path) -> None:
    output = run("fair_queue", tmp_path)
    found = re.fullmatch(
        r"2 jobs of the noisy tenant are being done, 19998 wait\n"
        r"quiet: done after \d+ ms and (\d+) jobs of the noisy tenant\n"
        r"killed coordinator/workers\n"
        r"small: done after \d+ ms and (\d+) jobs of the noisy tenant\n",
        output,
    )
    assert found is not None, output
    assert all(int(count) < 5_000 for count in found.groups())


def test_work_queue_async(tmp_path: Path) -> None:
    *lines, last = run("work_queue_async", tmp_path).splitlines()
    assert last == "dead: job 5, this job is impossible"
    done = [re.fullmatch(r"did job (\d+) \(delivery (\d)\)", line) for line in lines]
    deliveries = {int(found[1]): int(found[2]) for found in done if found is not None}
    assert len(lines) == len(deliveries) == 11
    assert deliveries[7] == 2


def test_exactly_once_async(tmp_path: Path) -> None:
    *cancelled, last = run("exactly_once_async", tmp_path).splitlines()
    assert last == "200 orders, 200 payments"
    assert len(cancelled) == 3


def test_backup(tmp_path: Path) -> None:
    assert run("backup", tmp_path).splitlines() == [
        "killed partition/ORDERS/0",
        "the broker's directory is lost",
        "all 1000 orders are there, in order: True",
        "the group continues where it was: True",
    ]


def test_stuck_order(tmp_path: Path) -> None:
    assert run("stuck_order", tmp_path).splitlines() == [
        "killed coordinator/billing",
        "killed subscriber/billing/1",
        "the group is paused: the bank is down; 99 orders wait",
        "found order 17 at offset 17",
        "its trace: [('ORDERS', ['waiting'])]",
        "its trace: [('ORDERS', ['handled']), ('PAYMENTS', [])]",
        "100 payments of 100 orders",
    ]


def test_shaped_queue(tmp_path: Path) -> None:
    assert run("shaped_queue", tmp_path).splitlines() == [
        "first: urgent",
        "killed coordinator/workers",
        "then: True, at the rate of the key: True",
        "newest of the first 51: [46, 47, 48, 49, 50]",
        "killed coordinator/quotes",
        "newest of the rest: [95, 96, 97, 98, 99]",
        "older ones are left: False",
    ]


def test_event_sourcing(tmp_path: Path) -> None:
    counts, balances = run("event_sourcing", tmp_path).splitlines()
    assert re.fullmatch(r"45 events acknowledged, 45 stored, \d+ conflicts", counts)
    assert balances == "balances: {'anna': 2, 'bert': 2, 'clea': 2}"


def test_balances_table(tmp_path: Path) -> None:
    assert run("balances_table", tmp_path).splitlines() == [
        "60 transfers, the same in both tables: True",
        "sum of 4 balances: 400",
    ]

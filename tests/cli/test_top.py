"""`planaria top`: its figures, its screen at any width, its keys, and the terminal that it leaves."""

import io
import json
import os
import pty
import select
import signal
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from rich.console import Console

from command_line import PROGRAM, ServedBroker, environment, planaria
from patience import TIMEOUT_S
from planaria.supervisor.cli import top
from planaria.supervisor.cli.failures import CommandFailed
from planaria.supervisor.cli.top_figures import SORTS, Figures, Meter, Sort, sorted_topics
from planaria.transport.addresses import Address
from planaria.transport.client.descriptions import BrokerStatus, described_status
from planaria.transport.protocol.operations import StatusReply


def status(*actors: dict[str, Any]) -> BrokerStatus:
    usual = {
        "pid": 1,
        "incarnation": 1,
        "restarts": 0,
        "state": "ready",
        "uptime_ms": 10_000,
        "memory_bytes": 1,
    }
    reply = {
        "supervisor_pid": 1, "instance_id": "i", "data_directory": "/d", "endpoint": "tcp://x:1", "uptime_ms": 60_000,
        "actors": [usual | actor for actor in actors], "version": 1,
    }  # fmt: skip
    return described_status(msgspec.convert(reply, StatusReply, dec_hook=lambda _, text: Address.parse(text)))


def partition(topic: str, number: int, messages: int, age_ms: int = 0, **changed: Any) -> dict[str, Any]:
    log = {
        "role": "leader", "leader_epoch": 0, "log_start_offset": 10, "high_watermark": 100,
        "log_end_offset": 100, "size_bytes": 5_000,
    }  # fmt: skip
    report = {"counters": {"messages_in": messages, "bytes_in": 10 * messages}, "log": log}
    actor = {"address": f"partition/{topic}/{number}", "report_age_ms": age_ms, "report": report}
    return actor | changed


def coordinator(group: str, offset: int) -> dict[str, Any]:
    position = ["A", 0, offset, 0]
    report = {"type": "consumer", "state": "stable", "members": 2, "generation": 1, "positions": [position]}
    return {"address": f"coordinator/{group}", "report_age_ms": 0, "report": {"group": report}}


def test_rates_are_those_between_two_reports_of_a_process() -> None:
    meter = Meter()
    meter.look(status(partition("A", 0, 100), partition("A", 1, 0)), 10_000)
    found = meter.look(status(partition("A", 0, 400, age_ms=500), partition("A", 1, 100)), 11_500)
    assert (found.topics[0].partitions, found.topics[0].rates.messages_in) == (2, 300 + 100 / 1.5)
    again = meter.look(
        status(partition("A", 0, 400, age_ms=1_000), partition("A", 1, 100, age_ms=500)), 12_000
    )
    assert again.rates == found.rates, "without new reports they stay"
    reborn = meter.look(status(partition("A", 0, 20, incarnation=2, restarts=1, uptime_ms=2_000)), 13_000)
    assert (reborn.rates.messages_in, reborn.restarts) == (10, 1)


def test_lag_is_counted_from_the_reports_of_groups_and_logs() -> None:
    found = Meter().look(
        status(
            partition("A", 0, 0), coordinator("slow", 40), coordinator("new", 0), coordinator("done", 100)
        ),
        0,
    )
    assert {each.group: each.lag for each in found.groups} == {"slow": 60, "new": 90, "done": 0}
    assert found.topics[0].lag == 90


@pytest.mark.parametrize("sort", SORTS)
def test_topics_are_in_the_order_that_was_asked_for(sort: Sort) -> None:
    meter = Meter()
    first = [partition("A", 0, 0), partition("B", 0, 0, restarts=1), coordinator("g", 100)]
    meter.look(status(*first), 0)
    second = [partition("A", 0, 0), partition("B", 0, 50, restarts=1), coordinator("g", 0)]
    names = [each.topic for each in sorted_topics(meter.look(status(*second), 1_000).topics, sort)]
    assert names == (["B", "A"] if sort in ("in", "bytes", "restarts") else ["A", "B"])


def busy() -> Figures:
    actors = [partition(f"TOPIC-with-a-long-name-{n}", 0, n, restarts=n % 2) for n in range(40)]
    return Meter().look(status(*actors, *(coordinator(f"group-{n}", n) for n in range(30))), 0)


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
@pytest.mark.parametrize("rows", [12, 24, 60])
def test_the_screen_fits_any_terminal(columns: int, rows: int) -> None:
    out = io.StringIO()
    shown = Console(file=out, width=columns, height=rows)
    shown.print(top.screen(busy(), "in", columns, rows, "no broker at tcp://127.0.0.1:1"))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= columns
    assert len(lines) <= rows
    assert "no broker" in out.getvalue()


@contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    master, slave = pty.openpty()
    try:
        yield master, slave
    finally:
        os.close(master)
        os.close(slave)


def test_keys_sort_and_a_broker_that_dies_leaves_the_last_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()

    def gone(*_: object) -> Any:
        raise CommandFailed("no broker at tcp://127.0.0.1:1")

    monkeypatch.setattr(top, "console", lambda: Console(file=out, force_terminal=True, width=80, height=24))
    monkeypatch.setattr(top, "operating", gone)
    with terminal() as (master, slave), open(slave, closefd=False) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        before = termios.tcgetattr(slave)
        os.write(master, b"lq")
        top._live(busy(), "tcp://127.0.0.1:1", Meter(), "in", 60)
        assert termios.tcgetattr(slave) == before
    assert "by in:" in out.getvalue()
    assert "by lag:" in out.getvalue()
    assert "no broker at" in out.getvalue()
    assert out.getvalue().endswith("\x1b[?25h\x1b[?1049l"), "the cursor and the screen before are back"


@pytest.mark.processes
def test_one_look_is_printed_for_a_pipe(broker: ServedBroker) -> None:
    broker.run("topic", "create", "TOPPED")
    done = planaria("top", "--interval", "0.2", "--connect", broker.endpoint)
    assert done.returncode == 0, done.stderr
    assert "TOPPED" in done.stdout
    assert "\x1b" not in done.stdout
    found = json.loads(planaria("top", "--json", "--interval", "0.1", "--connect", broker.endpoint).stdout)
    assert "TOPPED" in [each["topic"] for each in found["topics"]]


@pytest.mark.processes
def test_the_terminal_is_as_before_after_ctrl_c(broker: ServedBroker) -> None:
    with terminal() as (master, slave):
        before = termios.tcgetattr(slave)
        process = subprocess.Popen(
            [*PROGRAM, "top", "--interval", "60", "--connect", broker.endpoint],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment(TERM="xterm"),
            start_new_session=True,
        )
        shown = read_until(master, b"q quit")
        process.send_signal(signal.SIGINT)
        shown += read_until(master, b"\x1b[?1049l")
        assert process.wait(TIMEOUT_S) in (0, 130)
        assert termios.tcgetattr(slave) == before
        assert b"Traceback" not in shown


def read_until(master: int, text: bytes) -> bytes:
    found, over_at = b"", time.monotonic() + TIMEOUT_S
    while text not in found:
        assert time.monotonic() < over_at, found
        if select.select([master], [], [], 1.0)[0]:
            found += os.read(master, 65_536)
    return found

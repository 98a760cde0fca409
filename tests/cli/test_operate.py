"""`planaria status`, `kill` and `revive`: rendered from made-up answers, and against a running broker."""

import os
import time
from typing import Any

import pytest
from rich.console import Console

from command_line import TIMEOUT_S, Command, ServedBroker
from planaria.supervisor.cli.operate import render
from planaria.transport.addresses import Address
from planaria.transport.client.descriptions import ActorStatus as ShownStatus
from planaria.transport.client.descriptions import described_status
from planaria.transport.protocol.operations import ActorReport, ActorStatus, GroupReport, StatusReply


def actor(address: str, **fields: Any) -> ActorStatus:
    values: dict[str, Any] = {
        "pid": 4000, "incarnation": 1, "restarts": 0, "state": "ready", "uptime_ms": 61_000, "memory_bytes": 5 << 20
    }  # fmt: skip
    report = ActorReport(
        **{name: fields.pop(name) for name in ("alarms", "retrying", "group") if name in fields}
    )
    return ActorStatus(address=Address.parse(address), report=report, **{**values, **fields})


def shown(*actors: ActorStatus) -> str:
    reply = StatusReply(
        supervisor_pid=3999,
        instance_id="i",
        data_directory="/data",
        endpoint="tcp://127.0.0.1:5570",
        uptime_ms=90_000_000,
        actors=list(actors),
    )
    console = Console(width=80, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    with console.file:
        console.print(render(described_status(reply)), soft_wrap=True)
        return console.export_text()


def test_the_tree_in_its_order() -> None:
    text = shown(
        actor("controller"),
        actor("partition/A/10"),
        actor("partition/A/9"),
        actor("gateway/0"),
        actor("coordinator/b"),
    )
    addresses = [line.split()[1] for line in text.splitlines() if line[:1] in "├└" and line]
    assert addresses == ["controller", "partition/A/9", "partition/A/10", "gateway/0", "coordinator/b"]
    assert text.count("└") == 1
    assert "5 actors, 25.0 MiB" in text
    assert "1d 1h" in text


def test_members_of_groups_that_are_no_processes_of_the_broker_are_counted() -> None:
    text = shown(
        actor(
            "coordinator/billing", group=GroupReport(type="consumer", state="stable", members=5, generation=3)
        ),
        actor(
            "coordinator/mail", group=GroupReport(type="consumer", state="stable", members=1, generation=1)
        ),
        actor("coordinator/jobs", group=GroupReport(type="share", state="stable", members=1, generation=0)),
        actor("subscriber/billing/1"),
        actor("deployed/billing/1"),
        actor("subscriber/billing/2", pid=None, state="backing_off"),
        actor("subscriber/mail/1"),
    )
    assert "billing: 3 members elsewhere; planaria group describe billing  shows them" in text
    assert "jobs: 1 member elsewhere" in text
    assert "mail: " not in text
    group = GroupReport(type="consumer", state="stable", members=1, generation=1)
    text = shown(*(actor(f"coordinator/g{number}", group=group) for number in range(25)))
    assert text.count("1 member elsewhere") == 20
    assert "and 5 more groups with members elsewhere" in text


def test_trouble_is_explained() -> None:
    text = shown(
        actor("controller", reason="killed by SIGKILL", restarts=1),
        actor(
            "partition/A/0",
            pid=None,
            state="quarantined",
            reason="ValueError: 7",
            traceback="Traceback\n  File x\n    f()\nValueError: 7\n",
        ),
        actor("gateway/0", pid=None, state="backing_off", reason="killed by SIGSEGV"),
    )
    assert "killed by SIGKILL" not in text
    assert "partition/A/0 is quarantined: ValueError: 7\n    File x\n      f()\n  ValueError: 7\n" in text
    assert "planaria revive partition/A/0" in text
    assert "gateway/0 is backing_off: killed by SIGSEGV" in text
    assert "planaria revive gateway/0" not in text


def test_a_long_address_stays_whole() -> None:
    address = "partition/" + "LONG" * 50 + "/0"
    text = shown(actor(address, pid=4194304, incarnation=120, state="quarantined"))
    assert address in text
    assert "4194304" in text
    assert "quarantined" in text


def successor(broker: ServedBroker, before: dict[str, Any]) -> dict[str, Any]:
    """Return the actor's next incarnation, once the supervisor has confirmed the death of the previous one."""
    deadline = time.monotonic() + TIMEOUT_S
    while (after := find(broker, before["address"]))["incarnation"] == before["incarnation"]:
        assert time.monotonic() < deadline
    return after


@pytest.mark.processes
def test_what_is_killed_regrows(broker: ServedBroker) -> None:
    broker.run("topic", "create", "REGROW", "--if-not-exists")
    before = find(broker, "partition/REGROW/0")
    assert set(before) == set(ShownStatus.__struct_fields__)
    assert "messages_out" in before["counters"]
    killed = broker.json("kill", "partition/REGROW/0")
    assert killed == {
        "address": "partition/REGROW/0",
        "signal": "SIGKILL",
        "pid": before["pid"],
        "incarnation": before["incarnation"],
    }
    after = successor(broker, before)
    assert after["restarts"] == before["restarts"] + 1
    assert "partition/REGROW/0" in broker.run("status")


@pytest.mark.processes
def test_the_gateway_takes_its_answer_with_it(broker: ServedBroker) -> None:
    before = find(broker, "gateway/0")
    killed = broker.json("kill", "gateway/0")
    assert (killed["pid"], killed["incarnation"]) == (before["pid"], before["incarnation"])
    assert successor(broker, before)["incarnation"] == before["incarnation"] + 1


@pytest.mark.processes
def test_signals_by_their_short_names(broker: ServedBroker) -> None:
    assert broker.run("kill", "controller", "-s", "cont").startswith("sent SIGCONT to controller (pid ")
    assert broker.run("revive", "controller") == "controller is ready: nothing to do\n"


@pytest.mark.processes
def test_watch_until_ctrl_c(broker: ServedBroker) -> None:
    watching = Command("status", "--watch", "--json", "--interval", "0.1", "--connect", broker.endpoint)
    try:
        lines = [watching.line() for _ in range(3)]
        assert all(line.startswith('{"supervisor_pid":') for line in lines)
        watching.interrupt()
        code, _, errors = watching.finish()
        assert (code, errors) == (130, "")
    finally:
        watching.close()


def find(broker: ServedBroker, address: str) -> dict[str, Any]:
    actors: list[dict[str, Any]] = broker.json("status")["actors"]
    return next(found for found in actors if found["address"] == address)

"""The tree as the page has it: changes by answers of the supervisor, and the rates that follow from counters."""

from typing import Any

from planaria.supervisor.console.tree_view import TreeView
from planaria.transport.addresses import Address
from planaria.transport.client.descriptions import described_status
from planaria.transport.protocol.operations import ActorReport, ActorStatus, StatusReply

NOW_MS = 1_700_000_000_000
PARTITION = "partition/ORDERS/0"


def actor(address: str = PARTITION, messages_in: int = 0, **fields: Any) -> ActorStatus:
    values: dict[str, Any] = {
        "pid": 10, "incarnation": 1, "restarts": 0, "state": "ready", "uptime_ms": 60_000, "memory_bytes": 7,
        "report_age_ms": 100,
    }  # fmt: skip
    report = ActorReport(
        counters={"messages_in": messages_in, "bytes_in": 0, "messages_out": 0, "bytes_out": 0}
    )
    return ActorStatus(address=Address.parse(address), report=report, **{**values, **fields})


def reply(*actors: ActorStatus, version: int = 1, **fields: Any) -> Any:
    values: dict[str, Any] = {"instance_id": "a", "uptime_ms": 90_000} | fields
    return described_status(
        StatusReply(
            supervisor_pid=1,
            data_directory="/data",
            endpoint="e",
            actors=list(actors),
            version=version,
            **values,
        )
    )


def test_an_unchanged_answer_changes_nothing() -> None:
    view = TreeView()
    assert view.take(reply(actor()), NOW_MS).is_anew
    later = view.take(reply(actor(uptime_ms=61_000), uptime_ms=91_000), NOW_MS + 1_400)
    assert (later.nodes, later.removed) == ([], []), (
        "ages are points of time, whatever an answer is delayed by"
    )


def test_a_death_and_a_return_are_told_with_the_downtime() -> None:
    view = TreeView()
    view.take(reply(actor()), NOW_MS)
    dead = actor(
        state="backing_off", pid=None, reason="killed by SIGKILL", since_death_ms=20, report_age_ms=None
    )
    [death] = view.take(reply(dead, is_whole=False, version=2), NOW_MS + 500).nodes
    assert (death["state"], death["died_ms"], death["reason"]) == (
        "backing_off",
        NOW_MS + 480,
        "killed by SIGKILL",
    )
    back = actor(pid=11, incarnation=2, restarts=1, uptime_ms=30, since_death_ms=70, downtime_ms=45)
    [birth] = view.take(reply(back, is_whole=False, version=4), NOW_MS + 550).nodes
    assert (birth["incarnation"], birth["downtime_ms"], "died_ms" in birth) == (2, 45, False)
    assert view.version == 4


def test_a_rate_is_over_the_time_between_two_reports() -> None:
    view = TreeView()
    view.take(reply(actor(messages_in=1_000)), NOW_MS)
    view.take(reply(actor(messages_in=1_500, report_age_ms=100)), NOW_MS + 500)
    assert view.rates().messages_in == 1_000.0
    view.take(reply(actor(messages_in=1_500, report_age_ms=200)), NOW_MS + 600)
    assert view.rates().messages_in == 1_000.0, "the same report says nothing new"
    view.take(reply(actor(messages_in=1_500, report_age_ms=2_000)), NOW_MS + 2_400)
    assert view.rates().messages_in == 0.0, "a silent process does nothing"
    assert view.nodes()[0]["is_silent"]


def test_counters_of_another_incarnation_begin_at_zero() -> None:
    view = TreeView()
    view.take(reply(actor(messages_in=1_000_000)), NOW_MS)
    view.take(reply(actor(messages_in=500, incarnation=2, uptime_ms=1_100)), NOW_MS + 1_000)
    assert view.rates().messages_in == 500.0


def test_internal_topics_are_no_traffic_of_clients() -> None:
    view = TreeView()
    for number in (0, 1):
        view.take(reply(actor("partition/__offsets/0", 100 * number)), NOW_MS + 1_000 * number)
    assert view.rates().messages_in == 0.0


def test_those_that_are_gone_are_removed_by_either_answer() -> None:
    view = TreeView()
    view.take(reply(actor(), actor("coordinator/g"), actor("coordinator/h")), NOW_MS)
    assert view.take(reply(actor(), actor("coordinator/h")), NOW_MS).removed == ["coordinator/g"]
    assert view.take(reply(is_whole=False, removed=(Address.parse("coordinator/h"),)), NOW_MS).removed == [
        "coordinator/h"
    ]


def test_another_supervisor_is_asked_for_everything() -> None:
    view = TreeView()
    view.take(reply(actor(), version=900), NOW_MS)
    found = view.take(reply(instance_id="b", is_whole=False, version=901), NOW_MS)
    assert (found.is_anew, view.version, view.nodes()) == (True, None, [])

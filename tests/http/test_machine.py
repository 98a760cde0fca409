"""Routes of the HTTP actor: one look serves all who wait for it, and probes say why they refuse."""

import json
from typing import Any

import msgspec
import pytest

from planaria.actors.http.connections import Connections
from planaria.actors.http.effects import Arrived, Drained, Measure, Measured, Opened, Send
from planaria.actors.http.looks import FRESH_MS, LOOK_MS, ClusterCall, LookTimer, ReportsCall, TopicsCall
from planaria.actors.http.machine import HttpMachine
from planaria.transport.addresses import CONTROLLER, Address
from planaria.transport.machine import Answered, Call, Failed, TimerFired
from planaria.transport.protocol.cluster import ClusterStatusReply, NodeReport
from planaria.transport.protocol.control import ActorReportsReply, ReportedActor
from planaria.transport.protocol.errors import ErrorBody
from planaria.transport.protocol.operations import ActorReport, ActorState, LogReport
from planaria.transport.protocol.topics import ListTopicsReply

DISK = "producers are refused: the disk has 5 bytes free, the reserve is 10"


def actor(address: Address, state: ActorState = "ready", report: ActorReport | None = None) -> ReportedActor:
    raw = msgspec.Raw(msgspec.msgpack.encode(report or ActorReport()))
    return ReportedActor(
        address=address,
        pid=7,
        incarnation=1,
        restarts=0,
        hangs=0,
        state=state,
        uptime_ms=1,
        report=raw,
    )


def partition(state: ActorState = "ready", *alarms: str, in_sync: int = 1) -> ReportedActor:
    log = LogReport(
        role="leader",
        leader_epoch=0,
        log_start_offset=0,
        high_watermark=3,
        log_end_offset=3,
        size_bytes=9,
        replicas=max(1, in_sync),
        in_sync=in_sync,
    )
    return actor(Address("partition", "T", 0), state, ActorReport(alarms=alarms, log=log))


GATEWAY = actor(Address("gateway", number=0))
HEALTHY = [actor(CONTROLLER), GATEWAY, partition()]


class Run:
    def __init__(self, node: str = "") -> None:
        self.machine = HttpMachine(node=node, version="0", is_first=True, with_kafka_names=False)
        self.now = 0
        self.answers: dict[int, tuple[int, str]] = {}
        self.calls: list[Any] = []

    def handle(self, event: Any) -> None:
        for effect in self.machine.handle(event, self.now):
            if isinstance(effect, Send):
                head, _, body = effect.data.decode().partition("\r\n\r\n")
                self.answers[effect.connection] = int(head.split()[1]), body
                self.handle(Drained(effect.connection))
            elif isinstance(effect, Call):
                self.calls.append(effect.key)
            elif isinstance(effect, Measure):
                self.handle(Measured(dict.fromkeys(effect.pids, 100), 1, 2))

    def get(self, number: int, path: str, method: str = "GET") -> None:
        self.handle(Opened(number))
        self.handle(Arrived(number, f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()))

    def answer(self, actors: list[ReportedActor]) -> None:
        self.handle(Answered(ReportsCall(), ActorReportsReply(supervisor_pid=1, uptime_ms=5, actors=actors)))
        self.handle(Answered(TopicsCall(), ListTopicsReply(topics=[])))


def test_one_look_serves_all_who_wait_and_those_who_come_soon_after() -> None:
    run = Run()
    run.get(1, "/metrics")
    run.get(2, "/metrics/detailed")
    run.get(3, "/readyz")
    assert len(run.calls) == 2
    run.answer(HEALTHY)
    assert {number: status for number, (status, _) in run.answers.items()} == {1: 200, 2: 200, 3: 200}
    assert 'planaria_actors{actor_kind="partition",state="ready"} 1\n' in run.answers[1][1]
    assert 'planaria_partition_high_watermark{topic="T",partition="0"} 3\n' in run.answers[2][1]
    run.get(4, "/metrics")
    assert run.answers[4] == run.answers[1]
    run.now += FRESH_MS
    run.get(5, "/metrics")
    assert len(run.calls) == 4


def test_a_silent_supervisor_fails_the_probe_and_not_the_process() -> None:
    run = Run()
    run.get(1, "/readyz")
    run.get(2, "/metrics")
    run.now += LOOK_MS
    run.handle(TimerFired(LookTimer()))
    assert (run.answers[1][0], run.answers[2][0]) == (503, 503)
    run.get(3, "/healthz")
    assert run.answers[3][0] == 200


@pytest.mark.parametrize(
    ("actors", "is_ready", "reason"),
    [
        ([GATEWAY], False, "the controller is not started"),
        ([actor(CONTROLLER), actor(GATEWAY.address, "starting")], False, "gateway/0 is starting"),
        ([actor(CONTROLLER), GATEWAY, partition("recovering")], False, "partition/T/0 is recovering"),
        ([actor(CONTROLLER), GATEWAY, partition("ready", DISK)], False, DISK),
        ([actor(CONTROLLER), GATEWAY, partition("quarantined")], True, "partition/T/0 is quarantined"),
        ([actor(CONTROLLER), GATEWAY, partition("ready", "corrupt")], True, "partition/T/0: corrupt"),
        ([actor(CONTROLLER), GATEWAY, partition("asleep")], True, ""),
    ],
    ids=["no controller", "gateway", "recovery", "disk", "quarantine", "alarm", "asleep"],
)
def test_readiness_is_of_clients_and_strict_readiness_of_operators(
    actors: list[ReportedActor], is_ready: bool, reason: str
) -> None:
    run = Run()
    run.get(1, "/readyz")
    run.get(2, "/readyz?strict=1")
    run.answer(actors)
    assert run.answers[1][0] == (200 if is_ready else 503)
    assert run.answers[2][0] == (503 if reason else 200)
    assert json.loads(run.answers[2][1])["reasons"] == ([reason] if reason else [])


def test_a_controller_that_refuses_is_not_ready() -> None:
    run = Run()
    run.get(1, "/readyz")
    run.handle(Answered(ReportsCall(), ActorReportsReply(supervisor_pid=1, uptime_ms=5, actors=HEALTHY)))
    run.handle(Failed(TopicsCall(), ErrorBody("ACTOR_UNAVAILABLE", "no session", True)))
    assert run.answers[1][0] == 503
    assert "no session" in run.answers[1][1]


@pytest.mark.parametrize("refusal", ["", "without this node T/0 would be below min_in_sync_replicas"])
def test_a_node_that_others_need_is_critical(refusal: str) -> None:
    run = Run(node="n1")
    run.get(1, "/critical")
    run.answer(HEALTHY)
    assert not run.answers, "the view of the cluster is missing"
    own = NodeReport(
        node="n1",
        state="alive",
        endpoint=None,
        peer_endpoint=None,
        rack=None,
        cordoned=False,
        draining=False,
        leaving=False,
        stopping=False,
        stop_refusal=refusal,
        replicas=1,
        leaders=1,
        under_replicated=0,
    )
    view = ClusterStatusReply(cluster="c", node="n1", leading="n1", nodes=[own], partitions=[], unplaced="")
    run.handle(Answered(ClusterCall(), view))
    assert run.answers[1][0] == (503 if refusal else 200)
    run.get(2, "/metrics")
    assert f"planaria_node_critical {int(bool(refusal))}\n" in run.answers[2][1]


def test_other_paths_and_methods_are_problems() -> None:
    run = Run()
    run.get(1, "/nothing")
    run.get(2, "/metrics", "POST")
    run.get(3, "/", "HEAD")
    assert [run.answers[number][0] for number in (1, 2, 3)] == [404, 405, 200]
    assert json.loads(run.answers[1][1]) == {
        "status": 404,
        "title": "Not Found",
        "detail": "there is no /nothing",
    }


def test_a_client_that_has_gone_gets_no_page() -> None:
    run = Run()
    run.get(1, "/metrics")
    connections: Connections = run.machine.connections
    connections.on_ended(1)
    run.answer(HEALTHY)
    assert run.answers == {}

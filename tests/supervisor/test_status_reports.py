"""Status is answered in a bounded time, however many actors there are, and measured completely in the end."""

from planaria.supervisor.events import ReportStatus
from planaria.supervisor.status_reports import MAX_REPORTS, REPORT_MS, VALID_MS, StatusReports
from planaria.transport.addresses import Address
from planaria.transport.machine import Reply, Sender
from planaria.transport.protocol.operations import ActorStatus, StatusReply

SLICE_MS = 1


class Reports:
    def __init__(self, actors: int) -> None:
        self.now = 0
        self.measured: list[int] = []
        self.actors = actors
        self._reports = StatusReports(self._measure)

    def _measure(self, pid: int) -> int:
        self.measured.append(pid)
        return 1_000 + pid

    def ask(self, who: int = 1, *, is_urgent: bool = False) -> None:
        actors = [
            ActorStatus(
                address=Address.parse(f"partition/T/{pid}"), pid=pid or None, incarnation=1, restarts=0, state="ready",
                uptime_ms=1, memory_bytes=0,
            )
            for pid in range(self.actors)
        ]  # fmt: skip
        body = StatusReply(
            supervisor_pid=1, instance_id="i", data_directory="d", endpoint="e", uptime_ms=1, actors=actors
        )
        self._reports.add(ReportStatus(Sender((b"x",), who), body), self.now, is_urgent=is_urgent)

    def turn(self) -> list[Reply]:
        reply = self._reports.step(self.now)
        self.now += SLICE_MS
        return [] if reply is None else [reply]

    def finish(self) -> list[Reply]:
        replies: list[Reply] = []
        while self._reports:
            replies += self.turn()
        return replies


def memories(reply: Reply) -> list[int]:
    assert isinstance(reply.body, StatusReply)
    return [actor.memory_bytes for actor in reply.body.actors]


def test_a_few_actors_are_all_measured_first() -> None:
    reports = Reports(actors=15)
    reports.ask()
    (reply,) = reports.finish()
    assert memories(reply) == [0, *range(1_001, 1_015)], "one has no process"


def test_for_an_urgent_report_nothing_is_measured_and_it_shows_the_last_measurements() -> None:
    reports = Reports(actors=3)
    reports.ask(is_urgent=True)
    (reply,) = reports.finish()
    assert memories(reply) == [0, 0, 0]
    assert reports.measured == []
    reports.ask()
    reports.finish()
    reports.ask(is_urgent=True)
    (reply,) = reports.turn()
    assert memories(reply) == [0, 1_001, 1_002]


def test_a_thousand_actors_are_answered_in_time_and_measured_afterwards() -> None:
    reports = Reports(actors=1_000)
    reports.ask()
    replies: list[Reply] = []
    while not replies:
        replies = reports.turn()
    assert reports.now <= REPORT_MS + 2 * SLICE_MS
    assert len(reports.measured) < 100
    assert reports.finish() == [], "answered once"
    assert sorted(reports.measured) == list(range(1, 1_000))
    reports.now += VALID_MS
    reports.ask()
    (reply,) = reports.finish()
    assert memories(reply)[1:] == list(range(1_001, 2_000))


def test_actors_that_were_never_measured_come_first() -> None:
    reports = Reports(actors=50)
    reports.ask()
    reports.finish()
    reports.now += VALID_MS
    reports.actors, reports.measured = 60, []
    reports.ask()
    reports.finish()
    assert reports.measured[:10] == list(range(50, 60))
    assert sorted(reports.measured) == list(range(1, 60))


def test_a_process_is_measured_once_a_second_however_often_status_is_asked_for() -> None:
    reports = Reports(actors=3)
    for _ in range(5):
        reports.ask()
        (reply,) = reports.finish()
        assert memories(reply) == [0, 1_001, 1_002]
    assert reports.measured == [1, 2]
    reports.now += VALID_MS
    reports.ask()
    reports.finish()
    assert reports.measured == [1, 2, 1, 2]


def test_each_asker_is_answered_in_time() -> None:
    reports = Reports(actors=1_000)
    answered = {}
    for who in range(5):
        reports.ask(who)
        answered |= {reply.to.id: reports.now for reply in reports.turn()}
    while reports._reports:
        answered |= {reply.to.id: reports.now for reply in reports.turn()}
    assert set(answered) == set(range(5))
    assert max(answered.values()) <= 5 * SLICE_MS + REPORT_MS + SLICE_MS


def test_a_flood_of_requests_is_read_no_further_and_answered_one_a_turn() -> None:
    reports = Reports(actors=100)
    for who in range(MAX_REPORTS):
        assert not reports._reports.is_full
        reports.ask(who)
    assert reports._reports.is_full
    answered = []
    while len(answered) < MAX_REPORTS:
        replies = reports.turn()
        assert len(replies) <= 1
        answered += [reply.to.id for reply in replies]
        assert reports._reports.is_full == (not answered)
    assert answered == list(range(MAX_REPORTS))
    assert reports.now <= REPORT_MS + 2 * MAX_REPORTS * SLICE_MS

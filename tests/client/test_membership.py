"""A member's exchange with its coordinator, event by event."""

from typing import Any

from planaria.transport.client.membership import (
    Confirmed,
    GroupTrouble,
    LeaveRequested,
    MemberLeft,
    Membership,
    PollChecked,
    Polled,
    Target,
)
from planaria.transport.client.options import ConsumerOptions
from planaria.transport.machine import Answered, Call, CancelTimer, Failed, SetTimer, TimerFired
from planaria.transport.protocol.errors import RETRIABLE, ErrorBody, ErrorCode
from planaria.transport.protocol.groups import GroupHeartbeat, GroupHeartbeatReply, LeaveGroup
from planaria.transport.protocol.message import Done

A0, A1 = ("A", 0), ("A", 1)


class MemberScript:
    def __init__(self, **options: Any) -> None:
        settings = ConsumerOptions(**({"session_timeout_ms": 9_000, "max_poll_interval_ms": 1_000} | options))
        self.machine = Membership("g", ["A"], settings, name="n", jitter=lambda: 0.0)
        self.now = 1_000
        self.beats: list[Call] = []
        self.leaves: list[Call] = []
        self.timers: dict[Any, int] = {}

    def feed(self, event: Any) -> list[Any]:
        """Return the events that the program receives."""
        news = []
        for effect in self.machine.handle(event, self.now):
            match effect:
                case Call(request=GroupHeartbeat()):
                    self.beats.append(effect)
                case Call(request=LeaveGroup()):
                    self.leaves.append(effect)
                case SetTimer(key=key, at=at):
                    self.timers[key] = at
                case CancelTimer(key=key):
                    self.timers.pop(key, None)
                case _:
                    news.append(effect)
        return news

    def reply(self, partitions: list[int], generation: int = 1, beat: int = -1) -> list[Any]:
        self.now += 100
        assignment = {"A": partitions} if partitions else {}
        reply = GroupHeartbeatReply(
            member_id="m", generation=generation, assignment=assignment, heartbeat_interval_ms=3_000
        )
        return self.feed(Answered(self.beats[beat].key, reply))

    def refuse(self, code: ErrorCode) -> list[Any]:
        return self.feed(Failed(self.beats[-1].key, ErrorBody(code, "no", code in RETRIABLE)))

    def join(self, partitions: list[int]) -> None:
        self.feed(Polled())
        self.reply(partitions)
        self.feed(Confirmed(frozenset(("A", number) for number in partitions)))

    @property
    def last(self) -> Any:
        return self.beats[-1].request


def test_a_poll_joins_and_the_reply_is_the_target() -> None:
    script = MemberScript()
    script.feed(Polled())
    assert (script.last.member_id, script.last.topics, script.last.max_wait_ms) == ("n-1", ["A"], 0)
    assert script.reply([0, 1]) == [Target(frozenset({A0, A1}))]
    assert (script.last.member_id, script.last.generation, script.last.owned) == ("m", 1, {})
    assert script.last.max_wait_ms > 0, "parked from now on"
    assert script.feed(Polled()) == []


def test_what_the_program_confirmed_is_reported_at_once() -> None:
    script = MemberScript()
    script.join([0, 1])
    assert script.last.owned == {"A": [0, 1]}


def test_a_revoked_partition_is_reported_until_the_program_lets_go() -> None:
    script = MemberScript()
    script.join([0, 1])
    assert script.reply([1], generation=2) == [Target(frozenset({A1}))]
    assert (script.last.generation, script.last.owned) == (2, {"A": [0, 1]})
    beats = len(script.beats)
    script.feed(Confirmed(frozenset({A1})))
    assert len(script.beats) == beats + 1
    assert script.last.owned == {"A": [1]}


def test_only_the_latest_heartbeat_counts() -> None:
    script = MemberScript()
    script.join([0])
    assert script.reply([0, 1], generation=2, beat=-2) == []


def test_a_coordinator_that_repeats_itself_is_not_asked_in_a_loop() -> None:
    script = MemberScript()
    script.join([0])
    beats = len(script.beats)
    script.now -= 100  # answered in no time
    script.reply([0])
    assert len(script.beats) == beats
    assert "beat again" in script.timers


def test_a_fenced_member_drops_everything_and_joins_anew() -> None:
    for code in (ErrorCode.FENCED_MEMBER, ErrorCode.UNKNOWN_MEMBER, ErrorCode.STALE_GENERATION):
        script = MemberScript()
        script.join([0])
        assert script.refuse(code) == [Target(frozenset(), is_lost=True)]
        assert (script.last.member_id, script.last.owned) == ("n-2", {})
        assert script.machine.identity == ("n-2", 0, 1), (
            "what was reached before is not committed as this one"
        )


def test_a_static_member_that_is_replaced_does_not_fight_back() -> None:
    script = MemberScript(instance_id="i")
    script.join([0])
    lost, trouble = script.refuse(ErrorCode.FENCED_MEMBER)
    assert lost == Target(frozenset(), is_lost=True)
    assert isinstance(trouble, GroupTrouble)
    assert script.machine.state == "out"


def test_an_unavailable_coordinator_is_asked_again_with_backoff() -> None:
    script = MemberScript()
    script.join([0])
    beats = len(script.beats)
    assert script.refuse(ErrorCode.ACTOR_UNAVAILABLE) == []
    assert script.timers["beat again"] == script.now + 10
    script.feed(TimerFired("beat again"))
    assert len(script.beats) == beats + 1
    assert script.last.owned == {"A": [0]}


def test_after_a_failure_the_next_heartbeat_is_not_parked() -> None:
    """A gateway that dies more often than heartbeats are parked would never answer one, and the session would end."""
    script = MemberScript()
    script.join([0])
    assert script.beats[-1].request.max_wait_ms == 3_000  # type: ignore[attr-defined]
    script.refuse(ErrorCode.ACTOR_UNAVAILABLE)
    script.feed(TimerFired("beat again"))
    assert script.beats[-1].request.max_wait_ms == 0  # type: ignore[attr-defined]
    script.reply([0])
    assert script.timers["lease"] == script.now - 100 + 9_000
    assert script.beats[-1].request.max_wait_ms == 3_000  # type: ignore[attr-defined]


def test_a_session_without_contact_is_over() -> None:
    script = MemberScript()
    script.join([0])
    assert script.timers["lease"] <= script.now + 9_000
    assert script.feed(TimerFired("lease")) == [Target(frozenset(), is_lost=True)]
    assert (script.last.member_id, script.last.generation, script.last.owned) == ("m", 0, {})
    assert script.machine.identity.losses == 1
    assert script.reply([0]) == [Target(frozenset({A0}))], "given back if the coordinator still knows it"


def test_a_program_that_does_not_poll_leaves_and_rejoins_by_polling() -> None:
    script = MemberScript()
    script.join([0])
    assert script.feed(PollChecked(script.now - 1_000)) == []
    assert script.feed(PollChecked(script.now - 1_001)) == [Target(frozenset(), is_lost=True)]
    assert script.leaves[-1].request.member_id == "m"  # type: ignore[attr-defined]
    assert script.machine.state == "out"
    script.feed(Polled())
    assert script.last.member_id == "n-2"


def test_leaving_is_told_to_the_group() -> None:
    script = MemberScript()
    script.join([0])
    assert script.feed(LeaveRequested()) == []
    assert script.feed(Answered(script.leaves[-1].key, Done())) == [MemberLeft()]
    never_joined = MemberScript()
    assert never_joined.feed(LeaveRequested()) == [MemberLeft()]


def test_a_member_that_keeps_its_place_tells_nobody() -> None:
    script = MemberScript(instance_id="i")
    script.join([0])
    beats = len(script.beats)
    assert script.feed(LeaveRequested(is_notified=False)) == [MemberLeft()]
    assert (script.leaves, len(script.beats), script.machine.state) == ([], beats, "out")


def test_a_confirmation_from_before_the_loss_is_void() -> None:
    script = MemberScript()
    script.join([0])
    script.refuse(ErrorCode.UNKNOWN_MEMBER)
    script.feed(Confirmed(frozenset({A0})))
    assert script.last.owned == {}


def test_a_refused_group_is_the_programs_business() -> None:
    script = MemberScript()
    script.feed(Polled())
    (trouble,) = script.refuse(ErrorCode.GROUP_FULL)
    assert trouble.error.code == ErrorCode.GROUP_FULL
    script.feed(Polled(refusals=1))
    assert len(script.beats) == 2


def test_a_program_that_has_not_heard_of_a_refusal_does_not_ask_again() -> None:
    script = MemberScript()
    script.feed(Polled())
    script.refuse(ErrorCode.GROUP_FULL)
    script.feed(Polled(refusals=0))
    assert len(script.beats) == 1


def test_a_replaced_static_member_never_takes_its_place_back() -> None:
    script = MemberScript(instance_id="i")
    script.join([0])
    beats = len(script.beats)
    script.refuse(ErrorCode.FENCED_MEMBER)
    for refusals in range(3):
        script.feed(Polled(refusals=refusals))
    assert (len(script.beats), script.machine.state) == (beats, "out")


def test_a_join_whose_answer_is_lost_finds_itself() -> None:
    script = MemberScript()
    script.feed(Polled())
    script.refuse(ErrorCode.ACTOR_UNAVAILABLE)
    script.feed(TimerFired("beat again"))
    assert [beat.request.member_id for beat in script.beats] == ["n-1", "n-1"]  # type: ignore[attr-defined]


def test_a_join_that_is_refused_is_tried_under_another_name_after_a_while() -> None:
    script = MemberScript()
    script.feed(Polled())
    assert script.refuse(ErrorCode.UNKNOWN_MEMBER) == []
    assert len(script.beats) == 1
    script.feed(TimerFired("beat again"))
    assert script.last.member_id == "n-2"


def test_who_ends_before_the_answer_to_its_join_leaves_all_the_same() -> None:
    script = MemberScript()
    script.feed(Polled())
    assert script.feed(LeaveRequested()) == []
    assert script.leaves[-1].request.member_id == "n-1"  # type: ignore[attr-defined]

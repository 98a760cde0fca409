"""The life cycle shared by actors with a journal, and their allocation of producer ids; no process."""

from typing import Any

import pytest

from model_partition import ModelPartition
from planaria.actors.journal.effects import JournalOpened
from planaria.actors.journal.identity import NO_START, Start
from planaria.actors.journal.phases import STOP, STOP_WAIT_MS, Disposition, Phases
from planaria.actors.journal.producer_ids import INIT, ProducerIds
from planaria.actors.journal.replay import Replay
from planaria.transport.addresses import CONTROLLER
from planaria.transport.machine import (
    Answered,
    Call,
    CancelTimer,
    Failed,
    PeerUp,
    Received,
    Reply,
    Sender,
    SetTimer,
    Stop,
    StopRequested,
    TimerFired,
)
from planaria.transport.protocol.data import Fetch, FetchReply, InitProducer, InitProducerReply, ProduceReply
from planaria.transport.protocol.errors import ErrorBody, ErrorCode

NOW = 1_700_000_000_000
SENDER = Sender((b"x",), 1)
ASKED = Received(SENDER, InitProducer())
LOST = ErrorBody(ErrorCode.TIMED_OUT, "no answer in time", True)


class StartsOnly:
    """A ledger that records only the take-overs."""

    def __init__(self) -> None:
        self.start = Start(NO_START, "")

    def claim(self, start: Start) -> Any:
        self._claimed = start
        return (b"start", b"", 0, None)

    def forget(self) -> None:
        pass

    def read(self, header: Any, records: Any) -> None:
        self.start = self._claimed

    def settle(self) -> None:
        pass


def new_phases() -> Phases:
    replay = Replay("transactions/0", "__transactions", 0, "run.1", StartsOnly())
    return Phases(replay, while_replaying="not yet", while_stopping="no more")


def serving() -> Phases:
    """Replay from an empty partition, step by step; the machine starts at the end and not before."""
    phases, log = new_phases(), ModelPartition()
    [call], left = phases.handle(JournalOpened(), NOW)
    for _ in range(3):
        assert isinstance(call, Call)
        assert left is Disposition.NOTHING
        effects, left = phases.handle(answer(call, log), NOW)
        if effects:
            [call] = effects
    assert left is Disposition.BEGIN
    return phases


def answer(call: Call, log: ModelPartition) -> Answered:
    if not isinstance(call.request, Fetch):
        result = log.produce(bytes(call.payload[0]))
        return Answered(call.key, ProduceReply(batches=[result], high_watermark=log.end_offset))
    frames, next_offset = log.read(call.request.offset, 1_000_000)
    reply = FetchReply(
        topic="__transactions", partition=0, log_start_offset=0,
        high_watermark=log.end_offset, next_offset=next_offset,
    )  # fmt: skip
    return Answered(call.key, reply, (b"".join(frames),))


def refusal(code: ErrorCode, message: str) -> list[Reply]:
    return [Reply(SENDER, ErrorBody(code, message, True))]


def test_requests_during_the_replay_are_refused_as_retriable() -> None:
    phases = new_phases()
    phases.handle(JournalOpened(), NOW)
    assert phases.handle(ASKED, NOW) == (refusal(ErrorCode.ACTOR_UNAVAILABLE, "not yet"), Disposition.NOTHING)


def test_a_stop_during_the_replay_ends_the_actor_at_once() -> None:
    phases = new_phases()
    phases.handle(JournalOpened(), NOW)
    assert phases.handle(StopRequested(NOW + 5_000), NOW) == (
        [Stop("stopped while replaying")],
        Disposition.NOTHING,
    )


@pytest.mark.parametrize(
    "event", [ASKED, TimerFired("any"), Failed("any", LOST), PeerUp("any", 1, "ipc://any")]
)
def test_what_comes_to_a_serving_actor_is_its_machine_s(event: Any) -> None:
    assert serving().handle(event, NOW) == ([], Disposition.EVENT)


def test_a_stopping_actor_refuses_requests_and_hears_everything_else() -> None:
    phases = serving()
    assert not phases.is_stopping
    assert phases.handle(StopRequested(NOW + 5_000), NOW) == (
        [SetTimer(STOP, NOW + STOP_WAIT_MS)],
        Disposition.CLOSE,
    )
    assert phases.is_stopping
    assert phases.handle(ASKED, NOW) == (refusal(ErrorCode.SHUTTING_DOWN, "no more"), Disposition.NOTHING)
    assert phases.handle(Answered("any", None), NOW) == ([], Disposition.EVENT)


def test_a_stop_does_not_wait_for_ever() -> None:
    phases = serving()
    phases.handle(StopRequested(NOW + 5_000), NOW)
    [effect], left = phases.handle(TimerFired(STOP), NOW + STOP_WAIT_MS)
    assert (type(effect), left) == (Stop, Disposition.NOTHING)


def test_one_producer_id_is_asked_for_at_a_time() -> None:
    ids = ProducerIds()
    [call] = ids.ask()
    assert isinstance(call, Call)
    assert call.address == CONTROLLER
    assert ids.ask() == []
    reply = InitProducerReply(producer_id=7, producer_epoch=0)
    assert ids.handle(Answered(INIT, reply), NOW) == ([], 7)
    assert ids.ask() == [call]


@pytest.mark.parametrize("back", [TimerFired("init_retry"), PeerUp(CONTROLLER, 2, "ipc://any")])
def test_a_producer_id_that_did_not_come_is_asked_for_again(back: Any) -> None:
    ids = ProducerIds()
    [call] = ids.ask()
    [timer], nothing = ids.handle(Failed(INIT, LOST), NOW)
    assert isinstance(timer, SetTimer)
    assert nothing is None
    assert ids.ask() == [], "the pause is kept"
    for other in (TimerFired("another"), PeerUp("partition/T/0", 2, "ipc://any")):
        assert ids.handle(other, NOW) == ([], None)
    assert ids.handle(back, NOW) == ([CancelTimer("init_retry"), call], None)
    assert ids.handle(back, NOW) == ([], None)

"""The machine shared by actors with a journal, and their allocation of producer ids; no process."""

from typing import Any, Never

import pytest

from model_partition import ModelPartition
from planaria.actors.journal.effects import (
    BecomeReady,
    JournalOpened,
    MarkAsleep,
    SaveSnapshot,
    TurnFlushed,
    TurnHandled,
)
from planaria.actors.journal.identity import NO_START, Start
from planaria.actors.journal.idleness import IdleTimer
from planaria.actors.journal.machine import (
    IDLE_CHECK_MS,
    REPLAYING,
    STOP_WAIT_MS,
    STOPPING,
    JournalMachine,
    StopTimer,
)
from planaria.actors.journal.producer_ids import ProducerIdCall, ProducerIds
from planaria.actors.journal.recorder import MAX_GATHERED, MAX_WAITING, Durable, Recorder
from planaria.actors.journal.replay import Replay
from planaria.actors.journal.service import Service
from planaria.actors.journal.snapshot import LogMark
from planaria.actors.journal.topics_watch import MAX_WAIT_MS, TopicsCall, TopicsWatch
from planaria.transport.addresses import CONTROLLER
from planaria.transport.machine import (
    Answered,
    Call,
    Failed,
    LoopEffect,
    LoopEvent,
    PeerUp,
    Received,
    Reply,
    Sender,
    SetTimer,
    Sleep,
    Stop,
    StopRequested,
    TimerFired,
)
from planaria.transport.protocol.data import Fetch, FetchReply, InitProducer, InitProducerReply, ProduceReply
from planaria.transport.protocol.errors import ErrorBody, ErrorCode, ProtocolError
from planaria.transport.protocol.message import Done
from planaria.transport.protocol.topics import WatchCatalog, WatchCatalogReply

NOW = 1_700_000_000_000
SENDER = Sender((b"x",), 1)
OTHER = Sender((b"y",), 1)
REQUEST = Received(SENDER, InitProducer())
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


class Numbers(Service[int, Never, Never]):
    """A service that records one number for each request, and notes the events that it receives."""

    def __init__(self, recorder: Recorder[int, Never]) -> None:
        self.recorder = recorder
        self.gathered: list[int] = []
        self.durable: list[int] = []
        self.events: list[LoopEvent] = []
        self.is_closed = False
        self.is_busy = False

    def handle(self, event: LoopEvent, now: int) -> list[LoopEffect]:
        self.events.append(event)
        if not isinstance(event, Received):
            return []
        self.gathered.append(len(self.events))
        return self.recorder.reply(event.sender, Done(), is_gathered=True)

    def on_durable(self, durable: Durable[int, Never], now: int) -> list[LoopEffect]:
        self.durable += durable.changes
        return []

    def take(self) -> list[int]:
        taken, self.gathered = self.gathered, []
        return taken

    def close(self, now: int) -> list[LoopEffect]:
        self.is_closed = True
        return []

    @property
    def snapshot_records(self) -> int:
        return 3

    def snapshot(self, mark: LogMark, now: int) -> bytes:
        return str(self.durable).encode()

    def is_working(self, now: int) -> bool:
        return self.is_busy

    def wake_after_ms(self, now: int) -> int:
        return 77


class Driven:
    """The machine of Numbers over a partition in memory, whose calls the test answers."""

    def __init__(self, idle_ms: int = 0) -> None:
        self.log = ModelPartition()
        self.machine: JournalMachine[int, Never, Never] = JournalMachine(
            Replay("transactions/0", "__transactions", 0, "run.1", StartsOnly()),
            lambda number: [(b"number", str(number).encode(), 0, None)],
            lambda recorder, _: Numbers(recorder),
            idle_ms=idle_ms,
        )

    @property
    def numbers(self) -> Numbers:
        assert isinstance(self.machine.service, Numbers)
        return self.machine.service

    def handle(self, event: Any, now: int = NOW) -> list[Any]:
        """Handle a turn with one event in it."""
        effects = self.machine.handle(event, now)
        if self.machine.is_turn_open:
            effects += [*self.machine.handle(TurnHandled(), now), *self.machine.handle(TurnFlushed(), now)]
        return effects

    def answer(self, call: Any) -> list[Any]:
        assert isinstance(call, Call)
        return self.handle(answer(call, self.log))

    def serve(self) -> list[Any]:
        """Replay from the empty partition; return the effects of the end."""
        effects = self.handle(JournalOpened())
        for _ in range(3):
            assert self.machine.service is None
            [call] = effects
            effects = self.answer(call)
        return effects


def serving(idle_ms: int = 0) -> Driven:
    driven = Driven(idle_ms)
    driven.serve()
    return driven


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


def test_an_actor_is_ready_when_its_state_is_complete_and_not_before() -> None:
    assert Driven().serve() == [BecomeReady()]


def test_requests_during_the_replay_are_refused_as_retriable() -> None:
    driven = Driven()
    driven.handle(JournalOpened())
    assert driven.handle(REQUEST) == [Reply(SENDER, REPLAYING)]
    assert (REPLAYING.code, REPLAYING.retriable) == (ErrorCode.ACTOR_UNAVAILABLE, True)


def test_a_stop_during_the_replay_ends_the_actor_at_once() -> None:
    driven = Driven()
    driven.handle(JournalOpened())
    assert driven.handle(StopRequested(NOW + 5_000)) == [Stop("stopped while replaying")]


@pytest.mark.parametrize(
    "event", [REQUEST, TimerFired("any"), Failed("any", LOST), PeerUp("any", 1, "ipc://any")]
)
def test_a_serving_actor_s_service_receives_every_event(event: Any) -> None:
    driven = serving()
    driven.handle(event)
    assert driven.numbers.events == [event]


def test_a_reply_waits_for_the_append_of_its_decision() -> None:
    driven = serving()
    [append] = driven.handle(REQUEST)
    assert driven.answer(append) == [Reply(SENDER, Done())]
    assert driven.numbers.durable == [1]


def test_the_requests_of_a_turn_are_one_flush_which_follows_the_answers_of_the_turn() -> None:
    driven = serving()
    machine = driven.machine
    assert machine.handle(REQUEST, NOW) == machine.handle(REQUEST, NOW) == []
    [append] = machine.handle(TurnHandled(), NOW)
    assert machine.handle(TurnFlushed(), NOW) == machine.handle(REQUEST, NOW) == []
    assert machine.handle(answer(append, driven.log), NOW) == [Reply(SENDER, Done())] * 2
    [second] = machine.handle(TurnHandled(), NOW)
    assert isinstance(second, Call)
    assert driven.numbers.durable == [1, 2]


def test_decisions_made_during_an_append_are_one_flush_after_it() -> None:
    driven = serving()
    [first] = driven.handle(REQUEST)
    assert driven.handle(REQUEST) == driven.handle(REQUEST) == []
    [reply, second] = driven.answer(first)
    assert isinstance(reply, Reply)
    replies = driven.answer(second)
    assert replies[:2] == [Reply(SENDER, Done())] * 2
    assert driven.numbers.durable == [1, 2, 3]


def test_an_append_is_attempted_until_it_is_answered() -> None:
    """A retry outside the call could not be the same bytes under the same sequence while the first is still in flight."""
    driven = serving()
    [append] = driven.handle(REQUEST)
    assert append.is_endless


def test_a_connection_with_half_of_the_waiting_replies_gets_no_more_and_another_one_does() -> None:
    driven = serving()
    for _ in range(MAX_WAITING // 2):
        driven.handle(REQUEST)
    recorder = driven.numbers.recorder
    with pytest.raises(ProtocolError):
        recorder.check_room(SENDER, 0)
    recorder.check_room(OTHER, 0)


def test_a_connection_with_half_of_the_gathered_changes_gets_no_more_and_another_one_does() -> None:
    driven = serving()
    driven.handle(REQUEST)
    recorder = driven.numbers.recorder
    recorder.check_room(SENDER, 0)
    with pytest.raises(ProtocolError):
        recorder.check_room(SENDER, MAX_GATHERED // 2)
    recorder.check_room(OTHER, MAX_GATHERED // 2)
    recorder.check_room(OTHER, MAX_GATHERED * 3 // 4 - 1)
    with pytest.raises(ProtocolError):
        recorder.check_room(OTHER, MAX_GATHERED * 3 // 4)


def test_a_snapshot_is_saved_when_enough_records_are_not_in_the_last_one() -> None:
    driven = serving()
    saved = []
    for _ in range(6):
        [append] = driven.handle(REQUEST)
        saved += [effect for effect in driven.answer(append) if isinstance(effect, SaveSnapshot)]
    # The start record counts as well.
    assert saved == [SaveSnapshot(b"[1, 2]"), SaveSnapshot(b"[1, 2, 3, 4, 5]")]


def test_a_stopping_actor_refuses_requests_and_handles_everything_else() -> None:
    driven = serving()
    [append] = driven.handle(REQUEST)
    assert driven.handle(StopRequested(NOW + 5_000)) == [SetTimer(StopTimer(), NOW + STOP_WAIT_MS)]
    assert driven.numbers.is_closed
    assert driven.handle(REQUEST) == [Reply(SENDER, STOPPING)]
    assert (STOPPING.code, STOPPING.retriable) == (ErrorCode.SHUTTING_DOWN, True)
    assert driven.handle(Answered("any", None)) == []
    assert driven.numbers.events[-1] == Answered("any", None)
    assert driven.answer(append) == [Reply(SENDER, Done()), SaveSnapshot(b"[1]"), Stop("stopped")]


def test_a_stop_does_not_wait_forever_for_an_append() -> None:
    driven = serving()
    driven.handle(REQUEST)
    driven.handle(StopRequested(NOW + 5_000))
    [effect] = driven.handle(TimerFired(StopTimer()), NOW + STOP_WAIT_MS)
    assert type(effect) is Stop


def test_an_idle_actor_saves_its_state_and_sleeps() -> None:
    driven = serving(idle_ms=1_000)
    effects = driven.handle(TimerFired(IdleTimer()), NOW + 1_000)
    assert effects == [
        SaveSnapshot(b"[]"),
        MarkAsleep(NOW + 1_077),
        Sleep("no requests, no work", 77),
    ]


def test_an_actor_with_work_or_an_append_in_flight_does_not_sleep() -> None:
    driven = serving(idle_ms=100_000)
    driven.numbers.is_busy = True
    later = NOW + 100_000
    assert driven.handle(TimerFired(IdleTimer()), later) == [SetTimer(IdleTimer(), later + IDLE_CHECK_MS)]
    driven.numbers.is_busy = False
    driven.handle(REQUEST)
    assert driven.handle(TimerFired(IdleTimer()), later) == [SetTimer(IdleTimer(), later + IDLE_CHECK_MS)]


def test_one_producer_id_is_requested_at_a_time() -> None:
    ids = ProducerIds()
    [call] = ids.request()
    assert isinstance(call, Call)
    assert call.address == CONTROLLER
    assert ids.request() == []
    reply = InitProducerReply(producer_id=7, producer_epoch=0)
    assert ids.handle(TimerFired("another")) is None
    assert ids.handle(Answered(ProducerIdCall(), reply)) == 7
    assert ids.request() == [call]


def test_the_request_for_a_producer_id_waits_for_the_controller() -> None:
    [call] = ProducerIds().request()
    assert isinstance(call, Call)
    assert call.is_endless


def test_topics_are_polled_from_the_start_again_after_a_failed_poll() -> None:
    watch = TopicsWatch()
    [everything] = watch.start()
    assert isinstance(everything, Call)
    assert everything.is_endless
    [poll], topics = watch.handle(Answered(TopicsCall(), WatchCatalogReply(version=7, topics=[])))
    assert topics == {}
    assert isinstance(poll, Call)
    assert not poll.is_endless
    assert poll.request == WatchCatalog(after_version=7, max_wait_ms=MAX_WAIT_MS)
    assert watch.handle(Failed(TopicsCall(), LOST)) == ([everything], None)

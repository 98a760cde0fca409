"""The consumer's machine without threads: the steps of a poll, their order, and invariants over random walks."""

import random
from collections import deque
from typing import Any

import pytest

from planaria.transport.addresses import TopicPartition
from planaria.transport.batch import build, stamp
from planaria.transport.client.commits import AutoCommit, CommitFirst
from planaria.transport.client.consuming import Action, Consuming, RunCallback
from planaria.transport.client.errors import CommitFailed, CorruptData, MemberFenced
from planaria.transport.client.fetching import (
    Chunk,
    Consumed,
    Located,
    SetPaused,
    StartFetching,
    StopFetching,
    Trouble,
)
from planaria.transport.client.membership import (
    Confirmed,
    GroupTrouble,
    LeaveRequested,
    MemberIdentity,
    MemberLeft,
    Polled,
    Target,
)
from planaria.transport.machine import Answered, Call, Failed
from planaria.transport.protocol.errors import ErrorBody, ErrorCode, PlanariaError
from planaria.transport.protocol.groups import CommitOffsetsReply

P, Q, R = (TopicPartition("T", number) for number in range(3))


def batch(first: int, count: int) -> bytes:
    records = [(None, b"%d" % offset, 0, None) for offset in range(first, first + count)]
    return bytes(stamp(build(records, first_timestamp_ms=5, max_timestamp_ms=5), first, 0))


class Driver:
    """A program and the network's half around one machine. Every log begins at offset 0 and is endless."""

    def __init__(
        self, *, group: str | None = "g", is_auto: bool = True, followed: tuple[str, ...] = ()
    ) -> None:
        self.now_s = 0.0
        self.machine = Consuming(
            group=group,
            is_member=group is not None,
            auto_commit=AutoCommit(is_auto and group is not None, 0.0, self.now_s),
            request_timeout_ms=1_000,
            followed=followed,
        )
        self.mailbox: deque[Any] = deque()
        self.log: list[Any] = []
        """Everything the machine asked for, in order."""
        self.followed: dict[TopicPartition, tuple[int, int | None]] = {}
        """Partitions that the network's half reads: epoch and next offset."""
        self.confirmed: frozenset[TopicPartition] = frozenset()
        self.asked: deque[Call] = deque()
        self.committed: dict[TopicPartition, int] = {}
        self.fails_with: BaseException | None = None
        self.counts: dict[str, int] = {}

    def join(self, number: int = 1, losses: int = 0) -> None:
        self.mailbox.append(MemberIdentity(f"m-{number}", number, losses))

    def flush(self) -> None:
        while self.machine.posts:
            event = self.machine.posts.popleft()
            self.log.append(event)
            match event:
                case StartFetching(starts=starts):
                    for tp, (epoch, offset) in starts.items():
                        self.followed[tp] = (epoch, offset)
                        if offset is not None:
                            self.mailbox.append(Located(tp, epoch, offset))
                case StopFetching(tps=tps):
                    for tp in tps:
                        self.followed.pop(tp, None)
                case Confirmed(owned=owned):
                    self.confirmed = owned
                case Call():
                    self.asked.append(event)

    def locate(self, tp: TopicPartition, offset: int) -> None:
        epoch, _ = self.followed[tp]
        self.followed[tp] = (epoch, offset)
        self.mailbox.append(Located(tp, epoch, offset))

    def fetch(self, tp: TopicPartition, count: int) -> None:
        epoch, offset = self.followed[tp]
        if offset is None:
            self.locate(tp, self.committed.get(tp, 0))
            offset = self.followed[tp][1]
        assert offset is not None
        frame = batch(offset, count)
        self.followed[tp] = (epoch, offset + count)
        self.mailbox.append(Chunk(tp, epoch, (frame,), len(frame), offset + count))

    def perform(self, action: Action) -> None:
        self.log.append(action)
        error, self.fails_with = self.fails_with, None
        if isinstance(action, CommitFirst) and error is None:
            self.committed.update(action.offsets)
        self.machine.performed(action, error)

    def catch_up(self) -> None:
        self.machine.accept(self.mailbox)
        try:
            while (action := self.machine.next_action()) is not None:
                self.flush()
                self.perform(action)
        finally:
            self.flush()

    def poll(self, count: int = 100) -> list[Any]:
        self.machine.begin_poll()
        self.catch_up()
        self.machine.follow_growth(self.counts.get)
        try:
            return self.machine.found(lambda: self.machine.reader.take(count), self.now_s) or []
        finally:
            self.flush()

    def take_log(self) -> list[Any]:
        log, self.log = self.log, []
        return log


def offsets(messages: list[Any]) -> list[tuple[int, int]]:
    return [(message.partition, message.offset) for message in messages]


def reading(*tps: TopicPartition, count: int = 3) -> Driver:
    """Return a member that owns the partitions and has returned `count` messages of each."""
    driver = Driver()
    driver.poll()
    driver.join()
    driver.mailbox.append(Target(frozenset(tps)))
    driver.poll()
    for tp in tps:
        driver.fetch(tp, count)
    assert len(driver.poll()) == count * len(tps)
    driver.take_log()
    return driver


def test_a_poll_joins_assigns_and_reads() -> None:
    driver = Driver()
    assert driver.poll() == []
    assert driver.take_log() == [Polled(0)]
    driver.join()
    driver.mailbox.append(Target(frozenset({P, Q})))
    assert driver.poll() == []
    confirmed, started, assigned = driver.take_log()
    assert confirmed == Confirmed(frozenset({P, Q}))
    assert set(started.starts) == {P, Q}
    assert assigned == RunCallback("assigned", [P, Q])
    driver.fetch(Q, 2)
    assert offsets(driver.poll()) == [(1, 0), (1, 1)]
    assert [type(event) for event in driver.take_log()] == [Consumed]


def test_a_poll_that_finds_buffered_records_posts_nothing() -> None:
    driver = reading(P)
    driver.fetch(P, 10)
    assert len(driver.poll(5)) == 5
    while driver.asked:
        driver.asked.popleft()
    driver.machine._auto_commit.begin()  # a commit is in flight
    driver.take_log()
    assert len(driver.poll(5)) == 5
    assert driver.take_log() == []


def test_a_revoked_partition_is_committed_called_back_released_and_then_confirmed() -> None:
    driver = reading(P, Q)
    driver.mailbox.append(Target(frozenset({Q})))
    driver.machine._auto_commit.begin()
    driver.poll()
    commit, callback, released, confirmed = driver.take_log()
    assert commit.offsets == {P: 3}
    assert callback == RunCallback("revoked", [P])
    assert released == StopFetching((P,))
    assert confirmed == Confirmed(frozenset({Q}))
    assert driver.machine.reader.owned == {Q}


def test_the_error_of_a_callback_is_raised_once_when_the_change_is_complete() -> None:
    driver = reading(P)
    driver.mailbox.append(Target(frozenset({Q})))
    driver.machine._auto_commit.forget([P])  # nothing to commit, so the callback comes first
    driver.machine._auto_commit.is_on = False
    driver.fails_with = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        driver.poll()
    assert driver.machine.reader.owned == {Q}
    assert driver.confirmed == {Q}
    assert driver.poll() == []


def test_a_refused_commit_does_not_end_a_rebalance() -> None:
    driver = reading(P)
    driver.mailbox.append(Target(frozenset()))
    driver.fails_with = CommitFailed(ErrorCode.STALE_GENERATION, "")
    assert driver.poll() == []
    assert driver.confirmed == frozenset()


def test_no_commit_is_made_after_a_loss_that_the_program_was_not_told_of() -> None:
    driver = reading(P)
    driver.mailbox.append(Target(frozenset(), is_lost=True))
    driver.join(2, losses=1)
    driver.mailbox.append(Target(frozenset({P})))
    driver.machine.accept(driver.mailbox)
    with pytest.raises(CommitFailed, match="lost"):
        driver.machine.commit_of(None)
    with pytest.raises(CommitFailed, match="lost"):
        driver.machine.commit_of({P: 3})
    driver.poll()
    kinds = [action.kind for action in driver.take_log() if isinstance(action, RunCallback)]
    assert kinds == ["lost", "assigned"]
    driver.fetch(P, 1)
    driver.poll()
    commit = driver.machine.commit_of(None)
    assert commit is not None
    assert (commit.request.member_id, commit.offsets) == ("m-2", {P: 1})


def test_a_refusal_is_raised_before_the_next_attempt_to_join() -> None:
    driver = Driver()
    driver.poll()
    driver.join()
    driver.mailbox += [MemberIdentity(), GroupTrouble(ErrorBody(ErrorCode.GROUP_FULL, ""))]
    driver.take_log()
    with pytest.raises(PlanariaError):
        driver.poll()
    assert driver.take_log() == []
    driver.poll()
    assert driver.take_log() == [Polled(1)]


def test_a_fenced_consumer_raises_at_every_poll_and_never_joins() -> None:
    driver = reading(P)
    driver.mailbox += [MemberIdentity(), GroupTrouble(ErrorBody(ErrorCode.FENCED_MEMBER, ""))]
    driver.machine._auto_commit.begin()
    for _ in range(3):
        with pytest.raises(MemberFenced):
            driver.poll()
    assert driver.take_log() == []
    assert driver.machine.state == "fenced"


def test_a_failed_automatic_commit_is_made_again_and_one_is_in_flight_at_most() -> None:
    driver = reading(P)
    driver.poll()
    (first,) = driver.asked
    driver.poll()
    assert list(driver.asked) == [first]
    driver.mailbox.append(Failed(first.key, ErrorBody(ErrorCode.TIMED_OUT, "")))
    driver.poll()
    second = driver.asked[-1]
    assert second is not first
    assert second.key == first.key
    driver.mailbox.append(Answered(second.key, CommitOffsetsReply()))
    driver.poll()
    assert len(driver.asked) == 2


def test_close_commits_then_releases_and_waits_for_the_group() -> None:
    driver = reading(P)
    commit = driver.machine.close(driver.machine.positions())
    assert commit is not None
    assert commit.offsets == {P: 3}
    driver.machine.leave(is_notified=True)
    driver.flush()
    assert driver.take_log() == [StopFetching((P,)), LeaveRequested(True)]
    assert driver.machine.state == "leaving"
    assert driver.poll() == []
    driver.mailbox.append(MemberLeft())
    driver.machine.accept(driver.mailbox)
    assert driver.machine.state == "left"


def test_a_leave_because_of_too_few_polls_does_not_close_the_consumer() -> None:
    driver = reading(P)
    driver.mailbox += [MemberIdentity(losses=1), Target(frozenset(), is_lost=True), MemberLeft()]
    driver.poll()
    assert driver.machine.state == "reading"
    assert Polled(0) in driver.take_log()


def test_a_callback_that_closes_ends_the_rebalance() -> None:
    driver = Driver()
    driver.join()
    driver.mailbox.append(Target(frozenset({P})))
    driver.machine.accept(driver.mailbox)
    action = driver.machine.next_action()
    assert action == RunCallback("assigned", [P])
    assert driver.machine.close({}) is None
    driver.mailbox.append(Target(frozenset({Q})))
    driver.machine.performed(action, None)
    driver.machine.accept(driver.mailbox)
    assert driver.machine.next_action() is None
    assert driver.machine.found(lambda: [1], driver.now_s) == []
    assert driver.machine.reader.owned == {P}


def test_added_partitions_are_read_from_their_beginning() -> None:
    driver = Driver(group=None, followed=("T",))
    driver.counts["T"] = 1
    driver.poll()
    driver.counts["T"] = 3
    driver.poll()
    first, second = (event.starts for event in driver.take_log() if isinstance(event, StartFetching))
    assert {tp: offset for tp, (_, offset) in first.items()} == {P: 0}
    assert {tp: offset for tp, (_, offset) in second.items()} == {Q: 0, R: 0}
    assert driver.machine.growth.longest_wait_s(None) is not None


def test_a_position_is_known_although_the_error_behind_it_has_arrived_with_it() -> None:
    machine = Consuming(
        group=None, is_member=False, auto_commit=AutoCommit(False, 5.0, 0.0), request_timeout_ms=1_000
    )
    tp = TopicPartition("T", 0)
    machine.assign([tp])
    (start,) = machine.posts
    epoch = start.starts[tp][0]
    error = ErrorBody(ErrorCode.CORRUPT_LOG, "rot")
    assert machine.known_position(tp) is None
    machine.accept(deque([Located(tp, epoch, 7), Trouble(tp, epoch, 7, error)]))
    assert machine.known_position(tp) == 7
    with pytest.raises(CorruptData):
        machine.found(lambda: machine.reader.take(1), 0.0)


def test_stop_ends_an_iteration_after_the_current_message() -> None:
    driver = Driver(group=None)
    driver.machine.assign([P])
    driver.flush()
    driver.fetch(P, 5)
    seen = []
    for message in driver.machine.yield_all(driver.poll()):
        seen.append(message.offset)
        driver.machine.is_stopped = True
    assert seen == [0]
    assert driver.poll() == []
    assert driver.machine.positions() == {P: 1}


class Walk:
    """A program and its group at random. Raises AssertionError when an invariant does not hold."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.driver = Driver(is_auto=self.random.random() < 0.7)
        self.machine = self.driver.machine
        self.assigned: frozenset[TopicPartition] = frozenset()
        self.generation = 1
        self.losses = 0
        self.next_of: dict[TopicPartition, tuple[int, int]] = {}
        """Epoch and offset of the message that has to be returned next."""
        self.settled: dict[TopicPartition, int] = {}
        self.told: set[TopicPartition] = set()
        """Partitions that callbacks have reported as assigned and not as gone."""
        self.driver.join(1)

    def step(self) -> None:
        kind = self.random.choice(
            [
                "assign",
                "lose",
                "fetch",
                "fetch",
                "poll",
                "poll",
                "poll",
                "seek",
                "pause",
                "answer",
                "commit",
                "iterate",
            ]
        )
        getattr(self, kind)()
        self.check()

    def assign(self) -> None:
        self.assigned = frozenset(tp for tp in (P, Q, R) if self.random.random() < 0.6)
        self.driver.mailbox.append(Target(self.assigned))

    def lose(self) -> None:
        if not self.assigned:
            return
        self.assigned = frozenset()
        self.generation += 1
        self.losses += 1
        self.driver.join(self.generation, self.losses)
        self.driver.mailbox.append(Target(frozenset(), is_lost=True))

    def fetch(self) -> None:
        if self.driver.followed:
            self.driver.fetch(self.random.choice(sorted(self.driver.followed)), self.random.randint(1, 5))

    def poll(self) -> None:
        self.settled = self.machine.positions()
        self.returned(self.driver.poll(self.random.randint(1, 7)))

    def returned(self, messages: list[Any]) -> None:
        epochs = self.machine.reader.epochs()
        for message in messages:
            tp = TopicPartition(message.topic, message.partition)
            assert tp in self.machine.reader.owned
            assert tp not in self.machine.reader.paused()
            epoch, expected = self.next_of.get(tp, (0, 0))
            if epoch == epochs[tp]:
                assert message.offset == expected, "twice, or with a gap"
            self.next_of[tp] = (epochs[tp], message.offset + 1)

    def iterate(self) -> None:
        self.settled = self.machine.positions()
        messages = self.driver.poll(self.random.randint(1, 7))
        for read, message in enumerate(self.machine.yield_all(messages), 1):
            self.returned([message])
            if read == self.random.randint(1, 7):
                break

    def seek(self) -> None:
        owned = sorted(self.machine.reader.owned)
        if owned:
            self.machine.seek(self.random.choice(owned), self.random.randint(0, 20))
            self.driver.flush()

    def pause(self) -> None:
        owned = sorted(self.machine.reader.owned)
        if owned:
            self.machine.set_paused([self.random.choice(owned)], self.random.random() < 0.5)
            self.driver.flush()

    def answer(self) -> None:
        if self.driver.asked:
            asked = self.driver.asked.popleft()
            if self.random.random() < 0.5:
                self.driver.mailbox.append(Answered(asked.key, CommitOffsetsReply()))
            else:
                self.driver.mailbox.append(Failed(asked.key, ErrorBody(ErrorCode.TIMED_OUT, "")))

    def commit(self) -> None:
        self.machine.accept(self.driver.mailbox)
        try:
            commit = self.machine.commit_of(None)
        except CommitFailed:
            assert self.losses > self.machine.commits.losses
            return
        if commit is not None:
            assert commit.request.generation == self.generation
            assert self.losses == self.machine.commits.losses

    def check(self) -> None:
        for event in self.driver.take_log():
            match event:
                case Confirmed(owned=owned):
                    # A partition that it had is confirmed as released only once it is released.
                    assert self.told <= owned
                case RunCallback(kind="assigned", tps=tps):
                    assert not self.told & set(tps)
                    self.told |= set(tps)
                case RunCallback(tps=tps):
                    assert set(tps) <= self.told
                    self.told -= set(tps)
                case Call(key=("commit", committed)):
                    for tp, offset in committed.items():
                        assert offset == self.settled[tp], "more than earlier polls returned"
                case SetPaused() | StartFetching() | StopFetching() | Consumed() | CommitFirst():
                    pass
                case _:
                    raise AssertionError(event)
        assert set(self.driver.followed) == self.machine.reader.owned
        assert self.told == self.machine.reader.owned
        assert len(self.driver.asked) <= 1


@pytest.mark.parametrize("seed", range(30))
def test_the_invariants_hold_in_random_walks(seed: int) -> None:
    walk = Walk(seed)
    for _ in range(150):
        walk.step()
    walk.poll()
    walk.check()
    assert walk.machine.reader.owned == walk.assigned

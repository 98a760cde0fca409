"""The decisions of a consumer: assignment, positions, commits, and the errors of its next call. Pure.

Owned by the program's side, a thread or a task, which makes one call at a time. The network's half
(`consumer_bridge.py`: membership and fetching) shares no state with it. All its reports are mail: `accept` takes them at
any time and never runs the program's code. Events for that half wait in `posts`. Records are buffered on this side
(`reader.py`), their positions travel with them, and the member's identity is mail too, so a call that finds records
needs no other thread. Called by `consumer.py`, the shell for threads.

    state      meaning                                                        left by
    reading    polls return messages                                          MemberFenced -> fenced; close -> leaving
    fenced     another consumer has its place in the group: polls raise       close -> leaving
    leaving    all calls raise Closed; the group has not confirmed the leave  MemberLeft -> left
    left       nothing remains to be done

`stop` changes no state: polls return nothing from then on. A poll has three parts, which the shell performs in a loop:

    begin_poll                positions settle
    next_action, performed    a commit to wait for or a callback to run, until there is none
    found                     an automatic commit is posted when it is due. Messages; an empty list when closed or
                              stopped; None to wait for mail; or an error

Invariants
    A partition is read only while it is owned, and confirmed as released only after its callback and its release.
    An automatic commit never covers a message returned by the latest poll.
    No commit is made from the loss of the partitions until the program has been notified.
    Each callback runs once for each change, and each error of a change is raised once.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from ..addresses import TopicPartition
from ..machine import Answered, Event, Failed
from ..protocol.errors import ErrorCode, PlanariaError, ProtocolError
from ..protocol.groups import CommitOffsets
from .commits import AutoCommit, CommitFirst, Commits, GivenOffsets, Metadata, Offsets
from .errors import CommitFailed, MemberFenced, error_from
from .fetching import SetPaused, StartFetching, StopFetching
from .growth import GrowingTopics
from .membership import (
    Confirmed,
    GroupTrouble,
    LeaveRequested,
    MemberIdentity,
    MemberLeft,
    Polled,
    Target,
)
from .messages import Message
from .options import check_offset
from .reader import Reader
from .rebalancing import CALLS, Rebalancing, Step, StepKind

Starts: TypeAlias = dict[TopicPartition, tuple[int, int | None]]


class RunCallback(NamedTuple):
    """Run the program's callback of this kind."""

    kind: StepKind
    tps: list[TopicPartition]


Action: TypeAlias = RunCallback | CommitFirst


class Iteration:
    """The messages of a loop: one counts as read when the next one is requested. Those not yielded are given back."""

    def __init__(self) -> None:
        self.messages: Sequence[Message] = ()
        self.epochs: Mapping[TopicPartition, int] = {}
        self.yielded = 0

    def yield_all(
        self,
        messages: Sequence[Message],
        epochs: Mapping[TopicPartition, int],
        is_stopped: Callable[[], bool],
    ) -> Iterator[Message]:
        """Yield messages until the consumer stops, or takes the others back: by a poll, a seek or a close."""
        self.messages, self.epochs = messages, epochs
        for count, message in enumerate(messages, 1):
            self.yielded = count
            yield message
            if self.messages is not messages or is_stopped():
                return
        self.messages = ()

    def take_back(self) -> tuple[Sequence[Message], Mapping[TopicPartition, int]]:
        """Return the messages not yielded, with the epochs they were taken under."""
        unread = self.messages[self.yielded :]
        self.messages = ()
        return unread, self.epochs

    def positions(
        self, positions: Mapping[TopicPartition, int], *, without_last: bool = False
    ) -> dict[TopicPartition, int]:
        """Return positions before the messages not yielded; `without_last` also before the message yielded last."""
        found = dict(positions)
        for message in reversed(self.messages[self.yielded - without_last :]):
            tp = (message.topic, message.partition)
            if tp in found:
                found[tp] = message.offset
        return found


class Consuming:
    """A consumer without threads, sockets and clocks."""

    def __init__(
        self,
        *,
        group: str | None,
        is_member: bool,
        auto_commit: AutoCommit,
        request_timeout_ms: int,
        followed: Sequence[str] = (),
    ) -> None:
        """Take `followed`, the topics of which all partitions are read, also those added later."""
        self.state: Literal["reading", "fenced", "leaving", "left"] = "reading"
        self.is_closed = False
        """True in the states leaving and left."""
        self.is_stopped = False
        """Set by `stop`, in any thread and in signal handlers."""
        self.posts: deque[Event] = deque()
        """Events for the network's half, in order."""
        self.reader = Reader()
        self.commits = Commits(group, self.reader, auto_commit)
        self._is_member = is_member
        self._auto_commit = auto_commit
        self._request_timeout_ms = request_timeout_ms
        self.growth = GrowingTopics(followed)
        self._refusals = 0
        """Refusals by the group that have been reported to the program."""
        self._fenced: MemberFenced | None = None
        self._updates: deque[Target | GroupTrouble | PlanariaError] = deque()
        """Mail to report to the program, at the next call that may do so."""
        self._rebalancing = Rebalancing()
        self._iteration = Iteration()

    # Mail.

    def accept(self, mailbox: deque[Any]) -> None:
        """Take the mail of the network's half."""
        while mailbox:
            try:
                item = mailbox.popleft()
            except IndexError:  # a close in another thread has taken it
                return
            match item:
                case MemberIdentity():
                    self.commits.identity = item
                case Target() | GroupTrouble():
                    self._updates.append(item)
                case MemberLeft():
                    if self.state == "leaving":  # otherwise it left because the program did not poll
                        self.state = "left"
                case Answered(key=("commit", offsets)):
                    self._auto_commit.end()
                    self._auto_commit.committed(offsets)
                case Failed(key=("commit", _), error=error):
                    self._auto_commit.end()  # the next automatic commit covers it, unless offsets were reset
                    if not self._is_member and error.code == ErrorCode.STALE_GENERATION:
                        self._updates.append(error_from(error))
                case _:
                    self.reader.accept(item)

    # A poll.

    def begin_poll(self) -> None:
        """Count the messages of earlier polls as read."""
        self._give_back()
        self._auto_commit.settled = self.reader.positions()

    def next_action(self) -> Action | None:
        """Continue the rebalance in progress, then the next news. Return the first action for the shell, if any.

        Raises the error of a callback once its rebalance is complete, and refusals by the group.
        """
        while True:
            if self._rebalancing.is_unfinished:
                if (action := self._continue_change()) is not None:
                    return action
                self._rebalancing.raise_error()
            if self.is_closed or not self._updates:
                return None
            match self._updates.popleft():
                case Target() as target:
                    self.commits.losses += target.is_lost
                    self._rebalancing.begin(target, self.reader.owned)
                case GroupTrouble(error=error):
                    self._refusals += 1
                    refusal = error_from(error)
                    if isinstance(refusal, MemberFenced):
                        self.state = "fenced"
                        self._fenced = refusal
                    raise refusal
                case failure:
                    raise failure

    def _continue_change(self) -> Action | None:
        change = self._rebalancing
        while (step := change.next_step) is not None:
            if step.kind in CALLS or step.kind == "commit":
                change.done(step)  # never twice
                action = (
                    self.commits.automatic(self._auto_commit.settled_of(step.tps))
                    if step.kind == "commit"
                    else _callback_of(step)
                )
                if action is not None:
                    return action
            else:
                self._perform(step)
                change.done(step)
        return None

    def _perform(self, step: Step) -> None:
        match step.kind:
            case "release":
                self.release(step.tps & self.reader.owned)
            case "confirm":
                self.posts.append(Confirmed(step.tps))
            case "assign":
                self.reader.remove(step.tps & self.reader.owned)  # of an interrupted step
                self.assign(step.tps)

    def performed(self, action: Action, error: BaseException | None) -> None:
        """Take the outcome of an action. An error is raised when the rebalance is complete."""
        if isinstance(action, CommitFirst):
            if error is None:
                self._auto_commit.committed(action.offsets)
            elif isinstance(error, ProtocolError):
                return  # fenced or out of reach: the next owner reads these messages again
        if error is not None:
            self._rebalancing.errors.append(error)

    def found(self, take: Callable[[], list[Any]], now_s: float) -> list[Any] | None:
        """Return the messages that `take` returns; an empty list if the poll is over; None if it has to wait.

        Commits the messages of earlier polls if that is due: a poll that waits asks again after `commits.longest_wait_s`.
        """
        commit = self.commits.due(now_s, self._request_timeout_ms)
        if commit is not None:
            self.posts.append(commit)
        if self._fenced is not None:
            raise self._fenced
        if self.is_closed or self.is_stopped:  # closed by a callback
            return []
        if self._is_member and self.commits.identity.member_id is None:
            # Only accepted mail counts: a refusal is raised before the next attempt to join.
            self.posts.append(Polled(self._refusals))
        reader = self.reader
        reader.raise_trouble(is_new=True)
        taken = take()
        self.posts += reader.take_events()
        if taken:
            return taken
        reader.raise_trouble()
        return None

    # Assignment without a group.

    def assign(self, tps: Sequence[TopicPartition] | frozenset[TopicPartition]) -> None:
        """Own partitions and read them from where the group, or `auto_offset_reset`, says."""
        self.begin(dict.fromkeys(tps))

    def begin(self, offsets: Mapping[TopicPartition, int | None]) -> None:
        """Own partitions and read them from these offsets; None: as `assign` does."""
        epochs = self.reader.add(offsets)
        starts: Starts = {tp: (epoch, offsets[tp]) for tp, epoch in epochs.items()}
        self.posts.append(StartFetching(starts))

    def release(self, tps: Collection[TopicPartition]) -> None:
        """Own partitions no longer."""
        self.posts.append(StopFetching(tuple(tps)))
        self.reader.remove(tps)
        self._auto_commit.forget(tps)

    def follow_growth(self, count_of: Callable[[str], int | None]) -> None:
        """Read added partitions from their beginning: the consumer never chose to skip their records."""
        if added := self.growth.added(count_of, self.reader.owned):
            self.begin(dict.fromkeys(added, 0))

    # Iteration.

    def yield_all(self, messages: Sequence[Message]) -> Iterator[Message]:
        """Yield messages that `found` has returned. Each counts as read when the next one is requested."""
        return self._iteration.yield_all(messages, self.reader.epochs(), lambda: self.is_stopped)

    def _give_back(self) -> None:
        """Give the messages that an iteration has not yielded back to the reader."""
        self.reader.give_back(*self._iteration.take_back())

    # Offsets.

    def positions(self, *, without_last: bool = False) -> dict[TopicPartition, int]:
        """Return the positions after the returned messages; `without_last` also before the message yielded last."""
        return self._iteration.positions(self.reader.positions(), without_last=without_last)

    def known_position(self, tp: TopicPartition) -> int | None:
        """Return the position of a partition, None while it is not known.

        Raises the error that keeps it from being known. An error behind a known position is raised by polls alone.
        """
        found = self.positions().get(tp)
        if found is None:
            if tp not in self.reader.owned:
                raise PlanariaError(f"{tp[0]}/{tp[1]} has been revoked")
            self.reader.raise_trouble(tp)
        return found

    def settled_positions(self) -> Offsets:
        """Return the positions to commit when the program failed on the messages it has now."""
        return self.positions(without_last=True) if self._iteration.messages else self._auto_commit.settled

    def commit_of(
        self, offsets: Message | GivenOffsets | None, metadata: Metadata | None = None
    ) -> CommitFirst | None:
        """Return the commit of the given offsets, or of all positions; None if there is nothing to commit.

        Raises CommitFailed when all partitions were lost meanwhile, and MemberFenced.
        """
        self.commits.check()
        if self._fenced is not None:
            raise self._fenced
        if isinstance(offsets, Message):
            offsets = {offsets.topic_partition: offsets.offset + 1}
        found = self.positions() if offsets is None else offsets
        if not found:
            return None
        request = self.commits.request(found, metadata)
        return CommitFirst(request, {TopicPartition(*tp): offset for tp, offset in found.items()})

    def commit_for_transaction(
        self, offsets: GivenOffsets | None, metadata: Metadata | None
    ) -> CommitOffsets | None:
        """Return the request that `commit` would send; None if there is nothing to commit.

        Raises CommitFailed when a partition was revoked after its messages were returned: another member processes them.
        """
        if offsets is not None:
            return self.commits.request(offsets, metadata)
        if lost := self.reader.take_lost():
            raise CommitFailed(ErrorCode.NOT_ASSIGNED, f"revoked since its messages were returned: {lost}")
        positions = self.positions()
        self.reader.mark(positions)
        return self.commits.request(positions) if positions else None

    def seek(self, tp: TopicPartition, offset: int) -> None:
        """Continue reading at `offset`."""
        self.check_owned(tp)
        check_offset(offset)
        self._give_back()
        self.posts.append(StartFetching({tp: (self.reader.seek(tp, offset), offset)}))

    def rewind(self, begun: Offsets, committed: Offsets) -> None:
        """Read again from the committed offsets; from where reading began without one."""
        for tp, began in begun.items():
            self.seek(tp, committed.get(tp, began))
        self.reader.take_lost()  # other members read those from their committed offsets

    # Flow.

    def set_paused(self, tps: Sequence[TopicPartition], is_paused: bool) -> None:
        for tp in tps:
            self.check_owned(tp)
        self._give_back()
        for tp in tps:
            self.reader.set_paused(tp, is_paused)
        self.posts.append(SetPaused(tuple(tps), is_paused))

    def check_owned(self, tp: TopicPartition) -> None:
        """Raise PlanariaError for a partition that is not assigned."""
        if tp not in self.reader.owned:
            raise PlanariaError(f"{tp[0]}/{tp[1]} is not assigned to this consumer")

    # The end.

    def close(self, positions: Offsets) -> CommitFirst | None:
        """Refuse all further calls, and drop the rebalance in progress. Return the last automatic commit.

        `leave` follows once it has been performed.
        """
        self.state = "leaving"
        self.is_closed = True
        self._rebalancing.drop()
        self._iteration.take_back()  # ends the loops; the messages that they have not yielded are delivered again
        return self.commits.automatic(self._auto_commit.uncommitted(positions))

    def leave(self, *, is_notified: bool) -> None:
        """Release the partitions, and notify the group if it `is_notified`. The member has left once its mail says so."""
        self.posts.append(StopFetching(tuple(self.reader.owned)))
        if self._is_member:
            self.posts.append(LeaveRequested(is_notified))
        else:
            self.state = "left"


def _callback_of(step: Step) -> RunCallback | None:
    tps = [TopicPartition(*tp) for tp in sorted(step.tps)]
    return RunCallback(step.kind, tps) if tps else None

"""Drives a subscriber's machine by hand: events in, effects out as short lines, timers on a clock of its own."""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

from planaria.actors.subscriber.effects import (
    Alarm,
    Commit,
    CommitRefused,
    Committed,
    CommitUncertain,
    ConsumerStarted,
    Crash,
    DeadLetterFailed,
    DeadLetterPublished,
    EndPoll,
    Event,
    Failure,
    Forget,
    GroupLeft,
    HandlerReturned,
    HandlerTimedOut,
    HandOver,
    Leave,
    PartitionsLost,
    PausePartition,
    PriorAttempt,
    PublishDeadLetter,
    Record,
    RecordsPolled,
    ResumePartition,
    Revoking,
    Rewind,
    Run,
    Verdict,
    WriteLog,
)
from planaria.actors.subscriber.machine import SubscriberMachine
from planaria.actors.subscriber.recovered_state import Finished, RecoveredState, Suspect
from planaria.transport.machine import CancelTimer, SetTimer, Stop, StopRequested, TimerFired
from planaria.transport.publication import Publication
from planaria.transport.subscription import HandlerSource, SubscriberOptions
from planaria.transport.timers import Timers


class FakeMessage(NamedTuple):
    topic: str
    partition: int
    offset: int
    key: bytes | None = b"key"
    value: bytes | None = b"value"
    timestamp: int = 1_700_000_000_000
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed
    leader_epoch: int = 0


def messages(topic: str, partition: int, *offsets: int) -> list[FakeMessage]:
    return [FakeMessage(topic, partition, offset) for offset in offsets]


def made_of(record: Record) -> Publication:
    """Return the output of a handler that publishes for a record."""
    return Publication("OUT", f"{record.partition}:{record.offset}".encode(), record.key)


def options(**changed: Any) -> SubscriberOptions:
    return SubscriberOptions(
        **{
            "group": "billing",
            "topics": ["A"],
            "handler": HandlerSource(path="shop:charge"),
            "endpoint": "tcp://127.0.0.1:5570",
            "backoff_ms": 100,
            "backoff_max_ms": 10_000,
            **changed,
        }
    )


class Script:
    """A machine and its effects, line by line."""

    def __init__(
        self,
        prior_attempts: Sequence[PriorAttempt] = (),
        finished: Sequence[Finished] = (),
        suspects: Sequence[Suspect] = (),
        **changed: Any,
    ) -> None:
        self.options = options(**changed)
        self.machine = SubscriberMachine(self.options, RecoveredState(prior_attempts, finished, suspects))
        self.now = 0
        self.timers = Timers()
        self.effects: list[Any] = []
        """Effects of all events, until the test takes them."""
        self.run: Run | None = None
        self.commit: Commit | None = None
        self.publish_dead_letter: PublishDeadLetter | None = None
        self.alarms: tuple[str, ...] = ()

    def give(self, event: Event) -> list[str]:
        effects = self.machine.handle(event, self.now)
        self.effects += effects
        for effect in effects:
            if isinstance(effect, SetTimer):
                self.timers.set(effect.key, effect.at)
            elif isinstance(effect, CancelTimer):
                self.timers.cancel(effect.key)
            elif isinstance(effect, Run):
                self.run = effect
            elif isinstance(effect, Commit):
                self.commit = effect
            elif isinstance(effect, PublishDeadLetter):
                self.publish_dead_letter = effect
            elif isinstance(effect, Alarm):
                self.alarms = effect.alarms
        silent = (SetTimer, CancelTimer, Alarm, EndPoll)
        return [line_of(effect) for effect in effects if not isinstance(effect, silent)]

    def take_effects(self) -> list[Any]:
        effects, self.effects = self.effects, []
        return effects

    def start(self) -> list[str]:
        return self.give(ConsumerStarted())

    def polled(self, *found: FakeMessage) -> list[str]:
        return self.give(RecordsPolled(found))

    def ran(
        self,
        done: int | None = None,
        failure: str | None = None,
        verdict: Verdict = "failed",
        publishes: bool = False,
    ) -> list[str]:
        """Return the worker's result; by default everything succeeded.

        `publishes`: it has published one message per record.
        """
        run, self.run = self.run, None
        assert run is not None
        if done is None:
            done = 0 if failure else len(run.records)
        reason = Failure(failure, "builtins.ValueError", "Traceback ...") if failure else None
        published = {each.offset: (made_of(each),) for each in run.records[:done]} if publishes else {}
        return self.give(HandlerReturned(run.number, done, reason, verdict, published))

    def committed(self) -> list[str]:
        commit, self.commit = self.commit, None
        assert commit is not None
        return self.give(Committed(commit.offsets))

    def refused(self) -> list[str]:
        commit, self.commit = self.commit, None
        assert commit is not None
        return self.give(CommitRefused(commit.offsets, "NOT_ASSIGNED: gone"))

    def uncertain(self) -> list[str]:
        commit, self.commit = self.commit, None
        assert commit is not None
        return self.give(CommitUncertain(commit.offsets, "TIMED_OUT: no answer"))

    def dead_lettered(self, publishes: bool = False) -> list[str]:
        """Report the dead letter as written. `publishes`: a transaction publishes the letter."""
        publish_dead_letter, self.publish_dead_letter = self.publish_dead_letter, None
        assert publish_dead_letter is not None
        letter = Publication(publish_dead_letter.dead_letter.topic, b"letter")
        return self.give(DeadLetterPublished(publish_dead_letter.lane, (letter,) if publishes else ()))

    def dead_letter_failed(self) -> list[str]:
        publish_dead_letter, self.publish_dead_letter = self.publish_dead_letter, None
        assert publish_dead_letter is not None
        return self.give(DeadLetterFailed(publish_dead_letter.lane, "UNKNOWN_TOPIC: no such topic"))

    def revoking(self, *partitions: int) -> list[str]:
        return self.give(Revoking([("A", partition) for partition in partitions]))

    def lost(self, *partitions: int) -> list[str]:
        return self.give(PartitionsLost([("A", partition) for partition in partitions]))

    def timed_out(self, offset: int | None) -> list[str]:
        assert self.run is not None
        return self.give(HandlerTimedOut(self.run.number, offset))

    def stop(self, within_ms: int = 30_000, *, keeps_place: bool = False) -> list[str]:
        return self.give(StopRequested(self.now + within_ms, keeps_place))

    def left(self) -> list[str]:
        return self.give(GroupLeft())

    def after(self, milliseconds: int) -> list[str]:
        """Let time pass; return the effects of the timers due by then."""
        until = self.now + milliseconds
        lines: list[str] = []
        while (at := self.timers.next_at()) is not None and at <= until:
            self.now = max(self.now, at)
            for key in self.timers.pop_due(self.now):
                lines += self.give(TimerFired(key))
        self.now = until
        return lines


def line_of(effect: Any) -> str:
    match effect:
        case Run(records=records, attempt=attempt):
            first, last = records[0], records[-1]
            span = str(first.offset) if first is last else f"{first.offset}-{last.offset}"
            return f"run {first.topic}/{first.partition} {span}, attempt {attempt}"
        case (
            Commit(offsets=offsets)
            | HandOver(offsets=offsets)
            | Leave(offsets=offsets)
            | Rewind(offsets=offsets)
        ):
            tps = [f"{topic}/{partition}={offset}" for (topic, partition), offset in offsets.items()]
            outputs = [] if isinstance(effect, Rewind) else [each.value.decode() for each in effect.outputs]
            with_outputs = ["with", *outputs] if outputs else []
            place = ["but", "keep", "place"] if isinstance(effect, Leave) and effect.keeps_place else []
            return " ".join([type(effect).__name__.lower(), *tps, *with_outputs, *place])
        case PausePartition(key=key) | ResumePartition(key=key) | Forget(key=key):
            return f"{type(effect).__name__.removesuffix('Partition').lower()} {key[0]}/{key[1]}"
        case PublishDeadLetter(dead_letter=letter):
            headers = letter.headers
            tp = "/".join(headers[f"dead-letter-{name}"] for name in ("topic", "partition", "offset"))
            return f"bury {tp} in {letter.topic} after {headers['dead-letter-failures']}"
        case WriteLog(level=level, event=event):
            return f"{logging.getLevelName(level).lower()}: {event}"
        case Crash(reason=reason) | Stop(reason=reason):
            return f"{type(effect).__name__.lower()}: {reason}"
        case _:
            return type(effect).__name__.lower()

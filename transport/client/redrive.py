"""Redrive of dead letters: each is sent back once, and an audit topic records the progress.

Owns the audit topic `<dead-letter topic>.redriven`: one partition, kept forever, JSON records. Their kinds, and the
decisions, are those of `redriving.py`.

So the redriven letters are a function of that log, and a killed run leaves at most one `moving` without its `moved`. The
next run settles that: it searches the target for the letters named there, whose headers name their origin. Each letter
is also published under a dedup id made of its topic, partition and offset, so that a publish still in transit when the
run was killed takes effect once. The letters stay in their topic. The group `dlq-redrive.<topic>` commits, by partition,
the offset before which all letters are redriven: its lag shows an operator that there is work. Nothing depends on it.
"""

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..addresses import TopicPartition
from ..dead_letters import REDRIVEN_FROM
from ..protocol.errors import ErrorCode, PlanariaError, ProtocolError
from .client import Client
from .dead_letters import (
    DeadLetter,
    LetterFilter,
    read_letters,
    read_partition,
)
from .delivery import Delivery
from .errors import UnknownTopic
from .options import InvalidOption
from .producer import Producer
from .redriving import MAX_REDRIVES, History, RedriveReport, Redriving, committed_offsets


class Redrive:
    """Redrive the letters of one topic to their origin, or to `target`."""

    def __init__(
        self,
        client: Client,
        topic: str,
        *,
        target: str | None = None,
        max_redrives: int = MAX_REDRIVES,
        rate: float | None = None,
        actor: str = "",
    ) -> None:
        """Prepare a run. `rate` is in letters a second; `actor` names the operator in the audit record.

        Raises ProtocolError with UNKNOWN_TOPIC when one of the topics does not exist, and RedriveRefused.
        """
        self._machine = Redriving(topic, target=target, max_redrives=max_redrives, rate=rate)
        self._client = client
        self._topic = topic
        self._actor = actor
        self._options = {"target": target, "max_redrives": max_redrives, "rate": rate}
        self._machine.topic_id = client.describe_topic(topic).topic_id
        if target is not None:
            client.describe_topic(target)
        self.audit_topic = f"{topic}.redriven"
        self.group = f"dlq-redrive.{topic}"

    # Reading.

    def pending(self, wanted: LetterFilter, newest: int | None = None) -> list[DeadLetter]:
        """Return the selected letters that have not been redriven according to the audit topic; with `newest` of the
        last so many messages of each partition."""
        moved = self._history().moved
        letters = read_letters(self._client, self._topic, newest)
        return [letter for letter in letters if letter.position not in moved and wanted.matches(letter)]

    def judge(self, letters: Sequence[DeadLetter]) -> tuple[list[DeadLetter], RedriveReport]:
        """Return the letters that may be sent, and a report that counts the others."""
        return self._machine.judge(letters, uuid.uuid4().hex[:12])

    # Moving.

    def run(
        self,
        wanted: LetterFilter,
        limit: int | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> RedriveReport:
        """Redrive the selected letters, at most `limit`. May be killed at any moment and run again."""
        self._client.create_topic(self.audit_topic, 1, if_not_exists=True, retention_ms=-1)
        already_moved = self._settle()
        letters, report = self.judge(self.pending(wanted))
        report.already_moved = already_moved
        letters = letters[:limit]
        self._note(
            "begun",
            report.run,
            by=self._actor,
            letters_meant=len(letters),
            **self._options,
            filter=_shown(wanted, limit),
        )
        began = time.monotonic()
        with self._client.producer() as producer:
            for chunk in self._machine.chunks(letters):
                moved = self._move(producer, chunk, report.run)
                report.moved += moved
                report.refused += len(chunk) - moved
                if on_progress is not None:
                    on_progress(report.moved)
                time.sleep(self._machine.pause_s(report.moved, time.monotonic() - began))
        self._advance_group()
        counts = {"moved": report.moved, "held_back": report.held_back, "no_origin": report.no_origin}
        self._note("ended", report.run, refused=report.refused, **counts)
        return report

    def _move(self, producer: Producer, chunk: Sequence[DeadLetter], run: str) -> int:
        """Return the number of letters moved. Raises DeliveryUncertain: the next run will settle them."""
        targets = [self._machine.target_of(letter) for letter in chunk]
        named = [[*letter.position, target] for letter, target in zip(chunk, targets, strict=True)]
        self._note("moving", run, letters=named)
        sent = [
            self._publish(producer, letter, target) for letter, target in zip(chunk, targets, strict=True)
        ]
        errors = [each.exception() if isinstance(each, Delivery) else each for each in sent]
        outcomes = self._machine.outcomes(chunk, errors)
        for event, positions in outcomes.items():
            if positions:
                self._note(event, run, letters=positions)
        return len(outcomes["moved"])

    def _publish(self, producer: Producer, letter: DeadLetter, target: str) -> Delivery | PlanariaError:
        """Return an error if the topic no longer exists: the other letters are sent all the same."""
        if target in self._machine.gone:
            return UnknownTopic(target)
        try:
            return producer.publish(
                target,
                letter.message.value,
                key=letter.message.key,
                headers=self._machine.headers(letter),
                dedup_id=self._machine.origin(letter.position),
            )
        except (
            UnknownTopic,
            InvalidOption,
        ) as error:  # a header may contain text that cannot be a topic's name
            self._machine.gone.add(target)
            return error

    # The audit topic.

    def _note(self, event: str, run: str, **fields: Any) -> None:
        body = {
            "event": event,
            "run": run,
            "topic_id": self._machine.topic_id,
            "at_ms": int(time.time() * 1000),
            **fields,
        }
        self._client.publish(self.audit_topic, json.dumps(body).encode(), dedup_id=uuid.uuid4().hex)

    def _history(self) -> History:
        history = History(self._machine.topic_id)
        try:
            for message in read_partition(self._client, self.audit_topic, 0):
                history.accept(json.loads(message.value or b"{}"))
        except ProtocolError as error:
            if error.code != ErrorCode.UNKNOWN_TOPIC:
                raise
        return history

    def _settle(self) -> int:
        """Find the letters that a killed run had published."""
        history = self._history()
        origins = [
            (message.headers or {}).get(REDRIVEN_FROM, "")
            for target, since_ms in history.searches()
            for message in self._read_since(target, since_ms)
        ]
        found = self._machine.found_moved(history, origins)
        if found:
            self._note("moved", "already_moved", letters=[list(position) for position in found])
        return len(found)

    def _read_since(self, topic: str, since_ms: int) -> Iterator[Any]:
        try:
            count = len(self._client.describe_topic(topic).partitions)
        except ProtocolError as error:
            if error.code != ErrorCode.UNKNOWN_TOPIC:
                raise
            return  # nothing can have been published
        for partition in range(count):
            start = self._client.list_offsets(topic, partition, max(0, since_ms))
            if start is not None:
                yield from read_partition(self._client, topic, partition, start.offset)

    # The group.

    def _ends(self) -> dict[int, int]:
        partitions = len(self._client.describe_topic(self._topic).partitions)
        return {
            n: self._client.list_offsets(self._topic, n, isolation="read_committed").offset
            for n in range(partitions)
        }

    def _advance_group(self) -> None:
        ends, letters = self._ends(), read_letters(self._client, self._topic)
        offsets = committed_offsets(ends, letters, self._history().moved)
        # Commit without a member id, because that creates the group if there is none.
        tps = [(self._topic, partition) for partition in offsets]
        with self._client.consumer(self.group, partitions=tps, auto_commit=False) as consumer:
            consumer.commit(
                {TopicPartition(self._topic, partition): offset for partition, offset in offsets.items()}
            )


def _shown(wanted: LetterFilter, limit: int | None) -> dict[str, Any]:
    positions = None if wanted.positions is None else sorted(map(list, wanted.positions))
    return {
        "reason": wanted.reason,
        "group": wanted.group,
        "since_ms": wanted.since_ms,
        "positions": positions,
        "limit": limit,
    }


def who() -> str:
    """Return the user and process of this machine, for the audit record."""
    return f"{os.environ.get('USER', '?')}@{os.uname().nodename} pid {os.getpid()}"

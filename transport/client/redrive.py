"""Sending dead letters back, each once, with a record of what was done.

Owns the audit topic `<dead-letter topic>.redriven`: one partition, kept for ever, JSON records, in their order

    begun       a run: who, with which options
    moving      these letters are about to be published                 before the first of them is
    moved       ... and are, durably                                    after the last of them is
    refused     ... and were not, for the broker does not take them
    ended       the run's counts

So what was sent back is a function of that log, and a run that is killed leaves at most one `moving` without its `moved`.
The next run settles that: it looks into the target for the letters named there, which tell in their headers where they
come from. Besides, each is published under an identity made of its place, so that even what was still on its way when the
run was killed is there once. The letters stay where they are. The group `dlq-redrive.<topic>` is told, by partition, the
offset before which all is sent back: its lag shows an operator that there is work. Nothing is decided by it.
"""

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from msgspec import Struct

from ..addresses import TopicPartition
from ..batch import Headers
from ..dead_letters import PREFIX, REDRIVEN_FROM, REDRIVES
from ..deduplication import DEDUP_HEADER
from ..protocol.errors import ErrorCode, PlanariaError, ProtocolError
from .client import Client
from .dead_letters import (
    DeadLetter,
    LetterFilter,
    read_letters,
    read_partition,
)
from .delivery import Delivery
from .errors import DeliveryUncertain, UnknownTopic
from .options import InvalidOption
from .producer import Producer

MAX_REDRIVES = 3
CHUNK_LETTERS = 100
CLOCK_MARGIN_MS = 60_000
"""How far the clock of the machine that ran before may have been behind."""


class RedriveRefused(PlanariaError):
    """What was asked for would lose letters or send them round in a circle."""


class RedriveReport(Struct, kw_only=True):
    """What became of the letters that were meant."""

    run: str
    moved: int = 0
    held_back: int = 0
    """Sent back too often already."""
    no_origin: int = 0
    """They do not tell where they came from, and no topic was given."""
    refused: int = 0
    """The broker does not take them: they are too large, or their topic is gone; they stay."""
    already_moved: int = 0
    """Found to have been moved by a run that was killed."""


class Redrive:
    """Sends letters of one topic back: to where they came from, or to `target`."""

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
        """`rate` is in letters a second; `actor` says in the audit record who did it.

        Raises a ProtocolError with UNKNOWN_TOPIC when one of the topics does not exist, RedriveRefused.
        """
        if target == topic:
            raise RedriveRefused(f"{topic}: letters cannot be sent to where they are")
        if rate is not None and rate <= 0:
            raise RedriveRefused(f"rate: must be more than 0 letters a second, not {rate}")
        self._client = client
        self._topic = topic
        self._target = target
        self._max_redrives = max_redrives
        self._rate = rate
        self._actor = actor
        self._gone: set[str] = set()
        """Topics that are not there to take letters, found out once."""
        self._topic_id = client.describe_topic(topic).topic_id
        if target is not None:
            client.describe_topic(target)
        self.audit_topic = f"{topic}.redriven"
        self.group = f"dlq-redrive.{topic}"

    # What is there.

    def pending(self, wanted: LetterFilter) -> list[DeadLetter]:
        """The letters meant that have not been sent back, as far as the audit topic tells."""
        moved, _ = self._history()
        letters = read_letters(self._client, self._topic)
        return [letter for letter in letters if letter.position not in moved and wanted.matches(letter)]

    def judge(self, letters: Sequence[DeadLetter]) -> tuple[list[DeadLetter], RedriveReport]:
        """Those that may be sent, and a report that counts the others."""
        report = RedriveReport(run=uuid.uuid4().hex[:12])
        fit: list[DeadLetter] = []
        for letter in letters:
            if letter.redrives >= self._max_redrives:
                report.held_back += 1
            elif self._target is None and letter.topic is None:
                report.no_origin += 1
            else:
                fit.append(letter)
        return fit, report

    # What is done.

    def run(
        self,
        wanted: LetterFilter,
        limit: int | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> RedriveReport:
        """Send back what is meant, `limit` letters at most. Killed at any moment it can be run again."""
        self._client.create_topic(self.audit_topic, 1, if_not_exists=True, retention_ms=-1)
        already_moved = self._settle()
        letters, report = self.judge(self.pending(wanted))
        report.already_moved = already_moved
        letters = letters[:limit]
        self._note(
            "begun",
            report.run,
            by=self._actor,
            target=self._target,
            letters_meant=len(letters),
            max_redrives=self._max_redrives,
            rate=self._rate,
            filter=_shown(wanted, limit),
        )
        began = time.monotonic()
        with self._client.producer() as producer:
            for chunk in self._chunks(letters):
                moved = self._move(producer, chunk, report.run)
                report.moved += moved
                report.refused += len(chunk) - moved
                if on_progress is not None:
                    on_progress(report.moved)
                self._keep_pace(report.moved, began)
        self._advance_group()
        counts = {"moved": report.moved, "held_back": report.held_back, "no_origin": report.no_origin}
        self._note("ended", report.run, refused=report.refused, **counts)
        return report

    def _chunks(self, letters: Sequence[DeadLetter]) -> Iterator[Sequence[DeadLetter]]:
        size = CHUNK_LETTERS if self._rate is None else max(1, min(CHUNK_LETTERS, int(self._rate / 10)))
        for start in range(0, len(letters), size):
            yield letters[start : start + size]

    def _keep_pace(self, moved: int, began: float) -> None:
        if self._rate is not None:
            time.sleep(max(0.0, began + moved / self._rate - time.monotonic()))

    def _move(self, producer: Producer, chunk: Sequence[DeadLetter], run: str) -> int:
        """How many of them are moved. Raises DeliveryUncertain: the next run will find out."""
        targets = [self._target or letter.topic or "" for letter in chunk]
        named = [[*letter.position, target] for letter, target in zip(chunk, targets, strict=True)]
        self._note("moving", run, letters=named)
        deliveries = [
            self._publish(producer, letter, target) for letter, target in zip(chunk, targets, strict=True)
        ]
        outcomes: dict[str, list[list[int]]] = {"moved": [], "refused": []}
        for letter, delivery in zip(chunk, deliveries, strict=True):
            if delivery is None:
                outcomes["refused"].append(list(letter.position))
                continue
            error = delivery.exception()
            if isinstance(error, DeliveryUncertain):
                raise error
            outcomes["moved" if error is None else "refused"].append(list(letter.position))
        for event, positions in outcomes.items():
            if positions:
                self._note(event, run, letters=positions)
        return len(outcomes["moved"])

    def _publish(self, producer: Producer, letter: DeadLetter, target: str) -> Delivery | None:
        """None when there is no such topic any more: the other letters go all the same."""
        if target in self._gone:
            return None
        try:
            return producer.publish(
                target,
                letter.message.value,
                key=letter.message.key,
                headers=self._headers(letter),
                dedup_id=self._origin(letter.position),
            )
        except (UnknownTopic, InvalidOption):  # a header may say what can be no topic's name
            self._gone.add(target)
            return None

    def _headers(self, letter: DeadLetter) -> Headers:
        """The record's own, and what keeps it from going round for ever."""
        before = letter.message.headers or {}
        kept = {
            name: text
            for name, text in before.items()
            if (not name.startswith(PREFIX) or name == f"{PREFIX}dedup-id") and name != DEDUP_HEADER
        }
        return kept | {REDRIVES: str(letter.redrives + 1), REDRIVEN_FROM: self._origin(letter.position)}

    def _origin(self, position: tuple[int, int]) -> str:
        """Also its identity: one of a topic that is deleted and made again is another one."""
        return f"redrive/{self._topic_id}/{position[0]}/{position[1]}"

    # The audit topic.

    def _note(self, event: str, run: str, **fields: Any) -> None:
        body = {
            "event": event,
            "run": run,
            "topic_id": self._topic_id,
            "at_ms": int(time.time() * 1000),
            **fields,
        }
        self._client.publish(self.audit_topic, json.dumps(body).encode(), dedup_id=uuid.uuid4().hex)

    def _history(self) -> tuple[set[tuple[int, int]], dict[tuple[int, int], tuple[str, int]]]:
        """The letters that were moved; and those of which only the intent is known, with target and time."""
        moved: set[tuple[int, int]] = set()
        moving: dict[tuple[int, int], tuple[str, int]] = {}
        try:
            for message in read_partition(self._client, self.audit_topic, 0):
                entry = json.loads(message.value or b"{}")
                if entry.get("topic_id") != self._topic_id:
                    continue
                for partition, offset, *target in entry.get("letters", ()):
                    position = (partition, offset)
                    if entry["event"] == "refused":
                        moving.pop(position, None)
                    elif entry["event"] == "moving":
                        # The earliest intent: what it published is not older.
                        moving.setdefault(position, (target[0], entry["at_ms"]))
                    else:
                        moved.add(position)
                        moving.pop(position, None)
        except ProtocolError as error:
            if error.code != ErrorCode.UNKNOWN_TOPIC:
                raise
        return moved, moving

    def _settle(self) -> int:
        """Find out what a run that was killed had published."""
        _, moving = self._history()
        if not moving:
            return 0
        origins = {self._origin(position): position for position in moving}
        found: set[tuple[int, int]] = set()
        for target in sorted({target for target, _ in moving.values()}):
            since_ms = min(at_ms for name, at_ms in moving.values() if name == target) - CLOCK_MARGIN_MS
            for message in self._read_since(target, since_ms):
                position = origins.get((message.headers or {}).get(REDRIVEN_FROM, ""))
                if position is not None:
                    found.add(position)
        if found:
            self._note("moved", "already_moved", letters=[list(position) for position in sorted(found)])
        return len(found)

    def _read_since(self, topic: str, since_ms: int) -> Iterator[Any]:
        try:
            count = len(self._client.describe_topic(topic).partitions)
        except ProtocolError as error:
            if error.code != ErrorCode.UNKNOWN_TOPIC:
                raise
            return  # nothing can be there
        for partition in range(count):
            start = self._client.list_offsets(topic, partition, max(0, since_ms)).offset
            if start >= 0:
                yield from read_partition(self._client, topic, partition, start)

    # The group.

    def _ends(self) -> dict[int, int]:
        partitions = len(self._client.describe_topic(self._topic).partitions)
        return {
            n: self._client.list_offsets(self._topic, n, isolation="read_committed").offset
            for n in range(partitions)
        }

    def _advance_group(self) -> None:
        moved, _ = self._history()
        offsets = self._ends()
        for letter in read_letters(self._client, self._topic):
            partition, offset = letter.position
            if letter.position not in moved:
                offsets[partition] = min(offsets[partition], offset)
        # A commit of one who is no member, for that makes the group when there is none.
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
    """The user and process of this machine, for the audit record."""
    return f"{os.environ.get('USER', '?')}@{os.uname().nodename} pid {os.getpid()}"

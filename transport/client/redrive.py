"""Redrive of dead letters: each is sent back once, and an audit topic records the progress.

Owns the audit topic `<dead-letter topic>.redriven`: one partition, kept forever, JSON records, in their order

    begun       a run: who, with which options
    moving      these letters are about to be published                 before the first of them is
    moved       ... and are, durably                                    after the last of them is
    refused     ... and were not: the broker refused them
    ended       the run's counts

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
"""Allowance for the clock of an earlier run's machine being behind."""


class RedriveRefused(PlanariaError):
    """The requested redrive would lose letters or send them round in a circle."""


class RedriveReport(Struct, kw_only=True):
    """The results for the selected letters."""

    run: str
    moved: int = 0
    held_back: int = 0
    """Letters already redriven too often."""
    no_origin: int = 0
    """Letters that do not name their origin, while no topic was given."""
    refused: int = 0
    """Letters refused by the broker: they are too large, or their topic is gone. They stay."""
    already_moved: int = 0
    """Letters found to have been moved by a run that was killed."""


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
        """Target topics found not to exist."""
        self._topic_id = client.describe_topic(topic).topic_id
        if target is not None:
            client.describe_topic(target)
        self.audit_topic = f"{topic}.redriven"
        self.group = f"dlq-redrive.{topic}"

    # Reading.

    def pending(self, wanted: LetterFilter) -> list[DeadLetter]:
        """Yield the selected letters that have not been redriven according to the audit topic."""
        moved, _ = self._history()
        letters = read_letters(self._client, self._topic)
        return [letter for letter in letters if letter.position not in moved and wanted.matches(letter)]

    def judge(self, letters: Sequence[DeadLetter]) -> tuple[list[DeadLetter], RedriveReport]:
        """Return the letters that may be sent, and a report that counts the others."""
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
        """Return the number of letters moved. Raises DeliveryUncertain: the next run will settle them."""
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
        """Return None if the topic no longer exists: the other letters are sent all the same."""
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
        except (UnknownTopic, InvalidOption):  # a header may contain text that cannot be a topic's name
            self._gone.add(target)
            return None

    def _headers(self, letter: DeadLetter) -> Headers:
        """Return the record's own headers, and those that keep it from being redriven forever."""
        before = letter.message.headers or {}
        kept = {
            name: text
            for name, text in before.items()
            if (not name.startswith(PREFIX) or name == f"{PREFIX}dedup-id") and name != DEDUP_HEADER
        }
        return kept | {REDRIVES: str(letter.redrives + 1), REDRIVEN_FROM: self._origin(letter.position)}

    def _origin(self, position: tuple[int, int]) -> str:
        """Return the letter's origin, also its dedup id. It differs for a topic that is deleted and created again."""
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
        """Return the letters that were moved, and those of which only the intent is known, with target and time."""
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
                        # The earliest intent: its letters are not older.
                        moving.setdefault(position, (target[0], entry["at_ms"]))
                    else:
                        moved.add(position)
                        moving.pop(position, None)
        except ProtocolError as error:
            if error.code != ErrorCode.UNKNOWN_TOPIC:
                raise
        return moved, moving

    def _settle(self) -> int:
        """Find the letters that a killed run had published."""
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
        moved, _ = self._history()
        offsets = self._ends()
        for letter in read_letters(self._client, self._topic):
            partition, offset = letter.position
            if letter.position not in moved:
                offsets[partition] = min(offsets[partition], offset)
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

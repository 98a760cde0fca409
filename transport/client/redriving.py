"""The decisions of a redrive: which letters go where, under which names, and the meaning of its audit log. Pure.

The audit topic's entries, in their order (`redrive.py` writes and reads them):

    begun       a run: who, with which options
    moving      these letters are about to be published                 before the first of them is
    moved       ... and are, durably                                    after the last of them is
    refused     ... and were not: the broker refused them
    ended       the run's counts

    state of a letter   after                        left by
    pending             nothing, or `refused`        `moving` -> moving
    moving              `moving`, perhaps killed     `moved` -> moved; `refused` -> pending
    moved               `moved`; permanent

Invariants
    A letter is redriven once: a `moving` letter is looked for in its target, by its origin, before it is sent again.
    Entries that name another topic id belong to an earlier topic of the name, and count for nothing.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from msgspec import Struct

from ..batch import Headers
from ..dead_letters import PREFIX, REDRIVEN_FROM, REDRIVES
from ..deduplication import DEDUP_HEADER
from ..protocol.errors import PlanariaError
from .errors import DeliveryUncertain

if TYPE_CHECKING:
    from .dead_letters import DeadLetter

MAX_REDRIVES = 3
CHUNK_LETTERS = 100
CLOCK_MARGIN_MS = 60_000
"""Allowance for the clock of an earlier run's machine being behind."""

Position: TypeAlias = tuple[int, int]
"""Partition and offset of a letter."""


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


class History:
    """The state of each letter, by the audit log of one topic."""

    def __init__(self, topic_id: str) -> None:
        self.moved: set[Position] = set()
        self.moving: dict[Position, tuple[str, int]] = {}
        """Letters of which only the intent is known, with target and time."""
        self._topic_id = topic_id

    def accept(self, entry: Mapping[str, Any]) -> None:
        if entry.get("topic_id") != self._topic_id:
            return
        for partition, offset, *target in entry.get("letters", ()):
            position = (partition, offset)
            if entry["event"] == "refused":
                self.moving.pop(position, None)
            elif entry["event"] == "moving":
                # The earliest intent: its letters are not older.
                self.moving.setdefault(position, (target[0], entry["at_ms"]))
            else:
                self.moved.add(position)
                self.moving.pop(position, None)

    def searches(self) -> list[tuple[str, int]]:
        """Return each target that may have letters of a killed run, and the time from which to search it."""
        targets = sorted({target for target, _ in self.moving.values()})
        return [
            (target, min(at_ms for name, at_ms in self.moving.values() if name == target) - CLOCK_MARGIN_MS)
            for target in targets
        ]


class Redriving:
    """Redrives the letters of one topic, without a client."""

    def __init__(
        self,
        topic: str,
        *,
        target: str | None = None,
        max_redrives: int = MAX_REDRIVES,
        rate: float | None = None,
    ) -> None:
        if target == topic:
            raise RedriveRefused(f"{topic}: letters cannot be sent to where they are")
        if rate is not None and rate <= 0:
            raise RedriveRefused(f"rate: must be more than 0 letters a second, not {rate}")
        self.topic_id = ""
        """Id of the letters' topic, once it is known."""
        self.gone: set[str] = set()
        """Target topics found not to exist."""
        self._target = target
        self._max_redrives = max_redrives
        self._rate = rate

    def judge(self, letters: Iterable["DeadLetter"], run: str) -> "tuple[list[DeadLetter], RedriveReport]":
        """Return the letters that may be sent, and a report that counts the others."""
        report = RedriveReport(run=run)
        fit: list[DeadLetter] = []
        for letter in letters:
            if letter.redrives >= self._max_redrives:
                report.held_back += 1
            elif self._target is None and letter.topic is None:
                report.no_origin += 1
            else:
                fit.append(letter)
        return fit, report

    def chunks(self, letters: Sequence["DeadLetter"]) -> "Iterator[Sequence[DeadLetter]]":
        """Divide letters into parts that are published and recorded together."""
        size = CHUNK_LETTERS if self._rate is None else max(1, min(CHUNK_LETTERS, int(self._rate / 10)))
        for start in range(0, len(letters), size):
            yield letters[start : start + size]

    def pause_s(self, moved: int, elapsed_s: float) -> float:
        """Return the pause that keeps the rate after this many letters."""
        return 0.0 if self._rate is None else max(0.0, moved / self._rate - elapsed_s)

    def target_of(self, letter: "DeadLetter") -> str:
        return self._target or letter.topic or ""

    def origin(self, position: Position) -> str:
        """Return the letter's origin, also its dedup id. It differs for a topic that is deleted and created again."""
        return f"redrive/{self.topic_id}/{position[0]}/{position[1]}"

    def headers(self, letter: "DeadLetter") -> Headers:
        """Return the record's own headers, and those that keep it from being redriven forever."""
        before = letter.message.headers or {}
        kept = {
            name: text
            for name, text in before.items()
            if (not name.startswith(PREFIX) or name == f"{PREFIX}dedup-id") and name != DEDUP_HEADER
        }
        return kept | {REDRIVES: str(letter.redrives + 1), REDRIVEN_FROM: self.origin(letter.position)}

    def outcomes(
        self, chunk: Sequence["DeadLetter"], errors: Sequence[Exception | None]
    ) -> dict[str, list[list[int]]]:
        """Return the letters that were moved and refused. Raises DeliveryUncertain: the next run settles them."""
        found: dict[str, list[list[int]]] = {"moved": [], "refused": []}
        for letter, error in zip(chunk, errors, strict=True):
            if isinstance(error, DeliveryUncertain):
                raise error
            found["moved" if error is None else "refused"].append(list(letter.position))
        return found

    def found_moved(self, history: History, origins: Iterable[str]) -> list[Position]:
        """Return the letters of a killed run that were published, by the origins found in their targets."""
        by_origin = {self.origin(position): position for position in history.moving}
        return sorted({by_origin[origin] for origin in origins if origin in by_origin})


def committed_offsets(
    ends: Mapping[int, int], letters: Iterable["DeadLetter"], moved: set[Position]
) -> dict[int, int]:
    """Return, by partition, the offset before which all letters are redriven: the group's lag shows the work left."""
    offsets = dict(ends)
    for letter in letters:
        partition, offset = letter.position
        if letter.position not in moved:
            offsets[partition] = min(offsets[partition], offset)
    return offsets

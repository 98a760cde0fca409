"""The redrive's machine: killed at any moment and run again, it moves each letter once."""

import random
from typing import Any

import pytest

from planaria.transport.client.dead_letters import DeadLetter, letter_of
from planaria.transport.client.errors import DeliveryFailed, DeliveryUncertain, UnknownTopic
from planaria.transport.client.messages import Message
from planaria.transport.client.redriving import (
    CLOCK_MARGIN_MS,
    History,
    RedriveRefused,
    Redriving,
    committed_offsets,
)
from planaria.transport.dead_letters import REDRIVEN_FROM, REDRIVES
from planaria.transport.protocol.errors import ErrorCode


def letter(offset: int, **headers: str) -> DeadLetter:
    told = {"dead-letter-topic": "T", "dead-letter-reason": "ValueError", "mine": "kept", **headers}
    return letter_of(Message("T.dlq", 0, offset, None, b"x", 0, told))


def machine(**options: Any) -> Redriving:
    found = Redriving("T.dlq", **options)
    found.topic_id = "id-1"
    return found


def entry(event: str, *letters: Any, topic_id: str = "id-1", at_ms: int = 0) -> dict[str, Any]:
    return {"event": event, "topic_id": topic_id, "at_ms": at_ms, "letters": [list(each) for each in letters]}


def test_options_that_would_lose_letters_are_refused() -> None:
    with pytest.raises(RedriveRefused, match="where they are"):
        Redriving("T.dlq", target="T.dlq")
    with pytest.raises(RedriveRefused, match="rate"):
        Redriving("T.dlq", rate=0)


def test_letters_without_an_origin_or_redriven_too_often_stay() -> None:
    often = letter(1, **{REDRIVES: "3"})
    homeless = letter_of(Message("T.dlq", 0, 2, None, b"x", 0, {}))
    fit, report = machine().judge([letter(0), often, homeless], "run")
    assert [each.position for each in fit] == [(0, 0)]
    assert (report.held_back, report.no_origin) == (1, 1)
    fit, report = machine(target="ELSEWHERE").judge([homeless], "run")
    assert (len(fit), report.no_origin) == (1, 0)


def test_the_headers_of_a_redriven_letter_name_its_origin_and_count() -> None:
    headers = machine().headers(letter(4, **{"dead-letter-dedup-id": "a"}))
    assert headers == {
        "mine": "kept",
        "dead-letter-dedup-id": "a",
        REDRIVES: "1",
        REDRIVEN_FROM: "redrive/id-1/0/4",
    }


def test_the_pace_decides_the_parts_and_the_pauses() -> None:
    letters = [letter(offset) for offset in range(250)]
    assert [len(part) for part in machine().chunks(letters)] == [100, 100, 50]
    slow = machine(rate=20.0)
    assert {len(part) for part in slow.chunks(letters)} == {2}
    assert slow.pause_s(10, 0.1) == pytest.approx(0.4)
    assert slow.pause_s(10, 1.0) == machine().pause_s(10, 0.0) == 0.0


def test_the_history_knows_intents_outcomes_and_earlier_topics() -> None:
    history = History("id-1")
    for each in (
        entry("moving", (0, 1, "T"), (0, 2, "T"), (0, 3, "U"), at_ms=100_000),
        entry("moving", (0, 4, "T"), topic_id="id-0"),
        entry("moved", (0, 1)),
        entry("refused", (0, 2)),
        entry("moving", (0, 3, "V"), at_ms=200_000),
        {"event": "ended", "topic_id": "id-1"},
    ):
        history.accept(each)
    assert history.moved == {(0, 1)}
    assert history.moving == {(0, 3): ("U", 100_000)}
    assert history.searches() == [("U", 100_000 - CLOCK_MARGIN_MS)]
    found = machine().found_moved(history, ["", "redrive/id-1/0/3", "redrive/id-0/0/4", "redrive/id-1/0/3"])
    assert found == [(0, 3)]


def test_an_uncertain_delivery_leaves_its_part_to_the_next_run() -> None:
    chunk = [letter(0), letter(1), letter(2)]
    refused = DeliveryFailed(ErrorCode.MESSAGE_TOO_LARGE, "", retriable=False)
    assert machine().outcomes(chunk, [None, refused, UnknownTopic("T")]) == {
        "moved": [[0, 0]],
        "refused": [[0, 1], [0, 2]],
    }
    with pytest.raises(DeliveryUncertain):
        machine().outcomes(chunk, [None, DeliveryUncertain(ErrorCode.TIMED_OUT, ""), None])


def test_the_group_commits_before_the_first_letter_that_is_left() -> None:
    assert committed_offsets({0: 9, 1: 4}, [letter(3), letter(5)], {(0, 3)}) == {0: 5, 1: 4}


class Killed(Exception):
    """The run is killed."""


class World:
    """A dead-letter topic, its audit log and the target, without deduplication."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.letters = [letter(offset) for offset in range(self.random.randint(1, 300))]
        self.audit: list[dict[str, Any]] = []
        self.target: list[str] = []

    def step(self) -> None:
        if self.random.random() < 0.02:
            raise Killed

    def history(self) -> History:
        history = History("id-1")
        for each in self.audit:
            history.accept(each)
        return history

    def run(self) -> None:
        redriving = machine()
        history = self.history()
        found = redriving.found_moved(history, self.target if history.searches() else [])
        if found:
            self.audit.append(entry("moved", *found))
        self.step()
        moved = self.history().moved
        fit, _ = redriving.judge([each for each in self.letters if each.position not in moved], "run")
        for chunk in redriving.chunks(fit):
            self.step()
            self.audit.append(
                entry("moving", *((*each.position, redriving.target_of(each)) for each in chunk))
            )
            errors: list[Exception | None] = []
            for each in chunk:
                self.step()
                refused = self.random.random() < 0.01
                errors.append(UnknownTopic("T") if refused else None)
                if not refused:
                    self.target.append(redriving.headers(each)[REDRIVEN_FROM])
            for event, positions in redriving.outcomes(chunk, errors).items():
                self.step()
                self.audit.append(entry(event, *positions))


@pytest.mark.parametrize("seed", range(30))
def test_runs_that_are_killed_anywhere_move_each_letter_once(seed: int) -> None:
    world = World(seed)
    for _ in range(200):
        try:
            world.run()
        except Killed:
            continue
        if len(world.target) == len(world.letters):
            break
    assert len(world.target) == len(set(world.target)), "a letter was redriven twice"
    assert len(world.target) == len(world.letters)
    assert len(world.history().moved) == len(world.letters)

"""Letters as they are read: headers into fields, filters, reasons counted."""

from typing import Any

import pytest

from planaria import Message
from planaria.transport.client.dead_letters import DeadLetter, LetterFilter, histogram, letter_of


def letter(offset: int = 0, partition: int = 0, **told: Any) -> DeadLetter:
    headers = {f"dead-letter-{name.replace('_', '-')}": str(value) for name, value in told.items()}
    return letter_of(Message("T.dlq", partition, offset, b"k", b"v", 5_000, headers))


def test_headers_become_fields() -> None:
    found = letter(
        topic="T",
        partition_="x",
        offset_="y",
        group="g",
        failures=3,
        deliveries=5,
        last_failure=77,
        reason="ValueError: no",
        redrives=2,
    )
    assert (found.topic, found.group, found.failures, found.deliveries) == ("T", "g", 3, 5)
    assert (found.failed_ms, found.redrives, found.exit) == (77, 2, None)


@pytest.mark.parametrize("text", ["", "many", "1.5", "9" * 30, "\u0663"])
def test_a_header_that_is_no_number_is_a_missing_one(text: str) -> None:
    found = letter(failures=text, redrives=text)
    assert (found.failures, found.redrives) == (0, 0)


def test_a_message_without_such_headers_is_a_letter_all_the_same() -> None:
    found = letter_of(Message("T.dlq", 1, 2, None, None, 5_000))
    assert (found.position, found.topic, found.reason, found.failed_ms) == ((1, 2), None, "", 5_000)


@pytest.mark.parametrize(
    ("wanted", "offsets"),
    [
        ({}, [0, 1, 2]),
        ({"reason": "timeout"}, [0]),
        ({"reason": "valueerror"}, [1]),
        ({"group": "b"}, [1, 2]),
        ({"since_ms": 200}, [1, 2]),
        ({"group": "b", "since_ms": 300}, [2]),
        ({"positions": frozenset({(0, 0), (1, 1)})}, [0]),
    ],
)
def test_filters(wanted: dict[str, Any], offsets: list[int]) -> None:
    letters = [
        letter(0, reason="Timeout: 5 s", group="a", last_failure=100),
        letter(1, reason="no", exception="builtins.ValueError", group="b", last_failure=200),
        letter(2, reason="other", group="b", last_failure=300),
    ]
    matching = LetterFilter(**wanted)
    assert [each.message.offset for each in letters if matching.matches(each)] == offsets


def test_reasons_are_counted_with_their_numbers_alike() -> None:
    letters = [letter(reason=f"KeyError: {n}") for n in range(3)]
    letters += [letter(reason="ValueError: no"), letter()]
    assert histogram(letters) == [("KeyError: N", 3), ("(none)", 1), ("ValueError: no", 1)]

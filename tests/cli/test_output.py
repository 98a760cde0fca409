"""Sizes, times and counts as text."""

import pytest
from rich.text import Text

from planaria.supervisor.cli.output import (
    bytes_text,
    duration_text,
    note,
    plural,
    print_table,
    rate_text,
    show,
)
from planaria.supervisor.cli.tables import Listing


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, "-"), (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (200 << 10, "200 KiB"),
        (5 << 20, "5.0 MiB"), (3 << 30, "3.0 GiB"), (2 << 40, "2.0 TiB"),
    ],
)  # fmt: skip
def test_bytes(size: int | None, text: str) -> None:
    assert bytes_text(size) == text


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (-1, "-"), (0, "0ms"), (999, "999ms"), (1_000, "1s"), (59_999, "59s"), (60_000, "1m"), (64_000, "1m 4s"),
        (3_600_000, "1h"), (3_660_000, "1h 1m"), (3_604_000, "1h"), (7 * 86_400_000, "7d"), (90_000_000, "1d 1h"),
    ],
)  # fmt: skip
def test_durations(milliseconds: int, text: str) -> None:
    assert duration_text(milliseconds) == text


def test_counts() -> None:
    assert plural(1, "message") == "1 message"
    assert plural(12_000, "message") == "12,000 messages"
    assert rate_text(1000, 0.5) == "2,000 a second"
    assert rate_text(1000, 0.0) == "-"


def test_piped_tables_are_never_wrapped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    made = Listing("address", "text")
    print_table(made, [("partition/" + "N" * 200 + "/0", "word " * 50)])
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_control_characters_of_others_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(
        Listing("key", "reason", prose=["reason"]), [["\x1b]0;title\x07", "red \x1b[31m \x9b1m \x7f"]]
    )
    show(Text("\x1b[2J", "bold"))
    note("a\x1bb")
    printed = capsys.readouterr().out
    assert not set(printed) & {chr(code) for code in (*range(10), *range(11, 32), 127, *range(128, 160))}
    assert "␛]0;title   red ␛[31m" in printed

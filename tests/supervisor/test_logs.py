"""Log lines: one line per event, for any content."""

import json
import logging
import sys
from collections.abc import Iterator

import pytest

from planaria.supervisor import logs


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("info", "text", "partition/ORDERS/0", 3)
    logs.event(
        logging.getLogger("x"), logging.WARNING, "child died", reason='a "quoted"\nline', ms=7, gone=None
    )
    line = capsys.readouterr().err
    assert line.startswith("time=2")
    assert line.endswith(
        'level=warning address=partition/ORDERS/0 incarnation=3 event="child died" '
        'reason="a \\"quoted\\"\\nline" ms=7\n'
    )


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("info", "json", "controller", 1)
    logs.event(logging.getLogger("x"), logging.ERROR, "child died", reason="a\nb", path=sys)
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    fields = json.loads(line)
    assert (fields["level"], fields["address"], fields["event"]) == ("error", "controller", "child died")
    assert fields["reason"] == "a\nb"


def test_what_others_log_has_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("info", "text", "controller", 1)
    try:
        raise RuntimeError("no")
    except RuntimeError:
        logging.getLogger("library").exception("it %s", "failed", extra={"fields": {"n": 1}})
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert 'event="it failed" n=1 traceback="Traceback' in line


def test_the_level_is_respected(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("warning", "text", "controller", 1)
    logging.getLogger("x").info("quiet")
    assert capsys.readouterr().err == ""

"""`planaria find`: the messages that meet the criteria, with progress on a terminal, up to the present end."""

import io
import json
import sys
import time
from functools import partial

import pytest

from command_line import Command, ServedBroker, planaria
from planaria.supervisor.cli.find import SHOWN_EVERY_S, Progress

pytestmark = pytest.mark.processes

RECORDS = 20_000


@pytest.fixture(scope="module")
def many(broker: ServedBroker) -> str:
    broker.run("topic", "create", "MANY", "--partitions", "2")
    given = "".join(
        f'{{"id": {number}, "user": {{"name": "u{number % 10}"}}}}\n' for number in range(RECORDS)
    )
    broker.run("produce", "MANY", "--format", "json", "--key-field", "id", "-H", "source=test", given=given)
    return "MANY"


def test_messages_by_key_header_and_json(broker: ServedBroker, many: str) -> None:
    assert json.loads(broker.run("find", many, "--key", "77", "--format", "value"))["id"] == 77
    found = broker.run(
        "find", many, "-H", "source=test", "--json", "user.name=u3", "--format", "json"
    ).splitlines()
    assert sorted(json.loads(line)["value"]["id"] for line in found) == list(range(3, RECORDS, 10))
    assert len(broker.run("find", many, "--json", "user.name=u3", "--count", "5").splitlines()) == 5


def test_nothing_found_and_wrong_criteria(broker: ServedBroker, many: str) -> None:
    for options, code, told in (
        (["--key", "none"], 1, f"none of {RECORDS:,} messages matches"),
        (["--key", "77", "--since", "2099-01-01"], 1, "none of 0 messages"),
        ([], 2, "give --key"),
        (["--json", "x"], 2, "no = between"),
        (["--key", "77", "--since", "never"], 2, "never"),
    ):
        done = planaria("find", many, *options, "--connect", broker.endpoint)
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        assert told in done.stderr


def test_ctrl_c_and_a_reader_that_goes_away(broker: ServedBroker, many: str) -> None:
    """The pipe holds a small part of the output, so the command is at work when either comes."""
    for end, code in ((Command.interrupt, 130), (Command.hang_up, 0)):
        command = Command("find", many, "-H", "source=test", "--format", "json", "--connect", broker.endpoint)
        assert json.loads(command.line())["topic"] == many
        end(command)
        found, _, errors = command.finish()
        assert (found, errors) == (code, "")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_one_line_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream, is_shown in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        clock = [0.0]
        monkeypatch.setattr(time, "monotonic", partial(clock.__getitem__, 0))
        with Progress() as progress:
            for number in range(10):
                progress.scanned += 1_000
                clock[0] += SHOWN_EVERY_S / 4
                progress.update(number / 10)
        written = stream.getvalue()
        assert ("messages read, 30%" in written) is is_shown
        assert "\n" not in written
        assert written.endswith("\r\x1b[K" if is_shown else "")

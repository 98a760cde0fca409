"""Redriven letters: each once, whatever is killed; not forever; recorded; tried with the current code first."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from live_trees import TIMEOUT_S, read_topic, until
from planaria import Broker, Client, Message, PlanariaError
from planaria.supervisor import rehearsal
from planaria.supervisor.rehearsal import RehearsalFailed, rehearse
from planaria.transport.client.dead_letters import LetterFilter
from planaria.transport.client.redrive import Redrive
from planaria.transport.client.redriving import RedriveRefused

pytestmark = pytest.mark.processes

ALL = LetterFilter()


def publish_dead_letter(broker: Broker, count: int, **told: str) -> None:
    """Publish letters as a subscriber writes them."""
    broker.create_topic("T", 2)
    broker.create_topic("T.dlq", 2)
    with broker.producer() as producer:
        for number in range(count):
            headers = {
                "content-type": "application/json",
                "dead-letter-topic": "T",
                "dead-letter-reason": f"ValueError: {number}",
                "dead-letter-traceback": "Traceback ...",
                "dead-letter-dedup-id": f"order-{number}",
                **told,
            }
            producer.publish("T.dlq", json.dumps(number).encode(), key=f"k{number % 7}", headers=headers)


def values(client: Client, topic: str) -> list[Any]:
    return sorted(message.data for message in read_topic(client, topic))


def test_all_letters_go_back_once(broker: Broker) -> None:
    publish_dead_letter(broker, 250)
    report = Redrive(broker.client, "T.dlq", actor="me").run(ALL)
    assert (report.moved, report.held_back, report.already_moved) == (250, 0, 0)
    assert values(broker.client, "T") == list(range(250))
    again = Redrive(broker.client, "T.dlq").run(ALL)
    assert again.moved == 0
    assert values(broker.client, "T") == list(range(250))
    message = read_topic(broker.client, "T")[0]
    assert message.key == f"k{message.data % 7}".encode()
    told = {name for name in message.headers or {} if name.startswith("dead-letter-")}
    assert told == {"dead-letter-redrives", "dead-letter-redriven-from", "dead-letter-dedup-id"}
    notes = [json.loads(note.value or b"") for note in read_topic(broker.client, "T.dlq.redriven")]
    assert [note["event"] for note in notes if note["run"] == report.run][::7] == ["begun", "ended"]
    assert notes[0]["by"] == "me"
    offsets = broker.client.group_offsets("dlq-redrive.T.dlq")
    assert sum(offsets.values()) == 250


def test_some_letters_elsewhere_and_the_others_later(broker: Broker) -> None:
    publish_dead_letter(broker, 20)
    broker.create_topic("ELSEWHERE", 1)
    report = Redrive(broker.client, "T.dlq", target="ELSEWHERE").run(LetterFilter(reason="error: 1"), limit=4)
    assert report.moved == 4
    moved = values(broker.client, "ELSEWHERE")
    assert len(moved) == 4
    assert all(str(number).startswith("1") for number in moved)
    assert len(Redrive(broker.client, "T.dlq").pending(ALL)) == 16
    assert Redrive(broker.client, "T.dlq").run(ALL).moved == 16
    assert sorted(moved + values(broker.client, "T")) == list(range(20))


def test_a_letter_does_not_go_round_for_ever(broker: Broker) -> None:
    publish_dead_letter(broker, 3, **{"dead-letter-redrives": "3"})
    report = Redrive(broker.client, "T.dlq").run(ALL)
    assert (report.moved, report.held_back) == (0, 3)
    assert Redrive(broker.client, "T.dlq", max_redrives=4).run(ALL).moved == 3
    headers = read_topic(broker.client, "T")[0].headers or {}
    assert headers["dead-letter-redrives"] == "4"


def test_letters_that_cannot_go_are_counted_and_stay(broker: Broker) -> None:
    publish_dead_letter(broker, 1)
    broker.publish("T.dlq", None, "a stray")
    for topic in ("GONE", "GONE", "no name"):
        broker.client.publish("T.dlq", b"x", headers={"dead-letter-topic": topic})
    broker.client.alter_topic("T", max_message_bytes=200)
    report = Redrive(broker.client, "T.dlq").run(ALL)
    assert (report.moved, report.no_origin, report.refused) == (0, 1, 4)
    broker.client.alter_topic("T", max_message_bytes=100_000)
    assert Redrive(broker.client, "T.dlq").run(ALL).moved == 1
    with pytest.raises(RedriveRefused):
        Redrive(broker.client, "T.dlq", target="T.dlq")


def test_what_cannot_be_meant_is_refused_before_anything_is_noted(broker: Broker) -> None:
    publish_dead_letter(broker, 1)
    for wrong, told in (
        ({"target": "NOPE"}, "there is no topic 'NOPE'"),
        ({"target": "T.dlq"}, "cannot be sent to where they are"),
        ({"rate": 0.0}, "rate: must be more than 0"),
    ):
        with pytest.raises(PlanariaError, match=told):
            Redrive(broker.client, "T.dlq", **wrong)  # type: ignore[arg-type]
    assert [each.topic for each in broker.client.list_topics()] == ["T", "T.dlq"]


def test_the_letters_of_a_topic_made_again_are_others(broker: Broker) -> None:
    publish_dead_letter(broker, 5)
    Redrive(broker.client, "T.dlq").run(ALL)
    broker.client.delete_topic("T.dlq")
    publish_dead_letter(broker, 5)
    assert Redrive(broker.client, "T.dlq").run(ALL).moved == 5
    assert values(broker.client, "T") == sorted([*range(5), *range(5)])


REDRIVE = """
import os, signal, sys
from planaria import Client
from planaria.transport.client import redrive
from planaria.transport.client.dead_letters import LetterFilter
stage = sys.argv[2]
class Mortal(redrive.Redrive):
    def _note(self, event, run, **fields):
        if event == "moved" and stage == "before moved" and self.count == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        super()._note(event, run, **fields)
        if event == "moving" and stage == "after moving" and self.count == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        self.count += event == "moved"
    count = 0
with Client(sys.argv[1]) as client:
    Mortal(client, "T.dlq").run(LetterFilter())
"""


@pytest.mark.parametrize("window_ms", [120_000, 0], ids=["remembered", "forgotten"])
@pytest.mark.parametrize("stage", ["after moving", "before moved"])
def test_a_redrive_killed_in_the_middle_and_run_again_doubles_nothing(
    broker: Broker, stage: str, window_ms: int
) -> None:
    """Also when the dedup window no longer holds the first run's messages: then the target itself shows them."""
    publish_dead_letter(broker, 250)
    broker.client.alter_topic("T", dedup_window_ms=window_ms)
    died = subprocess.run(
        [sys.executable, "-c", REDRIVE, broker.endpoint, stage], timeout=TIMEOUT_S, check=False
    )
    assert died.returncode == -signal.SIGKILL
    before = values(broker.client, "T")
    assert len(before) == (100 if stage == "after moving" else 200)
    report = Redrive(broker.client, "T.dlq").run(ALL)
    assert report.already_moved == (0 if stage == "after moving" else 100)
    assert report.moved + len(before) == 250
    assert values(broker.client, "T") == list(range(250))


def test_a_redrive_over_killed_partitions(broker: Broker) -> None:
    publish_dead_letter(broker, 300)

    def kill(moved: int) -> None:
        broker.kill(f"partition/T/{moved // 100 % 2}")

    assert Redrive(broker.client, "T.dlq", rate=2_000).run(ALL, on_progress=kill).moved == 300
    assert Counter(values(broker.client, "T")) == Counter(range(300))


HANDLERS = """
import os, time
def fussy(message):
    print("the handler speaks")
    if message.data == 1:
        raise ValueError("not 1")
    if message.data == 2:
        import ctypes
        ctypes.string_at(0)
    if message.data == 3:
        os._exit(7)
    if message.data == 4:
        time.sleep(60)
def fine(message):
    assert os.listdir(".") == []
"""


@pytest.fixture
def shop(tmp_path: Path) -> list[str]:
    (tmp_path / "shop_of_letters.py").write_text(HANDLERS)
    return [os.fspath(tmp_path)]


def a_letter(number: int) -> Message:
    headers = {"content-type": "application/json"}
    return Message("T.dlq", 0, number, None, json.dumps(number).encode(), 1_000, headers)


def test_letters_are_tried_one_by_one_whatever_they_do(shop: list[str]) -> None:
    trials = list(rehearse("shop_of_letters:fussy", [a_letter(n) for n in range(6)], 4, shop))
    assert [trial.passed for trial in trials] == [True, False, False, False, False, True]
    reasons = [trial.reason for trial in trials]
    assert reasons[1] == "ValueError: not 1"
    assert "in fussy" in trials[1].traceback
    assert reasons[2] == "killed its process: SIGSEGV"
    assert "Segmentation fault" in trials[2].traceback
    assert reasons[3] == "ended its process with exit code 7"
    assert reasons[4] == "took longer than 4 s"
    assert "in fussy" in trials[4].traceback


def test_each_process_begins_in_an_empty_directory(shop: list[str]) -> None:
    assert all(
        trial.passed
        for trial in rehearse("shop_of_letters:fine", [a_letter(0), a_letter(1)], TIMEOUT_S, shop)
    )


def test_packages_beside_ours_hide_none_of_the_standard_library(
    shop: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "queue").mkdir()
    (tmp_path / "queue" / "__init__.py").touch()
    (tmp_path / "shop_of_letters.py").write_text("import queue\nqueue.SimpleQueue\ndef fine(_): ...\n")
    monkeypatch.setattr(rehearsal, "HOME", tmp_path)
    (trial,) = rehearse("shop_of_letters:fine", [a_letter(0)], TIMEOUT_S, [])
    assert trial.passed


@pytest.mark.parametrize("handler", ["shop_of_letters:missing", "no_such_module:f"])
def test_a_handler_that_cannot_be_loaded_is_said_so(shop: list[str], handler: str) -> None:
    with pytest.raises(RehearsalFailed, match="cannot be loaded"):
        list(rehearse(handler, [a_letter(0)], TIMEOUT_S, shop))


def test_fixed_and_sent_back_it_is_handled_once(broker: Broker, tmp_path: Path) -> None:
    """The whole sequence: poison, letter, a new handler, the redriven letter."""
    fixed, handled = tmp_path / "fixed", tmp_path / "handled"

    def charge(message: Message) -> None:
        if message.data == "poison" and not fixed.exists():
            raise ValueError("no")
        with handled.open("a") as file:
            file.write(f"{message.data}\n")

    broker.create_topic("T", 1)
    broker.create_topic("T.dlq", 1)
    for value in ("a", "poison", "b"):
        broker.publish("T", None, value)
    subscription = broker.subscribe("g", "T", handler=charge, retries=1, backoff_ms=[10], dead_letter="T.dlq")
    until(lambda: len(read_topic(broker.client, "T.dlq")) == 1, "the letter", TIMEOUT_S)
    fixed.touch()
    assert Redrive(broker.client, "T.dlq").run(ALL).moved == 1
    until(lambda: handled.read_text().count("\n") == 3, "all is handled", TIMEOUT_S)
    assert sorted(handled.read_text().split()) == ["a", "b", "poison"]
    subscription.stop()

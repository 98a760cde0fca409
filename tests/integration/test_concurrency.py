"""Several records in flight in one subscriber, in real processes: a killer among them, a stuck key, a restart."""

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from command_line import planaria
from live_trees import TIMEOUT_S, actor, read_topic, until
from planaria import Broker, Message
from planaria.transport.client.dead_letters import LetterFilter
from planaria.transport.client.redrive import Redrive

pytestmark = pytest.mark.processes

CONCURRENCY = 64
POISON = 41


def killer_among_others(notes: Path) -> Callable[[Message], None]:
    """Handle all but the poison. The first process dies when all of its workers are busy and none can end."""

    def note(line: str) -> None:
        with (notes / "log").open("a") as file:
            file.write(line + "\n")

    def handle(message: Message) -> None:
        import ctypes
        import sys
        import threading

        def are_others_at_work() -> bool:
            frames = sys._current_frames()
            mine = threading.get_ident()
            for thread in threading.enumerate():
                if not thread.name.startswith("planaria-handler") or thread.ident in (None, mine):
                    continue
                frame = frames.get(thread.ident)
                while frame is not None:
                    if frame.f_code.co_name == "_run":
                        return True
                    frame = frame.f_back
            return False

        number = message.data
        if (notes / "fixed").exists():
            note(f"done {number}")
            return
        if number < 64 and not (notes / "died").exists():
            barrier = sys.__dict__.setdefault("_planaria_test_barrier", threading.Barrier(64))
            barrier.wait(100)
            if number != 41:
                threading.Event().wait()
            (notes / "died").touch()
            note("killed")
            ctypes.string_at(0)
        if number == 41:
            note("killed")
            # The others' finished work stays finished: the process must not die between their last line and their note.
            # So wait until they finish, and then stop all other threads from getting the interpreter (those that
            # already wait for it request it within 5 ms).
            interval_s = sys.getswitchinterval()
            while True:
                while are_others_at_work():
                    pass
                sys.setswitchinterval(1_000)
                if not any(are_others_at_work() for _ in range(200)):
                    ctypes.string_at(0)
                sys.setswitchinterval(interval_s)
        note(f"done {number}")

    return handle


def test_one_killer_among_64_is_found_and_the_others_are_handled_once(broker: Broker, tmp_path: Path) -> None:
    broker.create_topic("T", 2)
    broker.create_topic("T.dlq", 1)
    with broker.producer() as producer:
        for number in range(200):
            producer.publish("T", number, key=f"k{number}", partition=number % 2)
    options = {"concurrency": CONCURRENCY, "retries": 2, "backoff_ms": [10], "dead_letter": "T.dlq"}
    broker.subscribe("g", "T", handler=killer_among_others(tmp_path), **options)

    def lines() -> Counter[str]:
        return (
            Counter((tmp_path / "log").read_text().splitlines()) if (tmp_path / "log").exists() else Counter()
        )

    until(lambda: len(lines()) == 200, "all but one are handled, and one has killed")
    letters = until(lambda: read_topic(broker.client, "T.dlq"), "the dead letter")
    counts = lines()
    deaths = counts.pop("killed")
    assert counts == {f"done {number}": 1 for number in range(200) if number != POISON}
    assert [letter.data for letter in letters] == [POISON]
    assert letters[0].headers["dead-letter-failures"] == "3"
    assert letters[0].headers["dead-letter-exit"] == "killed by SIGSEGV"
    assert 3 < deaths <= 7 + 2, "at most 7 to find it, of which the last is charged, and two retries"
    assert actor(broker.client, "subscriber/g/1").state == "ready", "not quarantined"
    until(lambda: sum(broker.client.group_offsets("g").values()) == 200, "all is committed")

    (tmp_path / "fixed").touch()
    assert Redrive(broker.client, "T.dlq").run(LetterFilter()).moved == 1
    until(lambda: lines()[f"done {POISON}"] == 1, "the redriven record is handled")
    until(lambda: sum(broker.client.group_offsets("g").values()) == 201, "and committed")
    assert lines() == {**{f"done {number}": 1 for number in range(200)}, "killed": deaths}


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize("how", ["stop", "kill"])
def test_what_is_done_behind_a_stuck_key_is_not_repeated(
    broker: Broker, tmp_path: Path, concurrency: int, how: str
) -> None:
    log = tmp_path / "log"

    def handle(message: Message) -> None:
        with log.open("a") as file:
            file.write(f"{message.key.decode()} {message.data}\n")
        if message.key == b"stuck" and not (tmp_path / "fixed").exists():
            raise ValueError("no")

    broker.create_topic("T", 1)
    with broker.producer() as producer:
        for number in range(60):
            producer.publish("T", number, key="stuck" if number % 10 == 3 else f"k{number % 5}")
    options = {"concurrency": concurrency, "retries": 100, "backoff_ms": [500]}
    subscription = broker.subscribe("g", "T", handler=handle, **options)

    def handled() -> list[tuple[str, int]]:
        lines = log.read_text().splitlines() if log.exists() else []
        return [(line.split()[0], int(line.split()[1])) for line in lines]

    def others() -> list[int]:
        return [number for key, number in handled() if key != "stuck"]

    until(lambda: len(others()) == 54, "the other keys flow")
    until(lambda: broker.client.group_offsets("g").get(("T", 0)) == 3, "the gap is committed")  # type: ignore[call-overload]
    (tmp_path / "fixed").touch()
    if how == "stop":
        subscription.stop()
        broker.subscribe("g", "T", handler=handle, **options)
    else:
        broker.client.kill("subscriber/g/1")
    until(lambda: broker.client.group_offsets("g").get(("T", 0)) == 60, "all is done", TIMEOUT_S)  # type: ignore[call-overload]
    assert sorted(others()) == sorted(number for number in range(60) if number % 10 != 3)
    stuck = [number for key, number in handled() if key == "stuck"]
    assert list(dict.fromkeys(stuck)) == [3, 13, 23, 33, 43, 53], "in their order"
    assert len(set(stuck)) + stuck.count(3) - 1 == len(stuck), "only the first was tried again"
    for key in range(5):
        assert (order := [number for name, number in handled() if name == f"k{key}"]) == sorted(order)


def test_what_is_at_hand_is_shown(broker: Broker, tmp_path: Path) -> None:
    def wait(message: Message) -> None:
        import time

        while not (tmp_path / "go on").exists():
            time.sleep(0.01)

    broker.create_topic("T", 2)
    with broker.producer() as producer:
        for number in range(10):
            producer.publish("T", number, key=f"k{number}", partition=number % 2)
    broker.subscribe("g", "T", handler=wait, concurrency=3)
    broker.subscribe("other", "T", handler=wait)

    def records(*options: str) -> list[dict[str, Any]]:
        done = planaria("inflight", "T", *options, "--json", "--connect", broker.endpoint)
        assert done.returncode == 0, done.stderr
        found: list[dict[str, Any]] = json.loads(done.stdout)["records"]
        return found

    found = until(lambda: each if len(each := records("--group", "g")) == 3 else None, "three at hand")
    subscriber = actor(broker.client, "subscriber/g/1")
    assert {(each["member"], each["pid"], each["group"]) for each in found} == {
        ("subscriber/g/1", subscriber.pid, "g")
    }
    assert len({(each["partition"], each["offset"]) for each in found}) == 3
    assert all(each["attempt"] == 1 and 0 < each["since_ms"] <= time.time() * 1000 for each in found)
    until(lambda: len(records()) == 4, "and one of the other group")
    assert "subscriber/other/1" in planaria("inflight", "T", "--connect", broker.endpoint).stdout
    for wrong in (["NOPE"], ["T", "--group", "nobody"]):
        done = planaria("inflight", *wrong, "--connect", broker.endpoint)
        assert (done.returncode, "there is no" in done.stderr) == (1, True)
    (tmp_path / "go on").touch()
    until(lambda: not records(), "nothing is at hand any more")
    assert "no record of T is being handled" in planaria("inflight", "T", "--connect", broker.endpoint).stdout

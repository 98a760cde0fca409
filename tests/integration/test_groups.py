"""A group of real members, in threads and in processes, that join, leave, are killed and freeze while messages come.

Guarantees: every record is delivered, each partition in order; a partition has one owner at a time; after an orderly
revocation nothing is left unfinished and nothing is repeated.
"""

import itertools
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import group_member
from group_member import SESSION_TIMEOUT_MS, Journal
from live_trees import TIMEOUT_S, until
from planaria import Broker, Client
from warm_start import WarmPopen

pytestmark = pytest.mark.processes

TOPIC, GROUP, PARTITIONS = "T", "g", 6
MAX_MEMBERS = 6


class Member:
    """One member, in a thread or process; `end` is the time when it was killed or frozen, and left the group."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()  # it may be killed before it writes a word
        self.end: int | None = None

    def leave(self) -> None:
        raise NotImplementedError


class ThreadMember(Member):
    def __init__(self, endpoint: str, path: Path) -> None:
        super().__init__(path)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(endpoint,), daemon=True)
        self._thread.start()

    def _run(self, endpoint: str) -> None:
        with self.path.open("a", encoding="utf-8") as stream, Client(endpoint) as client:
            journal = Journal(stream)
            group_member.work(group_member.join(client, GROUP, TOPIC, journal), journal, self._over)

    def leave(self) -> None:
        self._over.set()
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()


class ProcessMember(Member):
    def __init__(self, endpoint: str, path: Path) -> None:
        super().__init__(path)
        self.process = WarmPopen(
            [sys.executable, group_member.__file__, endpoint, GROUP, TOPIC, str(path)], stdin=subprocess.PIPE
        )

    def leave(self) -> None:
        self.process.communicate(timeout=TIMEOUT_S)
        assert self.process.returncode == 0

    def signal(self, number: int) -> None:
        if self.end is None:
            self.end = time.monotonic_ns()
        self.process.send_signal(number)


class Life:
    """The group's history: its members and their faults."""

    def __init__(self, broker: Broker, directory: Path, seed: int) -> None:
        self._broker = broker
        self._directory = directory
        self._chance = random.Random(seed)
        self.members: list[Member] = []
        self.present: list[Member] = []
        self.frozen: list[ProcessMember] = []

    def join(self) -> None:
        kind = self._chance.choice([ThreadMember, ProcessMember])
        member = kind(self._broker.endpoint, self._directory / f"{len(self.members)}")
        self.members.append(member)
        self.present.append(member)

    def step(self) -> None:
        """Perform one random event of a group's life."""
        processes = [each for each in self.present if isinstance(each, ProcessMember)]
        choices = []
        if len(self.present) < MAX_MEMBERS:
            choices += [self.join] * 3
        if len(self.present) > 1:
            choices += [self._leave] * 2
        if processes and len(self.present) > 1:
            choices += [lambda: self._kill(self._chance.choice(processes))]
            choices += [lambda: self._freeze(self._chance.choice(processes))]
        self._chance.choice(choices)()

    def _leave(self) -> None:
        member = self._chance.choice(self.present)
        self.present.remove(member)
        member.leave()

    def _kill(self, member: ProcessMember) -> None:
        self.present.remove(member)
        member.signal(signal.SIGKILL)
        member.process.communicate()

    def _freeze(self, member: ProcessMember) -> None:
        self.present.remove(member)
        member.signal(signal.SIGSTOP)
        self.frozen.append(member)

    def thaw(self) -> None:
        """Resume the frozen members, which find themselves expelled, and leave."""
        for member in self.frozen:
            member.process.send_signal(signal.SIGCONT)
            member.leave()

    def end(self) -> None:
        while self.present:
            self.present.pop().leave()

    def abort(self) -> None:
        """Leave no process behind, however the test has ended."""
        for member in self.members:
            if isinstance(member, ProcessMember) and member.process.poll() is None:
                member.process.kill()
                member.process.communicate()


class Event(NamedTuple):
    at: int
    member: int
    mark: str
    partition: int
    offset: int = -1
    value: str = ""


def events_of(members: list[Member]) -> Iterator[Event]:
    """Yield all notes, in the order of time; a member that was killed or frozen is `dead` from then on."""
    for number, member in enumerate(members):
        for line in member.path.read_text().splitlines():
            at, _, rest = line.partition(" ")
            if member.end is not None and int(at) >= member.end:
                break
            partition, _, message = rest[1:].partition(":")
            offset, _, value = message.partition(":")
            yield Event(int(at), number, rest[0], int(partition), int(offset or -1), value)
        if member.end is not None:
            yield Event(member.end, number, "x", -1)


class Ownership:
    """Replays the members' notes, partition by partition."""

    def __init__(self) -> None:
        self._owner: dict[int, int] = {}
        self._next: dict[int, int] = dict.fromkeys(range(PARTITIONS), 0)
        self._is_continued: dict[int, bool] = {}
        self._expected: dict[int, int] = {}
        self.seen: set[str] = set()
        self.repeated = 0

    def play(self, event: Event) -> None:
        match event.mark:
            case "+":
                owner = self._owner.get(event.partition)
                assert owner is None, f"{event}: member {owner} still owns the partition"
                self._owner[event.partition] = event.member
            case "-":
                assert self._owner.pop(event.partition) == event.member, f"{event}: not the owner"
                # A member without a delivery passes on its predecessor's state, orderly or not.
                self._is_continued.setdefault(event.partition, True)
            case "!":
                if self._owner.get(event.partition) == event.member:
                    del self._owner[event.partition]
                self._is_continued[event.partition] = False
            case "x":
                for partition in [p for p, owner in self._owner.items() if owner == event.member]:
                    del self._owner[partition]
                    self._is_continued[partition] = False
            case "=":
                self._hand_out(event)

    def _hand_out(self, event: Event) -> None:
        assert self._owner.get(event.partition) == event.member, f"{event}: not the owner's"
        at = event.partition
        expected = self._next[at]
        if self._is_continued.pop(at, True):
            assert event.offset == expected, f"{event}: {expected} was next"
        else:
            assert event.offset <= expected, f"{event}: {expected} was skipped"
            self.repeated += expected - event.offset
        self._next[at] = event.offset + 1
        self.seen.add(event.value)


class Source:
    """Publishes until it is stopped."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._over = threading.Event()
        self.published: list[str] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with self._broker.producer() as producer:
            for number in itertools.count():
                if self._over.wait(0.01):
                    return
                for value in (f"{number}.{each}" for each in range(10)):
                    producer.publish(TOPIC, value.encode(), key=value)
                    self.published.append(value)

    def stop(self) -> None:
        self._over.set()
        self._thread.join(TIMEOUT_S)


@pytest.fixture
def life(broker: Broker, tmp_path: Path, seed: int) -> Iterator[Life]:
    broker.create_topic(TOPIC, PARTITIONS)
    life = Life(broker, tmp_path, seed)
    yield life
    life.abort()


@pytest.mark.parametrize("steps", [15, pytest.param(150, marks=pytest.mark.chaos)])
def test_members_come_and_go(broker: Broker, life: Life, seed: int, steps: int) -> None:
    source = Source(broker)
    pace = random.Random(seed)
    for _ in range(3):
        life.join()
    for _ in range(steps):
        # The members' own time: the test covers events at any moment of it.
        time.sleep(pace.expovariate(1 / 0.4))
        life.step()
    source.stop()

    def everything() -> bool:
        seen = {event.value for event in events_of(life.members) if event.mark == "="}
        return seen >= set(source.published)

    until(everything, "everything is handed out", SESSION_TIMEOUT_MS / 1000 + TIMEOUT_S)
    life.thaw()
    life.end()

    replay = Ownership()
    for event in sorted(events_of(life.members)):
        replay.play(event)
    assert replay.seen == set(source.published)
    ends = {(TOPIC, n): broker.client.list_offsets(TOPIC, n).offset for n in range(PARTITIONS)}
    assert broker.client.group_offsets(GROUP) == {position: end for position, end in ends.items() if end}
    assert broker.client.describe_group(GROUP).members == []


def test_a_member_that_sleeps_too_long_is_told_so(broker: Broker) -> None:
    """A program that does not poll loses its partitions to others, and cannot commit over them."""
    broker.create_topic("T", 1)
    for number in range(4):
        broker.publish("T", "k", number)
    lost: list[object] = []
    options = {"auto_offset_reset": "earliest"}
    with (
        broker.consumer("g", ["T"], **options, max_poll_interval_ms=300, on_lost=lost.extend) as sleeper,
        broker.consumer("g", ["T"], **options) as other,
    ):
        assert sleeper.poll(TIMEOUT_S, max_messages=2)
        found = until(lambda: other.poll(0.1), "the other has the partition")
        assert [message.data for message in found] == [0, 1, 2, 3]
        assert sleeper.poll(0) == []
        assert lost == [("T", 0)]
        other.commit()
    assert broker.client.group_offsets("g") == {("T", 0): 4}

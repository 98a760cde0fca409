"""Members, coordinator and partitions of a share group killed at random: each record is accepted once, or dead."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from live_trees import actor, read_topic, until, until_reborn
from planaria import Broker
from planaria.actors.coordinator.share.partition import EXPIRED
from warm_start import WarmPopen

pytestmark = pytest.mark.processes

MEMBER = Path(__file__).parents[1] / "support" / "share_member.py"
LOCK_MS = 1_000
MAX_DELIVERIES = 5


class Members:
    """Processes that come and go; their reports are kept."""

    def __init__(self, endpoint: str, directory: Path, chance: random.Random) -> None:
        self._endpoint, self._directory, self._chance = endpoint, directory, chance
        self._running: list[subprocess.Popen[bytes]] = []
        self._outputs: list[Path] = []

    def start(self) -> None:
        output = self._directory / f"member-{len(self._outputs)}"
        self._outputs.append(output)
        command = [sys.executable, str(MEMBER), self._endpoint, "g", "T", str(self._chance.random())]
        with output.open("wb") as file:
            self._running.append(WarmPopen(command, stdout=file))

    def kill(self) -> None:
        victim = self._running.pop(self._chance.randrange(len(self._running)))
        os.kill(victim.pid, signal.SIGKILL)
        victim.wait()

    def kill_all(self) -> None:
        while self._running:
            self.kill()

    def delivery_counts(self) -> set[int]:
        """Return every delivery count that any member received with a record."""
        return {int(line.split(" ")[1]) for line in self._lines() if line.startswith("# ")}

    def told(self, sign: str, verdict: str) -> Counter[str]:
        """Return how often each record was reported, by `partition:offset`."""
        found: Counter[str] = Counter()
        for line in self._lines():
            said, of, *tps = line.split(" ")
            if (said, of) == (sign, verdict):
                found.update(tps)
        return found

    def _lines(self) -> Iterator[str]:
        """Yield the lines of all outputs. A kill may have cut the last one of an output."""
        for output in self._outputs:
            yield from output.read_text().rpartition("\n")[0].splitlines()


@pytest.mark.parametrize(
    ("members", "records", "kills"),
    [(4, 3_000, 8), pytest.param(32, 20_000, 40, marks=[pytest.mark.chaos, pytest.mark.timeout(400)])],
)
def test_each_record_is_accepted_once_or_dead_whoever_is_killed(
    broker: Broker, tmp_path: Path, seed: int, members: int, records: int, kills: int
) -> None:
    chance = random.Random(seed)
    broker.create_topic("T", 2)
    broker.create_topic("DLQ", 1)
    client = broker.client
    client.configure_share_group("g", lock_ms=LOCK_MS, max_deliveries=MAX_DELIVERIES, dead_letter="DLQ")
    with broker.producer() as producer:
        for number in range(records):
            producer.publish("T", str(number).encode())
    coordinator_kills = 0
    everybody = Members(broker.endpoint, tmp_path, chance)
    try:
        for _ in range(members):
            everybody.start()
        for _ in range(kills):
            time.sleep(chance.uniform(0.0, 0.3))
            address = chance.choice(
                ["", "", "coordinator/g", "partition/T/0", "partition/T/1", "partition/DLQ/0"]
            )
            if address:
                coordinator_kills += address == "coordinator/g"
                before = actor(client, address)
                client.kill(address)
                until_reborn(client, before)
            else:
                everybody.kill()
                everybody.start()
        until(lambda: is_over(broker, records), "all is done", 300)
    finally:
        everybody.kill_all()
    letters = read_topic(client, "DLQ")
    dead = Counter(
        f"{(each.headers or {})['dead-letter-partition']}:{(each.headers or {})['dead-letter-offset']}"
        for each in letters
    )
    accepted, tried = everybody.told("!", "accept"), everybody.told("?", "accept")
    assert set(accepted.values()) <= {1}, "accepted twice"
    assert set(dead.values()) <= {1}, "dead twice"
    assert accepted.keys().isdisjoint(dead), "accepted and dead"
    tps = {
        f"{partition}:{offset}"
        for partition in (0, 1)
        for offset in range(client.list_offsets("T", partition).offset)
    }
    assert len(tps) == records
    missing = tps - accepted.keys() - dead.keys()
    assert missing <= tried.keys(), "done without having been accepted"
    # A lock that ends with its coordinator counts as an attempt, and dead-letters nothing.
    bound = MAX_DELIVERIES + coordinator_kills
    assert everybody.delivery_counts() <= set(range(1, bound + 1)), "delivered too often"
    for letter in letters:
        headers = letter.headers or {}
        if headers["dead-letter-reason"] == EXPIRED:
            assert MAX_DELIVERIES <= int(headers["dead-letter-deliveries"]) <= bound


def is_over(broker: Broker, records: int) -> bool:
    share = broker.client.describe_group("g").share
    assert share is not None
    return sum(each.start_offset for each in share.partitions) == records

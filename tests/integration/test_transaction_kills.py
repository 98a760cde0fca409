"""The coordinator of transactions is killed between any two of its steps, by a program that speaks JSON over ZeroMQ."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import zmq

from live_trees import TIMEOUT_S, actor, pid_of, read_topic, until, until_reborn
from planaria import Broker
from planaria.transport.batch import TRANSACTIONAL, build

pytestmark = pytest.mark.processes

FROZEN = {
    "asked": ["partition/__transactions/0"],
    "decided": ["partition/T/0", "partition/T/1"],
    "half told": ["partition/T/1"],
    "complete": [],
}
"""By the step the coordinator is killed after: the actors frozen meanwhile, which hold it before the next step."""


class Program:
    """Sends one request at a time, and retries retriable errors, as any client does."""

    def __init__(self, endpoint: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.connect(endpoint)
        self._numbers = 0

    def send(self, op: str, payload: tuple[bytes, ...] = (), **fields: Any) -> int:
        self._numbers += 1
        header = {"op": op, "id": self._numbers, **fields}
        self._socket.send_multipart([json.dumps(header).encode(), *payload])
        return self._numbers

    def ask(self, op: str, payload: tuple[bytes, ...] = (), **fields: Any) -> dict[str, Any]:
        """Return the reply, which may be an error that no retry resolves."""

        def attempt() -> dict[str, Any] | None:
            number = self.send(op, payload, **fields)
            while self._socket.poll(int(TIMEOUT_S * 1000)):
                reply: dict[str, Any] = json.loads(self._socket.recv_multipart()[0])
                if reply["id"] == number:
                    return None if reply.get("error", {}).get("retriable") else reply
            raise AssertionError(f"{op} is not answered")

        return until(attempt, f"{op} is answered for good")

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._context.term()


@pytest.fixture
def frozen() -> Iterator[list[int]]:
    """Collect processes to stop, and resume them at the end at the latest."""
    pids: list[int] = []
    yield pids
    wake(pids)


def wake(pids: list[int]) -> None:
    while pids:
        with suppress(ProcessLookupError):
            os.kill(pids.pop(), signal.SIGCONT)


def test_the_outcome_is_one_whenever_the_coordinator_is_killed(data_dir: Path, frozen: list[int]) -> None:
    settings: dict[str, Any] = {
        "restart_intensity": 1_000_000, "backoff_reset_ms": 1, "hang_timeout_ms": 60_000, "transaction_coordinators": 1
    }  # fmt: skip
    with Broker(data_dir, **settings) as broker, Program(broker.endpoint) as program:
        broker.create_topic("T", 2)
        for step in FROZEN:
            for commit in (True, False):
                end_and_kill(broker, program, step, commit, frozen)
        for partition in range(2):
            until(lambda at=partition: is_stable(broker, at), "nothing is open")  # type: ignore[misc]
        found = read_topic(broker.client, "T")
    expected = {(partition, f"{step}, True".encode()) for partition in range(2) for step in FROZEN}
    assert {(message.partition, message.value) for message in found} == expected
    assert len(found) == len(expected), "once"


def end_and_kill(broker: Broker, program: Program, step: str, commit: bool, frozen: list[int]) -> None:
    name = f"{step}, {commit}"
    begun = program.ask("init_producer", transactional_id=name)
    who = {key: begun[key] for key in ("producer_id", "producer_epoch")}
    for partition in range(2):
        record = (None, name.encode(), 0, None)
        batch = build(
            [record], first_timestamp_ms=1, max_timestamp_ms=1, attributes=TRANSACTIONAL, base_sequence=0, **who
        )  # fmt: skip
        written = program.ask("produce", (batch,), topic="T", partition=partition)
        assert written["batches"][0]["error"] is None
    for address in FROZEN[step]:
        frozen.append(pid_of(broker.client, address))
        os.kill(frozen[-1], signal.SIGSTOP)
    before = actor(broker.client, "transactions/0")
    assert before.pid is not None
    end = {**who, "commit": commit, "partitions": {"T": [0, 1]}}
    first = None
    if step == "asked":
        program.send("end_transaction", **end)
    else:
        first = program.ask("end_transaction", **end)
        assert "error" not in first
    if step == "half told":
        until(lambda: is_stable(broker, 0), "one partition has its marker")
    if step == "complete":
        until(lambda: state_of(program, name).startswith("Complete"), "all have theirs")
    os.kill(before.pid, signal.SIGKILL)
    wake(frozen)
    until_reborn(broker.client, before)
    again = program.ask("end_transaction", **end)
    assert "error" not in again
    if first is not None:
        assert [again[key] for key in who] == [first[key] for key in who], "the next identity is the same"
    other = program.ask("end_transaction", **{**end, "commit": not commit})
    assert other["error"]["retriable"] is False
    expected = "CompleteCommit" if commit else "CompleteAbort"
    until(lambda: state_of(program, name) == expected, f"{name} is {expected}")


def is_stable(broker: Broker, partition: int) -> bool:
    reply, _ = broker.client._fetch("T", partition, 0)
    return reply.last_stable_offset == reply.high_watermark


def state_of(program: Program, name: str) -> str:
    listed = program.ask("list_transactions")["transactions"]
    return next(each["state"] for each in listed if each["transactional_id"] == name)

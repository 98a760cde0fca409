"""One worker of a pipeline: `python -m planaria.supervisor.chaos.stage` with a Stage as JSON; killed at any moment.

It reads, publishes and commits in transactions, and notes each step in its journal before it takes it. Any failure
ends this session of its consumer and producer; the next starts from the committed offsets. A fenced worker exits: it has
a successor.
"""

import os
import sys
import time
from pathlib import Path

import msgspec

from ...transport.client.client import Client
from ...transport.client.errors import ProducerFenced, TransactionAborted
from ...transport.client.messages import Message
from ...transport.client.producer import Producer
from ...transport.protocol.errors import PlanariaError
from .transaction_history import Attempt, Outcome, Session, origin

MAX_MESSAGES = 50
POLL_S = 0.2


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    endpoint: str
    group: str
    source: str
    target: str
    transactional_id: str
    journal: str


class Ending(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    name: str
    at: int


class Ended(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    name: str
    outcome: Outcome


class Tried(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    attempt: Attempt


class Began(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    session: Session


Note = Tried | Ending | Ended | Began


class Journal:
    """Notes that outlive their process: each is a line, written by one call."""

    def __init__(self, folder: str) -> None:
        path = f"{folder}/{os.getpid()}-{time.monotonic_ns()}"
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, note: Note) -> None:
        os.write(self._descriptor, msgspec.json.encode(note) + b"\n")


def read_journals(folder: Path) -> tuple[list[Attempt], list[Session]]:
    """Return the notes of all workers."""
    attempts: dict[str, Attempt] = {}
    sessions: list[Session] = []
    for path in folder.iterdir():
        # A line without an end was being written when its process was killed.
        for line in path.read_bytes().rpartition(b"\n")[0].splitlines():
            match msgspec.json.decode(line, type=Note):
                case Tried(attempt=attempt):
                    attempts[attempt.name] = attempt
                case Ending(name=name, at=at):
                    attempts[name].ending_at = at
                case Ended(name=name, outcome=outcome):
                    attempts[name].outcome = outcome
                case Began(session=session):
                    sessions.append(session)
    return list(attempts.values()), sessions


def work(client: Client, stage: Stage, journal: Journal) -> None:
    """Run one session. Raises the error that ended it."""
    producer = client.producer(transactional_id=stage.transactional_id)
    assert not isinstance(producer, Producer)
    # A transaction left open by the last session blocks reads of its partitions' offsets, also by this member.
    producer.claim()
    consumer = client.consumer(stage.group, [stage.source], auto_commit=False, auto_offset_reset="earliest")
    session: int | None = None
    with producer, consumer:
        while True:
            messages = consumer.poll(POLL_S, max_messages=MAX_MESSAGES)
            if not messages:
                continue
            with producer.transaction() as tx:
                epoch = tx._identity.epoch
                if session is None:
                    session = epoch
                    journal.note(
                        Began(
                            session=Session(
                                transactional_id=stage.transactional_id,
                                session=session,
                                ready_at=time.monotonic_ns(),
                            )
                        )
                    )
                name = f"{stage.transactional_id}.{tx._identity.producer_id}.{epoch}"
                made = {f"{origin(text_of(message))}|{name}": message.key for message in messages}
                journal.note(
                    Tried(
                        attempt=Attempt(
                            name=name,
                            transactional_id=stage.transactional_id,
                            session=session,
                            wrote=tuple(made),
                        )
                    )
                )
                for value, key in made.items():
                    tx.publish(stage.target, value.encode(), key=key)
                tx.commit_offsets(consumer)
                journal.note(Ending(name=name, at=time.monotonic_ns()))
                try:
                    tx.commit()
                except TransactionAborted:
                    journal.note(Ended(name=name, outcome="fail"))
                    raise
                journal.note(Ended(name=name, outcome="ok"))


def text_of(message: Message) -> str:
    assert message.value is not None
    return message.value.decode()


def main() -> None:
    stage = msgspec.json.decode(sys.argv[1], type=Stage)
    journal = Journal(stage.journal)
    with Client(stage.endpoint, client_id=stage.transactional_id) as client:
        while True:
            try:
                work(client, stage, journal)
            except ProducerFenced:
                return
            except PlanariaError as error:
                sys.stderr.write(f"{stage.transactional_id}: {type(error).__name__}: {error}\n")


if __name__ == "__main__":
    main()

"""A member of a group in a process of its own: `python group_member.py ENDPOINT GROUP TOPIC JOURNAL`.

Writes its events, a line each with the machine's monotonic clock, and reads commands on standard input: at the end
of the input it leaves the group and exits.
"""

import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from planaria import Client, Consumer

POLL_S = 0.1
SESSION_TIMEOUT_MS = 4_000


class Journal:
    """Notes: `+p` a partition assigned, `-p` revoked, `!p` lost, `=p:offset:value` a message delivered; each timed."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def note(self, mark: str, what: object) -> None:
        self._stream.write(f"{time.monotonic_ns()} {mark}{what}\n")
        self._stream.flush()

    def each(self, mark: str) -> Callable[[Sequence[tuple[str, int]]], None]:
        def note(tps: Sequence[tuple[str, int]]) -> None:
            for _, partition in tps:
                self.note(mark, partition)

        return note


def join(client: Client, group: str, topic: str, journal: Journal) -> Consumer:
    return client.consumer(
        group,
        [topic],
        auto_offset_reset="earliest",
        auto_commit_interval_ms=200,
        session_timeout_ms=SESSION_TIMEOUT_MS,
        on_assigned=journal.each("+"),
        on_revoked=journal.each("-"),
        on_lost=journal.each("!"),
    )


def work(consumer: Consumer, journal: Journal, over: threading.Event) -> None:
    with consumer:
        while not over.is_set():
            for message in consumer.poll(POLL_S):
                assert message.value is not None
                journal.note("=", f"{message.partition}:{message.offset}:{message.value.decode()}")
        # Closing revokes them without a callback; delivered messages are committed.
        journal.each("-")(consumer.assignment())


def main(endpoint: str, group: str, topic: str, path: str) -> None:
    over = threading.Event()

    def listen() -> None:
        sys.stdin.read()
        over.set()

    threading.Thread(target=listen, daemon=True).start()
    with Path(path).open("a", encoding="utf-8") as stream, Client(endpoint) as client:
        journal = Journal(stream)
        work(join(client, group, topic, journal), journal, over)


if __name__ == "__main__":
    main(*sys.argv[1:])

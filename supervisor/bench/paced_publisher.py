"""A thread that publishes one message after the other to each partition, at a steady pace, and keeps their times."""

import threading
import time
from collections.abc import Collection
from types import TracebackType
from typing import Self

from ...transport.client.client import Client
from ...transport.client.delivery import Delivery
from ...transport.client.errors import Closed
from .rows import VALUE

INTERVAL_S = 0.02


class PacedPublisher:
    """Use it as a context manager. A message does not wait for the acknowledgement of the one before."""

    def __init__(self, client: Client, topic: str, partitions: int) -> None:
        self._producer = client.producer(linger_ms=0)
        self._topic = topic
        self._partitions = partitions
        self._changed = threading.Condition()
        self._waits: dict[int, list[tuple[float, float]]] = {each: [] for each in range(partitions)}
        """The time of each message's publishing, and of its acknowledgement."""
        self._refused: Exception | None = None
        self._is_ending = False
        self._thread = threading.Thread(target=self._run, name="paced publisher", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_ending = True
        self._thread.join()
        self._producer.close()

    def wait_for(self, partitions: Collection[int], moment: float, timeout_s: float) -> None:
        """Wait until messages published after `moment` are acknowledged in these partitions.

        Raises TimeoutError, or the error of a message that was refused.
        """

        def is_served() -> bool:
            newest = (self._waits[each][-1:] for each in partitions)
            return self._refused is not None or all(found and found[0][0] > moment for found in newest)

        with self._changed:
            if not self._changed.wait_for(is_served, timeout_s):
                raise TimeoutError(f"no acknowledgement for {timeout_s:.0f} s")
            if self._refused is not None:
                raise self._refused

    def longest_ms(self, partitions: Collection[int], moment: float) -> float:
        """Return the longest wait of a message that was acknowledged after `moment`."""
        with self._changed:
            waits = [
                acknowledged - published
                for each in partitions
                for published, acknowledged in self._waits[each]
                if acknowledged > moment
            ]
        return max(waits) * 1e3

    def _run(self) -> None:
        due = time.monotonic()
        while not self._is_ending:
            for partition in range(self._partitions):
                self._publish(partition)
            due += INTERVAL_S
            # A pace, not a wait.
            time.sleep(max(0.0, due - time.monotonic()))

    def _publish(self, partition: int) -> None:
        moment = time.monotonic()

        def note(delivery: Delivery) -> None:
            now = time.monotonic()
            error = delivery.exception()
            with self._changed:
                if error is None:
                    self._waits[partition].append((moment, now))
                elif not isinstance(error, Closed):
                    self._refused = error
                self._changed.notify_all()

        self._producer.publish(self._topic, VALUE, partition=partition).add_callback(note)

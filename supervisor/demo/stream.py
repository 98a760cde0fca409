"""The demo's two ends: a thread that publishes the departures, and the handler that the hosted subscribers run.

A departure carries its number among its aircraft's in the header `n`, so that order and loss can be checked by its key
alone. The handler appends each departure to a file of its own process, one line each, before it returns.
"""

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ...transport.client.delivery import Delivery
from ...transport.client.errors import Closed
from ...transport.client.messages import Message
from ...transport.client.producer import Producer
from ..chaos.history import History
from .flights import Departure

TOPIC = "FLIGHTS"
GROUP = "departure-board"
BURST = 25


class FlightStream:
    """Publishes all departures at a steady pace and keeps the time of every acknowledgement."""

    def __init__(
        self, producer: Producer, departures: list[Departure], duration_s: float, history: History
    ) -> None:
        self._producer = producer
        self._departures = departures
        self._pause_s = duration_s * BURST / len(departures)
        self._history = history
        self._acknowledged = threading.Condition()
        self._newest: dict[int, tuple[float, float]] = {}
        self._thread = threading.Thread(target=self._run, name="flights", daemon=True)
        self.published = 0
        self.refused: list[Exception] = []
        self.is_over = False
        """All departures are published and have their outcome."""

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def served_since(self, partition: int, moment: float, timeout_s: float) -> float | None:
        """Return the seconds from `moment` to the first acknowledgement of a message published after it.

        None if there is none in time, or the stream has ended without a departure for the partition (`is_over`).
        """

        def is_served() -> bool:
            return self._newest.get(partition, (0.0, 0.0))[0] > moment

        with self._acknowledged:
            self._acknowledged.wait_for(lambda: is_served() or self.is_over, timeout_s)
            if not is_served():
                return None
            return self._newest[partition][1] - moment

    def _run(self) -> None:
        with suppress(Closed):  # the demo was interrupted
            self._publish_all()
        with self._acknowledged:
            self.is_over = True
            self._acknowledged.notify_all()

    def _publish_all(self) -> None:
        next_burst = time.monotonic()
        for position, departure in enumerate(self._departures):
            if position % BURST == 0:
                next_burst += self._pause_s
                # A pace, not a wait: the events are spread over the demo's duration.
                time.sleep(max(0.0, next_burst - time.monotonic()))
            self._publish(departure)
            self.published += 1
        self._producer.flush()

    def _publish(self, departure: Departure) -> None:
        moment = time.monotonic()

        def note(delivery: Delivery) -> None:
            error = delivery.exception()
            if error is not None:
                self.refused.append(error)
                return
            metadata = delivery.result()
            assert metadata.partition is not None
            assert metadata.offset is not None
            value = f"{departure.tail_number}:{departure.number}"
            with self._acknowledged:
                self._history.on_acknowledged(value, metadata.partition, metadata.offset)
                # Acknowledgements of one batch share a moment; only the first of each probe counts.
                if moment > self._newest.get(metadata.partition, (0.0, 0.0))[0]:
                    self._newest[metadata.partition] = (moment, time.monotonic())
                self._acknowledged.notify_all()

        self._producer.publish(
            TOPIC, departure.row, key=departure.tail_number, headers={"n": str(departure.number)}
        ).add_callback(note)


def departure_board(directory: Path) -> Callable[[Message], None]:
    """Return the handler: it appends a departure to the board, which is a file of its process."""
    folder = str(directory)

    def show(message: Message) -> None:
        departure = message.data
        number = (message.headers or {})["n"]
        line = f"{time.time_ns()} {departure['tailnum']}:{number}\n"
        descriptor = os.open(f"{folder}/{os.getpid()}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)

    return show

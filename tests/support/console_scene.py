"""A broker with something on every page of the console, and traffic that keeps it moving.

    python tests/support/console_scene.py DATA [PORT]      serves it until Ctrl-C, for looking

Used by the screenshots. Its handlers run in the broker's processes.
"""

import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from planaria import Broker, BrokerSettings, Client, Message, PlanariaError

TOPICS = {"ORDERS": 6, "PAYMENTS": 4, "CLICKS": 24, "AUDIT": 1, "IMAGES": 3, "REMINDERS": 1}
SETTINGS: BrokerSettings = {"topic_defaults": {"flush": "os"}}
CUSTOMERS = ("anna", "bela", "chen", "dora", "emil", "fay", "gus", "hana")


def charge(message: Message) -> None:
    """Fail for some orders: their letters are dead after two attempts."""
    if message.offset % 40 == 7:
        raise ValueError(f"card of {message.data['customer']} is refused")
    if message.offset % 90 == 11:
        raise KeyError("amount")


class Scene:
    """The broker, and the threads that publish and consume; `close` ends both."""

    def __init__(self, data: Path, port: str = "*") -> None:
        self.broker = Broker(data, endpoint=f"tcp://127.0.0.1:{port}", **SETTINGS)
        self._is_over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._furnish()
        for work in (self._publish, self._consume, self._resize, self._transact):
            thread = threading.Thread(target=self._run, args=(work,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def close(self) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(20)
        self.broker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, work: Any) -> None:
        while not self._is_over.is_set():
            with suppress(PlanariaError), Client(self.broker.endpoint, client_id="shop") as client:
                work(client)

    def _furnish(self) -> None:
        broker = self.broker
        for topic, partitions in TOPICS.items():
            broker.create_topic(topic, partitions, if_not_exists=True)
        broker.create_topic("ORDERS.dlq", 1, if_not_exists=True)
        broker.set_quota("reports", fetch_bytes=1_000_000, produce_requests=50)
        broker.configure_share_group("resize", lock_ms=30_000, max_deliveries=3, dead_letter="ORDERS.dlq")
        for number in range(5):
            broker.publish(
                "REMINDERS",
                f"order-{number}",
                {"pay": f"order-{number}"},
                delay=3600.0 * (number + 1),
                scheduled_id=f"pay-{number}",
            )
        broker.subscribe(
            "charging",
            "ORDERS",
            handler="console_scene:charge",
            workers=2,
            dead_letter="ORDERS.dlq",
            retries=1,
            backoff_ms=300,
        )

    def _publish(self, client: Client) -> None:
        number = 0
        with client.producer(linger_ms=5) as producer:
            while not self._is_over.wait(0.02):
                for _ in range(12):
                    number += 1
                    customer = CUSTOMERS[number % len(CUSTOMERS)]
                    order = {"order": f"order-{number}", "customer": customer, "amount": 17 + number % 400}
                    producer.publish(
                        "ORDERS", order, key=f"order-{number}", headers={"correlation-id": f"order-{number}"}
                    )
                for click in range(30):
                    producer.publish("CLICKS", f"GET /item/{click}", key=str(number + click))
                producer.publish("AUDIT", b"\x00\x01\x02\xff" + str(number).encode())
                if number % 96 == 0:
                    producer.publish("IMAGES", {"image": number}, key=str(number))

    def _consume(self, client: Client) -> None:
        with client.consumer("billing", ["PAYMENTS", "CLICKS"], auto_offset_reset="earliest") as consumer:
            while not self._is_over.is_set():
                consumer.poll(0.2)

    def _resize(self, client: Client) -> None:
        with client.share_consumer("resize", "IMAGES") as consumer:
            while not self._is_over.is_set():
                for message in consumer.poll(0.2):
                    if message.offset % 5 == 2:
                        message.fail(reason="no such image")
                    elif message.offset % 7:
                        message.accept()

    def _transact(self, client: Client) -> None:
        with client.producer(transactional_id="orders-to-payments") as producer:
            while not self._is_over.wait(0.2):
                with producer.transaction() as transaction:
                    for customer in CUSTOMERS:
                        transaction.publish("PAYMENTS", {"customer": customer}, key=customer)


def main() -> None:
    data, *port = sys.argv[1:]
    with Scene(Path(data), *port) as scene:
        print(scene.broker.endpoint, flush=True)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()

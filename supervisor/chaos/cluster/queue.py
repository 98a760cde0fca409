"""The share group of a chaos run on a cluster: members in threads that accept every record, and the check at the end.

accepted   its acknowledgement was answered, and was not too late; twice is a violation
tried      the acknowledgement has an unknown outcome
never      acknowledged to its producer, neither accepted nor tried: the group has lost it
"""

import threading
from collections import Counter
from collections.abc import Collection

import msgspec

from ....transport.client.client import Client
from ....transport.protocol.errors import PlanariaError
from ..workload import TOPIC, text_of

QUEUE_GROUP = "chaos-queue"
LOCK_MS = 5_000
MAX_DELIVERIES = 100
"""A lock that ends with its coordinator counts as a delivery, and no record of the run may die."""
POLL_S = 0.2
MAX_EXAMPLES = 10


class QueueVerdict(msgspec.Struct, kw_only=True):
    accepted: int
    twice: list[str]
    """Values accepted twice, the first few."""
    never: list[str]
    """Acknowledged values that no member has received, the first few."""

    @property
    def is_clean(self) -> bool:
        return not (self.twice or self.never)


class Queue:
    def __init__(self, endpoints: list[str], members: int) -> None:
        self._clients = [Client(endpoints, client_id=f"chaos-queue-{n}") for n in range(members)]
        self._clients[0].configure_share_group(
            QUEUE_GROUP, lock_ms=LOCK_MS, max_deliveries=MAX_DELIVERIES, start="earliest"
        )
        self._is_over = threading.Event()
        self._accepted: Counter[str] = Counter()
        self._tried: set[str] = set()
        self._lock = threading.Lock()
        self._errors: list[Exception] = []
        self._threads = [
            threading.Thread(target=self._guarded, args=(client,), name="chaos-queue", daemon=True)
            for client in self._clients
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the members. Raises the first error that one met."""
        self._is_over.set()
        for thread in self._threads:
            thread.join()
        for client in self._clients:
            client.close()
        if self._errors:
            raise self._errors[0]

    def missing(self, acknowledged: Collection[str]) -> set[str]:
        with self._lock:
            return set(acknowledged) - self._tried

    def check(self, acknowledged: Collection[str]) -> QueueVerdict:
        twice = [value for value, count in self._accepted.items() if count > 1]
        never = sorted(self.missing(acknowledged))
        return QueueVerdict(
            accepted=len(self._accepted), twice=twice[:MAX_EXAMPLES], never=never[:MAX_EXAMPLES]
        )

    def _guarded(self, client: Client) -> None:
        try:
            self._work(client)
        except Exception as error:
            self._errors.append(error)
            raise

    def _work(self, client: Client) -> None:
        with client.share_consumer(QUEUE_GROUP, TOPIC) as consumer:
            while not self._is_over.is_set():
                values = {
                    (message.partition, message.offset): (text_of(message), message)
                    for message in consumer.poll(POLL_S)
                }
                with self._lock:
                    self._tried.update(value for value, _ in values.values())
                try:
                    consumer.acknowledge([message for _, message in values.values()], "accept")
                    refused = {(each.partition, each.offset) for each in consumer.flush()}
                except PlanariaError:
                    continue
                with self._lock:
                    self._accepted.update(
                        value for place, (value, _) in values.items() if place not in refused
                    )

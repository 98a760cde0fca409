"""Probes: one request for the service of each kind of actor, until it answers. Called by the nemesis, a thread per probe.

The client's own retries do the waiting, so a probe measures the outage that a program would see.
"""

import itertools
import time
from collections.abc import Iterator

from ...transport.addresses import CONTROLLER, Address, Kind
from ...transport.client.client import Client
from ...transport.client.descriptions import ActorStatus
from ...transport.protocol.errors import ErrorCode, PlanariaError, ProtocolError
from .history import History
from .workload import TOPIC, publish_value

TIMEOUT_S = 120.0
STATUS_POLL_S = 0.01
POLLED_SHARE = 0.05
"""The state of an actor is looked at again after this part of the time that it has taken: a recovery is known to 5 %."""


class Probes:
    """Probes by address; the values they publish are part of the history like any other."""

    def __init__(self, client: Client, history: History, topic: str = TOPIC) -> None:
        self._topic = topic
        self._client = client
        self._history = history
        self._producer = client.producer(linger_ms=0, delivery_timeout_ms=int(TIMEOUT_S * 1000))
        self._numbers = itertools.count()

    def close(self) -> None:
        self._producer.close()

    def actor(self, victim: ActorStatus) -> None:
        """Return once the victim's service answers. Raises PlanariaError if it does not in time."""
        address = Address.parse(victim.address)
        tp = address.topic_partition
        if tp is not None and tp.topic == self._topic:
            self._partition(tp.partition)
        elif address.kind == Kind.COORDINATOR:
            self._client.describe_group(address.name)
        elif address.kind == Kind.GATEWAY or address == CONTROLLER:
            self.gateway()
        else:
            self._ready_again(victim)

    def gateway(self) -> None:
        """Return once the gateway answers."""
        self._client.list_topics()

    def supervisor(self, instance_id: str) -> None:
        """Return once another supervisor than `instance_id` answers through its gateway."""
        for _ in _looks():
            if self._client.status().instance_id != instance_id:
                self._partition(0)
                return
        raise ProtocolError(ErrorCode.TIMED_OUT, "no new supervisor answered")

    def _partition(self, partition: int) -> None:
        number = next(self._numbers)
        # One key per probe: probes of one partition overlap, and only values of one key are ordered.
        delivery = publish_value(self._producer, self._history, f"probe{number}", 0, partition)
        error = delivery.exception(TIMEOUT_S)
        if error is not None:
            raise error if isinstance(error, PlanariaError) else PlanariaError(str(error))

    def _ready_again(self, victim: ActorStatus) -> None:
        for _ in _looks():
            actors = self._client.status().actors
            now = next((actor for actor in actors if actor.address == victim.address), None)
            # Not by its incarnation: another supervisor, which may have come since the fault, counts from 1 again.
            if now is not None and now.state == "ready" and now.pid != victim.pid:
                return
        raise ProtocolError(ErrorCode.TIMED_OUT, f"{victim.address} was not ready again")


def _looks() -> Iterator[None]:
    """Yield once for each look at a state, until TIMEOUT_S."""
    began = time.monotonic()
    while (took_s := time.monotonic() - began) < TIMEOUT_S:
        yield
        time.sleep(max(STATUS_POLL_S, POLLED_SHARE * took_s))

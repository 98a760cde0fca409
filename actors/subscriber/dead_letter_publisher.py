"""The dead-letter publisher: a thread of its own, because a topic lookup can block. Impure.

With exactly-once it only checks that the topic accepts the dead letter and returns it, for the transaction of the
offset.
"""

from collections.abc import Callable

from ...transport.client.delivery import Delivery
from ...transport.client.producer import Producer
from ...transport.protocol.errors import PlanariaError
from ...transport.publication import Publication
from .effects import DeadLetterFailed, DeadLetterPublished, PublishDeadLetter
from .threads import EventQueue, WorkThread


class DeadLetterPublisher:
    def __init__(
        self,
        producer: Producer,
        inbox: EventQueue,
        check: Callable[[Publication], None],
        *,
        is_only_checked: bool = False,
    ) -> None:
        """`check` raises the error a dead letter would be refused with; `is_only_checked`: a transaction publishes it."""
        self._producer = producer
        self._check = check
        self._is_only_checked = is_only_checked
        self._inbox = inbox
        self._thread = WorkThread("planaria-mail", inbox)

    def send(self, order: PublishDeadLetter) -> None:
        """Publish a dead letter. DeadLetterPublished follows once it is durable, DeadLetterFailed if that fails."""
        self._thread.order(self._send, order)

    def _send(self, order: PublishDeadLetter) -> DeadLetterPublished | DeadLetterFailed | None:
        letter = order.dead_letter
        try:
            message = Publication(letter.topic, letter.value, letter.key, letter.headers)
            self._check(message)
            if self._is_only_checked:
                return DeadLetterPublished(order.lane, (message,))
            delivery = self._producer.publish(
                letter.topic,
                letter.value,
                key=letter.key,
                headers=letter.headers,
                dedup_id=letter.dedup_id,
            )
        except PlanariaError as error:
            return DeadLetterFailed(order.lane, str(error))
        delivery.add_callback(lambda done: self._report(order.lane, done))
        return None

    def _report(self, lane: int, delivery: Delivery) -> None:
        error = delivery.exception(0)
        self._inbox.post(DeadLetterPublished(lane) if error is None else DeadLetterFailed(lane, str(error)))

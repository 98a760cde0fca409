"""The dead-letter publisher: a task for each letter, on the actor's loop. Impure.

With exactly-once it only checks that the topic accepts the dead letter and returns it, for the transaction of the
offset.
"""

from collections.abc import Callable

from ...transport.aio.producer import AsyncProducer
from ...transport.protocol.errors import PlanariaError
from ...transport.publication import Publication
from .effects import DeadLetterFailed, DeadLetterPublished, PublishDeadLetter
from .tasks import Tasks


class DeadLetterPublisher:
    def __init__(
        self,
        producer: AsyncProducer,
        tasks: Tasks,
        post: Callable[[DeadLetterPublished | DeadLetterFailed], None],
        *,
        is_only_checked: bool = False,
    ) -> None:
        """`post` delivers an event to the machine, in a later turn. `is_only_checked`: a transaction publishes it."""
        self._producer = producer
        self._tasks = tasks
        self._post = post
        self._is_only_checked = is_only_checked

    def send(self, order: PublishDeadLetter) -> None:
        """Publish a dead letter. DeadLetterPublished follows once it is durable, DeadLetterFailed if that fails."""
        self._tasks.start(self._send(order))

    async def _send(self, order: PublishDeadLetter) -> None:
        letter = order.dead_letter
        published: tuple[Publication, ...] = ()
        try:
            message = Publication(letter.topic, letter.value, letter.key, letter.headers)
            await self._producer._check(message.topic, message.size_bytes)
            if self._is_only_checked:
                published = (message,)
            else:
                await self._producer.publish(
                    letter.topic,
                    letter.value,
                    key=letter.key,
                    headers=letter.headers,
                    dedup_id=letter.dedup_id,
                )
        except PlanariaError as error:
            self._post(DeadLetterFailed(order.lane, str(error)))
        else:
            self._post(DeadLetterPublished(order.lane, published))

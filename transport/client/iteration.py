"""The messages that an iteration over a consumer holds, and how far it has yielded them. Pure."""

from collections.abc import Iterator, Mapping, Sequence

from ..addresses import TopicPartition
from .messages import Message


class Iteration:
    """A message counts as read when the next one is asked for; what has not been yielded is given back."""

    def __init__(self) -> None:
        self.messages: Sequence[Message] = ()
        self.epochs: Mapping[TopicPartition, int] = {}
        self.yielded = 0

    def yield_all(
        self, messages: Sequence[Message], epochs: Mapping[TopicPartition, int]
    ) -> Iterator[Message]:
        """Messages one by one, until the consumer takes the rest back: a poll, a seek, a close."""
        self.messages, self.epochs = messages, epochs
        for count, message in enumerate(messages, 1):
            self.yielded = count
            yield message
            if self.messages is not messages:
                return
        self.messages = ()

    def take_back(self) -> tuple[Sequence[Message], Mapping[TopicPartition, int]]:
        """What has not been yielded, with the epochs it was taken under."""
        unread = self.messages[self.yielded :]
        self.messages = ()
        return unread, self.epochs

    def positions(
        self, positions: Mapping[TopicPartition, int], *, without_last: bool = False
    ) -> dict[TopicPartition, int]:
        """Positions, not counting what has not been yielded; `without_last` nor what was yielded last."""
        found = dict(positions)
        for message in reversed(self.messages[self.yielded - without_last :]):
            tp = (message.topic, message.partition)
            if tp in found:
                found[tp] = message.offset
        return found

"""The messages of an iteration over a consumer, and the number yielded so far. Pure."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from ..addresses import TopicPartition
from .messages import Message


class Iteration:
    """A message counts as read when the next one is requested. Messages not yielded are given back."""

    def __init__(self) -> None:
        self.messages: Sequence[Message] = ()
        self.epochs: Mapping[TopicPartition, int] = {}
        self.yielded = 0

    def yield_all(
        self,
        messages: Sequence[Message],
        epochs: Mapping[TopicPartition, int],
        is_stopped: Callable[[], bool],
    ) -> Iterator[Message]:
        """Yield messages until the consumer stops, or takes the others back: by a poll, a seek or a close."""
        self.messages, self.epochs = messages, epochs
        for count, message in enumerate(messages, 1):
            self.yielded = count
            yield message
            if self.messages is not messages or is_stopped():
                return
        self.messages = ()

    def take_back(self) -> tuple[Sequence[Message], Mapping[TopicPartition, int]]:
        """Return the messages not yielded, with the epochs they were taken under."""
        unread = self.messages[self.yielded :]
        self.messages = ()
        return unread, self.epochs

    def positions(
        self, positions: Mapping[TopicPartition, int], *, without_last: bool = False
    ) -> dict[TopicPartition, int]:
        """Return positions before the messages not yielded; `without_last` also before the message yielded last."""
        found = dict(positions)
        for message in reversed(self.messages[self.yielded - without_last :]):
            tp = (message.topic, message.partition)
            if tp in found:
                found[tp] = message.offset
        return found

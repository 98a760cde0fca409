"""The messages of a loop over a consumer or a share consumer, and those it has not yielded. Pure."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

from ..addresses import TopicPartition
from .messages import Message

MessageT = TypeVar("MessageT", bound=Message)


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


class WorkLoop(Generic[MessageT]):
    """A loop over a share consumer. The next poll takes the messages that it has not yielded."""

    def __init__(self) -> None:
        self.unread: deque[MessageT] = deque()
        self.left_at: int | None = None
        """The time at which the loop was left with messages not yielded."""

    def begin(self, messages: Iterable[MessageT]) -> deque[MessageT]:
        """Return the messages to yield."""
        unread = deque(messages)
        unread.extend(self.unread)
        self.unread, self.left_at = unread, None
        return unread

    def has(self, unread: deque[MessageT]) -> bool:
        """Return True if messages are left, and no poll has taken them."""
        return bool(unread) and self.unread is unread

    def leave(self, unread: deque[MessageT], now: int) -> None:
        self.left_at = now if self.has(unread) else None

    def take(self, count: int, now: int, is_held: Callable[[MessageT], bool]) -> list[MessageT]:
        """Return at most `count` of the messages that are still held."""
        left = [each for each in self.unread if is_held(each)]
        self.unread = deque(left[count:])
        self.left_at = now if self.unread else None
        return left[:count]

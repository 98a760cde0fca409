"""A topic as a dict: the last message of each key, kept current by a thread of its own.

The follower owns that thread and its consumer. The state is `table_state.py`; everything that touches it holds the lock.
Readers never wait for the broker. Called by `access.py`; `aio/table.py` has the form for tasks.
"""

import threading
from collections.abc import Callable, ItemsView, Iterator, Mapping, ValuesView
from types import TracebackType
from typing import Any, Self

from ..addresses import TopicPartition
from .consumer import Consumer
from .content import encode_key
from .delivery import RecordMetadata
from .errors import Closed, TimedOut
from .messages import Message
from .network import Network
from .options import Duration, InvalidOption, check_offset, wait_limit_s
from .reading import RECHECK_S, Reading
from .table_state import Step, TableState


class Follower:
    """The thread that reads a topic, and the state of its table."""

    def __init__(self, network: Network, whole: Reading) -> None:
        """Read the topic to its present end. Raises UnknownTopic, TimedOut, CorruptData."""
        self.topic = whole.topic
        self.lock = threading.Lock()
        self.state = TableState()
        self._network = network
        self._whole = whole
        self._failure: Exception | None = None
        self._is_closed = False
        self._consumer = Consumer(network, None, [self.topic], whole.options)
        self._thread = threading.Thread(target=self._run, name=f"planaria-table-{self.topic}", daemon=True)
        self._thread.start()
        network.keep(self)
        try:
            self._restore()
        except BaseException:
            self.close()
            raise

    def _restore(self) -> None:
        ends = {tp: span.end for tp, span in self._whole.spans(self._network).items()}
        while not self.wait(ends, RECHECK_S):
            ends = self._whole.lowered(self._network, ends)

    def _run(self) -> None:
        consumer, state = self._consumer, self.state
        failure: Exception | None = None
        try:
            while not consumer.is_stopped:
                steps: list[Step] = consumer._poll(None, lambda: state.take(consumer._machine))
                for step in steps:
                    with self.lock:
                        again = state.apply(step)
                    for tp, begin in (consumer.beginning_offsets(again) if again else {}).items():
                        consumer.seek(*tp, begin)
        except Exception as error:  # noqa: BLE001 - raised by the next call of the program
            failure = error
        with self.lock:
            self._failure = failure
            state.notify_all()

    def check(self) -> None:
        """Raise the reason why the table is not kept current."""
        if self._is_closed:
            raise Closed("the table is closed")
        self._network.refuse_when_closed()
        if self._failure is not None:
            raise self._failure.with_traceback(None)

    def wait(self, ends: dict[TopicPartition, int], limit_s: float | None) -> bool:
        """Return True if the topic was read up to these offsets in time. Raises as `check` does."""
        event = threading.Event()
        self.call_when(ends, event.set)
        try:
            is_set = event.wait(limit_s)
        finally:
            self.forget(event.set)
        self.check()
        return is_set

    def call_when(self, ends: dict[TopicPartition, int], notify: Callable[[], object]) -> None:
        """Call `notify`, in any thread, once the topic was read up to these offsets, or the thread has ended."""
        self.check()
        with self.lock:
            if self._failure is None and not self._is_closed:
                self.state.call_when(ends, notify)
            else:
                notify()

    def forget(self, notify: Callable[[], object]) -> None:
        with self.lock:
            self.state.forget(notify)

    def close(self) -> None:
        if self._is_closed or self._network.is_lost:
            return
        self._is_closed = True
        self._consumer.stop()
        self._thread.join()
        self._consumer.close()
        self._network.forget(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class TableView(Mapping[bytes | str, Any]):
    """The values of a topic by key, as of now: a read-only Mapping, for any number of threads."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower

    @property
    def topic(self) -> str:
        """The topic's name."""
        return self._follower.topic

    def message(self, key: bytes | str) -> Message | None:
        """Return the last message of a key, None if there is none. Its offset is the version of the key."""
        self._follower.check()
        name = encode_key(key)
        with self._follower.lock:
            return None if name is None else self._follower.state.messages.get(name)

    def snapshot(self) -> dict[bytes, Any]:
        """Return the values of all keys at one moment, decoded as `Message.data` is."""
        self._follower.check()
        with self._follower.lock:
            messages = list(self._follower.state.messages.items())
        return {key: message.data for key, message in messages}

    def __getitem__(self, key: bytes | str) -> Any:
        found = self.message(key)
        if found is None:
            raise KeyError(key)
        return found.data

    def __contains__(self, key: object) -> bool:
        return isinstance(key, bytes | str) and self.message(key) is not None

    def __len__(self) -> int:
        self._follower.check()
        return len(self._follower.state.messages)

    def __iter__(self) -> Iterator[bytes]:
        self._follower.check()
        with self._follower.lock:
            return iter(list(self._follower.state.messages))

    def items(self) -> ItemsView[bytes | str, Any]:
        """Return the items of a snapshot."""
        return {**self.snapshot()}.items()

    def values(self) -> ValuesView[Any]:
        """Return the values of a snapshot."""
        return self.snapshot().values()

    def _ends_behind(
        self, message: RecordMetadata | Message | int, partition: int | None
    ) -> dict[TopicPartition, int]:
        topic, offset = self.topic, None
        if isinstance(message, RecordMetadata | Message):
            topic, partition, offset = message.topic, message.partition, message.offset
        else:
            offset = message
        if topic != self.topic or partition is None or offset is None:
            raise InvalidOption(f"wait_for: needs a message of {self.topic}, or an offset and its partition")
        check_offset(partition)
        check_offset(offset)
        return {TopicPartition(topic, partition): offset + 1}


class Table(TableView):
    """The values of a topic by key, as of now: a read-only Mapping. For any number of threads; a context manager."""

    def wait_for(
        self,
        message: RecordMetadata | Message | int,
        partition: int | None = None,
        timeout: Duration | None = None,
    ) -> None:
        """Wait until a message has been read: the receipt of a publish, a message, or its offset and its `partition`.

            receipt = client.publish("BALANCES", 70, key="anna")
            table.wait_for(receipt)
            assert table["anna"] == 70

        `timeout` is in seconds or a timedelta; None: without limit. Raises TimedOut, InvalidOption.
        """
        limit_s = wait_limit_s(timeout)
        if not self._follower.wait(self._ends_behind(message, partition), limit_s):
            raise TimedOut(f"the table has not read the message within {limit_s} s")

    def close(self) -> None:
        """End the thread. Waiting calls raise Closed."""
        self._follower.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

"""The partitions of a consumer: how it comes by them, pauses, positions. The common part of its two shells; never waits.

The base of the consumers for threads (`consumer.py`) and for tasks (`transport/aio/consumer.py`). It makes the machine
and its half on the network thread, and posts the events of the one to the other.
"""

import random
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from time import monotonic, time_ns

from ..addresses import TopicPartition
from ..calls.events import Wanted
from ..protocol.errors import PlanariaError
from .commits import AutoCommit, Partition
from .consumer_bridge import ConsumerBridge, HasMail
from .consuming import Consuming
from .errors import Closed
from .fetching import Fetching
from .membership import Membership
from .messages import Message, unexpired
from .network import Network
from .options import ConsumerOptions, as_partition, as_partitions, check_count, check_sources


class AssignedPartitions:
    """A consumer without the calls that wait."""

    def __init__(
        self,
        network: Network,
        group: str | None,
        topics: Sequence[str],
        options: ConsumerOptions,
        starts: Mapping[TopicPartition, int | None] | None,
        has_mail: HasMail,
    ) -> None:
        """Take the combinations of `Consumer`. `_begin_reading` follows."""
        if starts is None:
            check_sources(group, topics, options.partitions)
        self._network = network
        self._group = group  # read by planaria.otel as well
        self._topics = topics
        self._options = options
        self._starts = starts
        membership = None
        if group is not None and options.partitions is None:
            membership = Membership(group, topics, options, name=uuid.uuid4().hex, jitter=random.random)
        self._is_member = membership is not None
        interval_s = options.auto_commit_interval_ms / 1000
        self._machine = Consuming(
            group=group,
            is_member=self._is_member,
            auto_commit=AutoCommit(options.auto_commit and group is not None, interval_s, monotonic()),
            request_timeout_ms=options.request_timeout_ms,
            followed=topics if group is None and options.partitions is None else (),
        )
        fetching = Fetching(group, options, is_member=self._is_member)
        self._bridge = ConsumerBridge(fetching, membership, options.max_poll_interval_ms, has_mail)

    def _begin_reading(self, counts: Mapping[str, int]) -> None:
        """Read the partitions, or join the group. `counts`: partitions of the topics that are read whole."""
        network, machine = self._network, self._machine
        network.notify_of_end(self._bridge)
        if self._starts is not None:
            machine.begin(self._starts)
        elif self._options.partitions is not None:
            machine.assign(as_partitions("partitions", self._options.partitions))
        elif self._is_member:
            self._bridge.expect(self._topics, network.topics.is_unknown, network.metadata_timeout_ms)
            for topic in self._topics:
                network.post(network.owner, Wanted(topic))
        else:
            machine.assign(machine.growth.partitions(counts.__getitem__))
        self._post()

    def _post(self) -> None:
        """Post the machine's events."""
        posts = self._machine.posts
        while posts:
            with suppress(IndexError):  # a close in another thread has posted it
                self._network.post(self._bridge, posts.popleft())

    def _taking(self, max_messages: int) -> Callable[[], list[Message]]:
        """Return the function that takes the messages of a poll."""
        check_count("max_messages", max_messages)
        take = self._machine.reader.take
        if self._options.skip_expired:
            return lambda: unexpired(take(max_messages), time_ns() // 1_000_000)
        return lambda: take(max_messages)

    def _refuse_when_closed(self) -> None:
        if self._machine.is_closed:
            raise Closed("the consumer is closed")
        self._network.refuse_when_closed()

    @property
    def is_stopped(self) -> bool:
        """True once `stop` was called."""
        return self._machine.is_stopped

    def pause(self, *partitions: Partition) -> None:
        """Return no messages of these partitions until `resume`. They stay assigned."""
        self._set_paused(partitions, True)

    def resume(self, *partitions: Partition) -> None:
        """Return messages of these partitions again, from where reading was paused."""
        self._set_paused(partitions, False)

    def _set_paused(self, partitions: Sequence[Partition], is_paused: bool) -> None:
        self._refuse_when_closed()
        self._machine.set_paused(as_partitions("partitions", partitions), is_paused)
        self._post()

    def paused(self) -> list[TopicPartition]:
        """Return the paused partitions of this consumer."""
        self._network.refuse_when_inherited()
        return sorted(self._machine.reader.paused())

    def assignment(self) -> list[TopicPartition]:
        """Return the partitions that this consumer owned at the last poll."""
        self._network.refuse_when_inherited()
        return sorted(self._machine.reader.owned)

    def _assigned_or(self, partitions: Iterable[Partition] | None) -> list[TopicPartition]:
        """Return these partitions; None: all that are assigned. Raises PlanariaError if there are none."""
        found = self.assignment() if partitions is None else as_partitions("partitions", partitions)
        if not found:
            raise PlanariaError("no partition is assigned to this consumer; a group assigns them during poll")
        return found

    def seek(self, topic: str, partition: int, offset: int) -> None:
        """Continue reading at `offset`. Raises PlanariaError when the partition is not assigned to this consumer."""
        self._refuse_when_closed()
        self._machine.seek(as_partition("partition", (topic, partition)), offset)
        self._post()

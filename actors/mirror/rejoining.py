"""A topic of this broker, the former source, rejoins the topic that was promoted in its place. Pure.

    state       means                                                      left by
    surveying   a partition here is asked for its records beyond the fork  none -> the next one; some -> naming, placing
    naming      the controller creates the topic for them                  its id -> placing
    placing     that topic's partition is asked where it ends              beyond the last of them -> surveying the next
    reading     they are read here                                         batches -> writing; not yet -> surveying again
    writing     they are appended there, as they are                       held -> reading; the last -> surveying the next
    deciding    the controller stores the cuts, now that all is set aside  done -> cutting
    cutting     each partition is asked if all its replicas are cut        all -> promoting; has grown -> reviewing
    reviewing   the controller drops the cuts                              done -> surveying
    promoting   the topic for them ends its open transactions              done -> ending
    ending      the controller stores that the topic follows               done -> over
    over, and any error: the machine drops this object, and asks the controller again

One call at a time. Nothing lasts here: where the records that are set aside end is in their topic, which takes them at
its end and nowhere else, and the cuts are in the catalog. So it may be killed at any moment. Invariant: the cuts are
decided when every record that they remove is held by all replicas in sync of the topic for them.
"""

from typing import Literal, TypeAlias

from ...transport.addresses import CONTROLLER, Address, partition_address
from ...transport.batch import parse_header
from ...transport.machine import Answered, Call
from ...transport.protocol.data import Fetch, FetchReply
from ...transport.protocol.message import Reply, Request
from ...transport.protocol.mirrored import Cut, TopicMirror
from ...transport.protocol.mirrors import (
    MirrorAppend,
    MirrorAppendReply,
    PromoteMirror,
    PromoteMirrorReply,
    RejoinPartition,
    RejoinPartitionReply,
    RejoinStep,
    RejoinTopic,
)
from ...transport.protocol.topics import DescribeTopicReply
from .effects import Effect
from .keys import RejoinKey

State: TypeAlias = Literal[
    "surveying",
    "naming",
    "placing",
    "reading",
    "writing",
    "deciding",
    "cutting",
    "reviewing",
    "promoting",
    "ending",
    "over",
]
READ_BYTES = 4 * 1024 * 1024
TIMEOUT_MS = 10_000
PROMOTE_TIMEOUT_MS = 60_000


class Rejoining:
    def __init__(self, mirror: str, number: int, described: DescribeTopicReply, *, compacts: bool) -> None:
        """`number` distinguishes it from earlier ones. `compacts`: either side's log is compacted."""
        assert isinstance(described.mirror, TopicMirror)
        self.state: State = "surveying"
        self._mirror = mirror
        self._number = number
        self._number_of_call = 0
        self._topic, self._topic_id = described.topic, described.topic_id
        self._stored = described.mirror
        self._count = len(described.partitions)
        self._compacts = compacts
        self._partition = 0
        self._diverged = described.mirror.diverged
        """The topic for the records that are set aside."""
        self._diverged_id = ""
        self._found: dict[int, RejoinPartitionReply] = {}
        """The bounds of the partitions here, of which everything beyond the fork is set aside."""
        self._bounds: RejoinPartitionReply | None = None
        """Those of the partition that is being set aside."""
        self._held_to = 0
        """The end of its records that are set aside."""

    def start(self) -> list[Effect]:
        return self._cut(0) if self._stored.cuts else self._survey(0)

    def is_current(self, key: RejoinKey) -> bool:
        return key == self._key

    @property
    def _key(self) -> RejoinKey:
        return RejoinKey(self._topic, self._number, self._number_of_call)

    def on_answered(self, event: Answered) -> list[Effect]:
        reply = event.reply
        match self.state:
            case "surveying":
                return self._on_surveyed(reply)
            case "naming":
                self._diverged, self._diverged_id = reply.topic, reply.topic_id
                return self._place()
            case "placing" | "writing":
                return self._on_held(reply)
            case "reading":
                return self._on_read(reply, b"".join(event.payload))
            case "deciding":
                self._stored = reply.mirror
                return self._cut(0)
            case "cutting":
                return self._on_cut(reply)
            case "reviewing":
                self._stored = reply.mirror
                return self._survey(0)
            case "promoting":
                return self._end()
            case "ending":
                self.state = "over"
        return []

    def _call(
        self,
        state: State,
        address: Address,
        request: Request,
        reply_type: type[Reply],
        payload: tuple[bytes, ...] = (),
        timeout_ms: int = TIMEOUT_MS,
    ) -> list[Effect]:
        self.state = state
        self._number_of_call += 1
        # A partition refuses, retriable, while it takes its role and while it is cut.
        is_retried = isinstance(request, RejoinPartition)
        key = self._key
        return [
            Call(
                key,
                address,
                request,
                reply_type,
                payload=payload,
                timeout_ms=timeout_ms,
                is_retried=is_retried,
            )
        ]

    # -- partitions here

    def _rejoin(self, state: State, partition: int) -> list[Effect]:
        self._partition = partition
        request = RejoinPartition(
            topic=self._topic, topic_id=self._topic_id, partition=partition, mirror=self._stored
        )
        return self._call(state, self._here, request, RejoinPartitionReply)

    @property
    def _here(self) -> Address:
        return partition_address(self._topic, self._partition)

    def _survey(self, partition: int) -> list[Effect]:
        return self._rejoin("surveying", partition) if partition < self._count else self._decide()

    def _on_surveyed(self, reply: RejoinPartitionReply) -> list[Effect]:
        self._bounds = reply
        if reply.is_done:
            return self._next()
        return self._place() if self._diverged_id else self._step("naming", "set_aside")

    def _next(self) -> list[Effect]:
        """Go on with the next partition: nothing is left to set aside in this one."""
        assert self._bounds is not None
        self._found[self._partition] = self._bounds
        return self._survey(self._partition + 1)

    def _decide(self) -> list[Effect]:
        # Compaction here may have removed a record for one that is cut. The promoted topic has it.
        is_whole = self._compacts and bool(self._diverged)
        cuts = tuple(
            Cut(
                partition=partition,
                offset=found.cut_offset,
                end_offset=found.log_end_offset,
                last_epoch=found.last_epoch,
                is_whole=is_whole,
            )
            for partition, found in self._found.items()
            if is_whole or not found.is_done
        )
        return self._step("deciding", "cut", cuts) if cuts else self._close()

    def _cut(self, partition: int) -> list[Effect]:
        return self._rejoin("cutting", partition) if partition < self._count else self._close()

    def _on_cut(self, reply: RejoinPartitionReply) -> list[Effect]:
        return self._cut(self._partition + 1) if reply.is_done else self._step("reviewing", "survey")

    def _close(self) -> list[Effect]:
        if not self._diverged:
            return self._end()
        request = PromoteMirror(mirror=self._mirror, topics=[self._diverged])
        return self._call("promoting", CONTROLLER, request, PromoteMirrorReply, timeout_ms=PROMOTE_TIMEOUT_MS)

    def _end(self) -> list[Effect]:
        return self._step("ending", "done")

    def _step(self, state: State, step: RejoinStep, cuts: tuple[Cut, ...] = ()) -> list[Effect]:
        request = RejoinTopic(
            mirror=self._mirror,
            topic=self._topic,
            topic_id=self._topic_id,
            step=step,
            cuts=cuts,
            diverged_id=self._diverged_id,
        )
        return self._call(state, CONTROLLER, request, DescribeTopicReply)

    # -- records beyond the fork

    def _append(
        self, state: State, offset: int, start_offset: int, payload: tuple[bytes, ...]
    ) -> list[Effect]:
        request = MirrorAppend(
            topic=self._diverged,
            topic_id=self._diverged_id,
            partition=self._partition,
            offset=offset,
            source_start_offset=start_offset,
        )
        address = partition_address(self._diverged, self._partition)
        return self._call(state, address, request, MirrorAppendReply, payload)

    def _place(self) -> list[Effect]:
        return self._append("placing", -1, 0, ())

    def _on_held(self, reply: MirrorAppendReply) -> list[Effect]:
        assert self._bounds is not None
        self._held_to = reply.log_end_offset
        bounds = self._bounds
        offset = max(self._held_to, bounds.cut_offset, bounds.log_start_offset)
        if offset >= bounds.log_end_offset:
            return self._next()
        request = Fetch(
            topic=self._topic,
            partition=self._partition,
            offset=offset,
            max_bytes=READ_BYTES,
            format="batches",
            isolation="read_uncommitted",
            topic_id=self._topic_id,
        )
        return self._call("reading", self._here, request, FetchReply)

    def _on_read(self, reply: FetchReply, batches: bytes) -> list[Effect]:
        assert self._bounds is not None
        if not batches:
            if reply.high_watermark < self._bounds.log_end_offset:
                return self._survey(self._partition)  # a new leader does not know the high watermark yet
            # Compaction has left the last offsets out: nothing more is there to set aside.
            return self._next()
        # Their topic begins with the first of them.
        start_offset = 0 if self._held_to else parse_header(batches).base_offset
        return self._append("writing", self._held_to, start_offset, (batches,))

"""A group without processes: the coordinator's machine over a simulated partition of `__offsets`, a simulated controller,
simulated members, and a manual clock.
"""

from typing import Any

from planaria.actors.coordinator.machine import CoordinatorMachine, GroupService
from planaria.actors.coordinator.process import CoordinatorActor
from planaria.actors.coordinator.state import GroupState
from planaria.actors.partition.divergence import divergence
from planaria.transport.addresses import Address
from planaria.transport.batch import BatchHeader, parse_header, stamp, verify
from planaria.transport.machine import (
    Call,
    PeerUp,
)
from planaria.transport.protocol.data import (
    Fetch,
    FetchReply,
    ListOffsets,
    ListOffsetsReply,
    Produce,
    ProducedBatch,
    ProduceReply,
)
from planaria.transport.protocol.errors import ErrorBody, ErrorCode
from planaria.transport.protocol.groups import (
    CommitOffsets,
    CommitOffsetsReply,
    GroupHeartbeat,
    GroupHeartbeatReply,
    LeaveGroup,
    PartitionOffset,
)
from planaria.transport.protocol.message import Done
from planaria.transport.protocol.progress import ReportProgress, ReportProgressReply
from planaria.transport.protocol.topics import CatalogTopic, WatchCatalog, WatchCatalogReply
from planaria.transport.protocol.transactions import AddToTransaction
from simulated_actor import SimulatedActor

GROUP = "billing"
PARTITION = "partition/__offsets/0"
OFFLINE = ErrorBody(ErrorCode.PARTITION_OFFLINE, "the partition is down", True)


class SimulatedLog:
    """A partition as its requesters see it: durable at once, fenced by producer epoch, idempotent by sequence."""

    def __init__(self) -> None:
        self.batches: list[bytes] = []
        self.start = 0
        self.end = 0
        self.producers: dict[int, tuple[int, int, dict[int, int]]] = {}
        """Epoch, next sequence, and base offset by base sequence."""
        self.leader_epoch = 0

    def append(self, frame: bytes) -> ProducedBatch:
        header = verify(frame)
        if header.producer_id < 0:
            return self._take(frame)
        epoch, expected, seen = self.producers.get(header.producer_id, (-1, 0, {}))
        if header.producer_epoch < epoch:
            return ProducedBatch(
                -1, error=ErrorBody(ErrorCode.PRODUCER_FENCED, f"epoch {epoch} writes", False)
            )
        if header.producer_epoch > epoch:
            expected, seen = 0, {}
        if header.base_sequence in seen:
            return ProducedBatch(seen[header.base_sequence], duplicate=True)
        if header.base_sequence != expected:
            return ProducedBatch(
                -1, error=ErrorBody(ErrorCode.OUT_OF_ORDER_SEQUENCE, f"not {expected}", False)
            )
        seen[header.base_sequence] = self.end
        self.producers[header.producer_id] = (header.producer_epoch, expected + header.record_count, seen)
        return self._take(frame)

    def _take(self, frame: bytes) -> ProducedBatch:
        base_offset = self.end
        self.batches.append(bytes(stamp(frame, base_offset, self.leader_epoch)))
        self.end += parse_header(frame).record_count
        return ProducedBatch(base_offset)

    def retain_from(self, offset: int) -> None:
        """Let retention remove the records before `offset`."""
        self.start = offset
        self.batches = [batch for batch in self.batches if parse_header(batch).next_offset > offset]

    def leave_a_gap(self, count: int) -> None:
        """Skip `count` offsets without a record, as after compaction or an abort."""
        self.end += count

    def cut(self, keep: int) -> None:
        """Simulate a power cut: keep only the first batches, and restart the partition."""
        del self.batches[keep:]
        self.end = parse_header(self.batches[-1]).next_offset if self.batches else 0
        self.leader_epoch += 1

    def fetch(self, offset: int, max_batches: int = 3) -> tuple[FetchReply, tuple[bytes, ...]] | ErrorBody:
        if not self.start <= offset <= self.end:
            return ErrorBody(ErrorCode.OFFSET_OUT_OF_RANGE, f"the log is {self.start} to {self.end}", False)
        found = [batch for batch in self.batches if parse_header(batch).next_offset > offset][:max_batches]
        next_offset = parse_header(found[-1]).next_offset if found else offset
        reply = FetchReply(
            topic="__offsets",
            partition=0,
            log_start_offset=self.start,
            high_watermark=self.end,
            next_offset=next_offset,
            leader_epoch=self.leader_epoch,
        )
        return reply, (b"".join(found),) if found else ()

    def truncation(self, position: int, leader_epoch: int | None) -> ErrorBody | None:
        """Return the refusal of a reader that has read records which are gone."""

        def header_at(offset: int) -> BatchHeader | None:
            headers = map(parse_header, self.batches)
            return next((header for header in headers if header.next_offset > offset), None)

        if leader_epoch is None:
            return None
        found = divergence(header_at, self.start, self.end, position, leader_epoch)
        return None if found is None else ErrorBody(ErrorCode.LOG_TRUNCATED, "cut", next_offset=found)


class SimulatedGroup(SimulatedActor):
    """The coordinator and its surroundings."""

    def __init__(self, topics: dict[str, int] | None = None, group: str = GROUP) -> None:
        super().__init__()
        self.group = group
        self.now = 1_000_000
        self.log = SimulatedLog()
        self.topics = dict(topics or {"ORDERS": 6})
        self.lives: dict[str, int] = {}
        """Number of deletions of each topic."""
        self.tracked: set[str] = set()
        """Topics whose partitions track the group's progress."""
        self.down: set[str] = set()
        """Addresses that do not answer: partitions, and coordinators of transactions."""
        self.reports: list[ReportProgress] = []
        self.open_transactions: list[tuple[str, AddToTransaction]] = []
        """Transactions added at the coordinators of transactions, each with its coordinator."""
        self.is_urgent = False
        self.idle_ms = 0
        self.offsets_retention_ms = -1
        self.disconnect_grace_ms = 0
        self.is_replaceable = False
        self.is_partition_up = True
        self.machine: CoordinatorMachine

    @property
    def state(self) -> GroupState:
        """The durable state."""
        return self.service.durable

    @property
    def service(self) -> GroupService:
        service = self.machine.service
        assert isinstance(service, GroupService)
        return service

    def start(self, *, with_snapshot: bool = True) -> None:
        if not with_snapshot:
            self.snapshot = None
        self.launch(
            CoordinatorActor,
            f"coordinator/{self.group}",
            {
                "group": self.group,
                "offsets_topic": "__offsets",
                "offsets_partition": 0,
                "idle_ms": self.idle_ms,
                "offsets_retention_ms": self.offsets_retention_ms,
                "disconnect_grace_ms": self.disconnect_grace_ms,
                "is_replaceable": self.is_replaceable,
            },
        )

    def crash(self, *, is_append_durable: bool) -> None:
        """Kill the coordinator; an append in flight may still arrive."""
        for call in self.calls:
            if isinstance(call.request, Produce) and is_append_durable and self.is_partition_up:
                self.log.append(bytes(call.payload[0]))
        self.start()

    def ask(self, client: str, request: Any) -> int:
        """Send a request; `answer_of` will have the answer under the returned id."""
        return super().ask(request, client)

    def answer_of(self, request_id: int) -> Any:
        """Return the body answered to a request, or None while there is none."""
        return self.replies.get(request_id)

    def request(self, client: str, request: Any) -> Any:
        """Send a request, let everything become durable, and take the answer (None: parked)."""
        request_id = self.ask(client, request)
        self.drain()
        return self.answer_of(request_id)

    def _outcome(self, call: Call) -> Any:
        request = call.request
        if isinstance(request, WatchCatalog):
            topics = [
                CatalogTopic(
                    topic, f"{topic}.{self.lives.get(topic, 0)}", count, 1_000_000, topic in self.tracked
                )
                for topic, count in self.topics.items()
            ]
            return (WatchCatalogReply(version=self.version, topics=topics),)
        if isinstance(request, ReportProgress):
            if call.address in self.down:
                return OFFLINE
            self.reports.append(request)
            return (ReportProgressReply(is_urgent=self.is_urgent),)
        if isinstance(request, AddToTransaction):
            if call.address in self.down:
                return OFFLINE
            self.open_transactions.append((call.address, request))
            return (Done(),)
        assert call.address == PARTITION
        if not self.is_partition_up:
            return OFFLINE
        if isinstance(request, Produce):
            result = self.log.append(bytes(call.payload[0]))
            return (ProduceReply(batches=[result], high_watermark=self.log.end),)
        if isinstance(request, ListOffsets):
            return (ListOffsetsReply(offset=0),)
        assert isinstance(request, Fetch)
        cut = self.log.truncation(request.offset, request.leader_epoch)
        return cut or self.log.fetch(request.offset)

    def recreate(self, *topics: str) -> None:
        """Delete topics and create them again before any poll."""
        for topic in topics:
            self.lives[topic] = self.lives.get(topic, 0) + 1
        self.version += 1

    def set_topics(self, topics: dict[str, int]) -> None:
        self.recreate(*(topic for topic in self.topics if topic not in topics))
        self.topics = dict(topics)
        self.version += 1

    def partition_up(self) -> None:
        self.is_partition_up = True
        self.handle(PeerUp(address=Address.parse(PARTITION), incarnation=2, endpoint="ipc://p"))

    def freeze(self, milliseconds: int) -> None:
        """Stop the coordinator's process for a while: its timers fire late, all at once."""
        self.now += milliseconds
        self.fire()


class SimulatedMember:
    """A client that follows the protocol: it owns its assignment, revokes on command, and reports its partitions."""

    def __init__(
        self,
        group: SimulatedGroup,
        name: str,
        *,
        topics: tuple[str, ...] = ("ORDERS",),
        instance_id: str | None = None,
        session_timeout_ms: int = 3_000,
    ) -> None:
        self.group = group
        self.name = name
        self.topics = list(topics)
        self.instance_id = instance_id
        self.session_timeout_ms = session_timeout_ms
        self.member_id: str | None = None
        self.generation = 0
        self.owned: set[tuple[str, int]] = set()
        self.letting_go: set[tuple[str, int]] = set()
        """Still owned, but being revoked: handlers are finishing."""
        self.outstanding: int | None = None
        self.is_frozen = False
        self.is_fenced = False

    def heartbeat(self, max_wait_ms: int = 0) -> None:
        """Send a heartbeat; one already in flight is given up."""
        is_joining = self.member_id is None or self.generation == 0
        owned: dict[str, list[int]] = {}
        for topic, partition in sorted(self.owned):
            owned.setdefault(topic, []).append(partition)
        request = GroupHeartbeat(
            group=self.group.group,
            member_id=self.member_id,
            instance_id=self.instance_id,
            generation=self.generation,
            topics=self.topics if is_joining else None,
            owned=owned,
            session_timeout_ms=self.session_timeout_ms,
            max_wait_ms=max_wait_ms,
            client_id=self.name,
        )
        self.outstanding = self.group.ask(self.name, request)

    def receive(self) -> Any:
        """Take the answer to the outstanding heartbeat, if present; late answers to earlier ones are ignored."""
        if self.outstanding is None or self.is_frozen:
            return None
        body = self.group.answer_of(self.outstanding)
        if body is None:
            return None
        self.outstanding = None
        if isinstance(body, ErrorBody):
            self._on_error(body)
            return body
        assert isinstance(body, GroupHeartbeatReply)
        assert body.generation >= self.generation
        self.member_id, self.generation = body.member_id, body.generation
        assigned = {(topic, number) for topic, numbers in body.assignment.items() for number in numbers}
        self.letting_go = self.owned - assigned
        self.owned |= assigned
        return body

    def _on_error(self, error: ErrorBody) -> None:
        if error.code == ErrorCode.FENCED_MEMBER:
            self.is_fenced = True
        if error.code in (ErrorCode.UNKNOWN_MEMBER, ErrorCode.FENCED_MEMBER, ErrorCode.STALE_GENERATION):
            self.drop()

    def let_go(self) -> None:
        self.owned -= self.letting_go
        self.letting_go = set()

    def drop(self) -> None:
        self.member_id, self.generation = None, 0
        self.owned, self.letting_go = set(), set()
        self.outstanding = None

    def turn(self, max_wait_ms: int = 0) -> Any:
        """Run one complete round: heartbeat, answer, and revocations."""
        self.heartbeat(max_wait_ms)
        self.group.drain()
        body = self.receive()
        self.let_go()
        return body

    def commit(self, topic: str, partition: int, offset: int, *, generation: int | None = None) -> int:
        request = CommitOffsets(
            group=self.group.group,
            offsets=[PartitionOffset(topic, partition, offset)],
            member_id=self.member_id,
            generation=self.generation if generation is None else generation,
        )
        return self.group.ask(self.name, request)

    def commits(self, topic: str, partition: int, offset: int, *, generation: int | None = None) -> str:
        """Commit and wait: "ok" or the error's code."""
        request_id = self.commit(topic, partition, offset, generation=generation)
        self.group.drain()
        body = self.group.answer_of(request_id)
        return "ok" if isinstance(body, CommitOffsetsReply) else body.code

    def leave(self) -> Any:
        assert self.member_id is not None
        body = self.group.request(self.name, LeaveGroup(group=self.group.group, member_id=self.member_id))
        self.drop()
        return body


def converge(members: list[SimulatedMember], rounds: int = 12) -> None:
    """Let all members heartbeat in turn until nothing changes any more."""
    for _ in range(rounds):
        before = [(member.member_id, member.generation, frozenset(member.owned)) for member in members]
        for member in members:
            member.turn()
        if before == [(member.member_id, member.generation, frozenset(member.owned)) for member in members]:
            return
    raise AssertionError("the group does not come to rest")


ORDERS = [("ORDERS", number) for number in range(6)]


def pair(group: SimulatedGroup) -> tuple[SimulatedMember, SimulatedMember]:
    """Return two members that share the partitions and are at rest."""
    first, second = SimulatedMember(group, "first"), SimulatedMember(group, "second")
    first.turn()
    converge([first, second])
    assert len(first.owned) == len(second.owned) == 3
    return first, second


def code(body: object) -> str:
    assert isinstance(body, ErrorBody), body
    return body.code

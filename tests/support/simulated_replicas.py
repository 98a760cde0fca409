"""Three replicas of one partition: the real processes on disks in memory, a metadata store, a network, and faults.

Everything is drawn from one seed. Messages between two nodes keep their order and may be lost with their link. There are
two ways between a follower and its leader, by the links and straight to its process, and each may be cut alone. Processes
die between any two system calls, also with their unsynced data; elections come at any time, also of a leader that lives.
The decisions of elections are the product's (`actors/controller/cluster/elections.py`); a store with guarded writes and
answers that are lost is the simulator's. After every step it checks (`ReplicaChecks`) that

    committed     a record below any leader's high watermark never changes: one offset, one record
    in sync       a record that becomes committed is durable on every replica that the store calls in sync, and on no
                  fewer disks than the minimum
    leader        a replica that begins to lead, as the store says, has every committed record
    epoch         an offset and a leader epoch name one batch, on all disks
    acknowledged  a record that was acknowledged is committed at its offset
"""

import random
from collections import deque
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import msgspec

from manual_loop import ManualLoop, OneFile, context_of
from memory_log import MemoryDisk, MemoryLog, Step, opener
from planaria.actors.controller.cluster import elections
from planaria.actors.controller.cluster.messages import used_epoch_of
from planaria.actors.controller.cluster.records import Member as RecordedMember
from planaria.actors.controller.cluster.records import PartitionRecord
from planaria.actors.log.epochs import NO_EPOCH
from planaria.actors.log.labels import PARTITION_LABEL, PartitionLabel, encode_label
from planaria.actors.log.lock import DirectoryLock
from planaria.actors.partition import follower
from planaria.actors.partition.process import PartitionProcess
from planaria.transport.addresses import CONTROLLER, Address, Kind, partition_address
from planaria.transport.batch import BatchHeader, build, decode_records, parse_header
from planaria.transport.machine import (
    Answered,
    Call,
    CancelCall,
    Disconnected,
    Failed,
    PeerDown,
    PeerUp,
    Received,
    Sender,
)
from planaria.transport.protocol.data import Fetch, FetchReply, Produce, ProduceReply
from planaria.transport.protocol.errors import ErrorBody, ErrorCode
from planaria.transport.protocol.links import AdmitCatchUp
from planaria.transport.protocol.message import Done
from planaria.transport.protocol.mirrored import TopicMirror
from planaria.transport.protocol.replication import (
    ConfirmSession,
    ConfirmSessionReply,
    Follow,
    Lead,
    Member,
    ProposeInSync,
    ProposeInSyncReply,
    RelieveLeader,
    ReplicaReported,
    RoleReply,
)
from planaria.transport.protocol.session import Cancel
from planaria.transport.protocol.topics import TopicConfig
from planaria.transport.request_context import direct_context

NODES = ("a", "b", "c")
MINIMUM = 2
STORE = "store"
NOBODY = "nobody"
"""The target of messages to a process that has ended."""
LINK = "link"
FOR_EVER_MS = 2**60
SLOW_SYNC_MS = 500
CLIENT = "client"
STRAIGHT = "~"
"""Ends the name of a node as the source of messages that do not go by the links."""


class Died(Exception):
    """The process was killed here."""


class Violation(AssertionError):
    """An invariant does not hold."""


class _Log(MemoryLog):
    def __init__(self, node: "Node", config: Any, now_ms: int) -> None:
        self._node = node
        super().__init__(node.disk, config, now_ms)

    def _step(self, step: Step, header: BatchHeader | None = None) -> None:
        self._node.on_step()
        if step == "sync":
            self._node.world.now += self._node.sync_ms


class _Files(OneFile):
    def read_whole(self, path: Path) -> bytes | None:
        if path.name == PARTITION_LABEL:
            return encode_label(PartitionLabel(topic="ORDERS", topic_id="t1", partition=0))
        return super().read_whole(path)


class _Lock(DirectoryLock):
    def __init__(self, *_: Any) -> None:
        """There are no other processes here."""

    def release(self) -> None:
        pass


class Node:
    """One node: its disk, and the process of its replica, if that is up."""

    def __init__(self, world: "ReplicaWorld", name: str) -> None:
        self.world = world
        self.name = name
        self.disk = MemoryDisk()
        self.files = _Files()
        self.incarnation = 0
        self.loop: ManualLoop | None = None
        self.sync_ms = 0
        """The duration of a sync of its disk."""
        self.dies_at: int | None = None
        """The number of steps until the process dies."""
        self.calls: dict[int, Call] = {}
        self.direct: PeerUp | None = None
        """The process of the leader, as this one reaches it without the links."""
        self.delivered: int | None = None

    @property
    def machine(self) -> Any:
        assert self.loop is not None
        return self.loop._actor.machine

    def on_step(self) -> None:
        if self.dies_at is not None:
            self.dies_at -= 1
            if self.dies_at < 0:
                raise Died

    def start(self) -> None:
        self.incarnation += 1
        self.dies_at = None
        arguments = {
            "topic": "ORDERS",
            "partition": 0,
            "topic_id": "t1",
            "config": msgspec.to_builtins(TopicConfig()),
            "directory": "topics/ORDERS/0",
            "leadership": "given",
            "node": self.name,
            "data_id": f"{self.name}1",
            "slow_sync_ms": SLOW_SYNC_MS,
            "peer_host": self.name,
            "mirror": msgspec.to_builtins(self.world.mirror),
        }
        self.direct = None
        context = context_of(str(address_of(self.name)), self.incarnation, arguments)
        open_log = opener(lambda config, now_ms: _Log(self, config, now_ms))
        process = PartitionProcess(context, self.files, open_log, _Lock)
        self.loop = ManualLoop(process, context, lambda: self.world.now)
        if self.world.has_straight_ways:
            self.loop.peer_endpoint = f"tcp://*:{self.incarnation}"
        self.loop.start()
        self.gather()

    def turn(self, *events: Any) -> None:
        assert self.loop is not None
        try:
            self.loop.turn(*events)
        except Died:
            self.gather()
            self.crash()
            return
        self.world.checks.after_step()
        self.gather()

    def gather(self) -> None:
        """Pass on the messages that have left the process."""
        assert self.loop is not None
        replies, self.loop.replies = self.loop.replies, []
        calls, self.loop.calls = self.loop.calls, []
        for reply in replies:
            source, incarnation, *_ = reply.to.route[0].decode().split(".")
            payload = tuple(bytes(frame) for frame in reply.payload)
            message = ("reply", int(incarnation), reply.to.id, reply.body, payload)
            way = STRAIGHT if source.endswith(STRAIGHT) else ""
            self.world.send(self.name + way, source.removesuffix(STRAIGHT), message)
        for call in calls:
            if isinstance(call, CancelCall):
                self._cancel(call)
                continue
            if isinstance(call, PeerUp | PeerDown):
                self._introduce(call)
                continue
            if isinstance(call.request, AdmitCatchUp):
                number = self.world.next_number()
                self.calls[number] = call
                self.world.send(LINK, self.name, ("reply", self.incarnation, number, Done(), ()))
                continue
            number = self.world.next_number()
            if isinstance(call, Call):
                self.calls[number] = call
            payload = tuple(bytes(frame) for frame in call.payload)
            source, target = self.way_to(call.address)
            self.world.send(
                source, target, ("request", self.process_at(source), number, call.request, payload)
            )

    def process_at(self, source: str) -> str:
        """Return the rest of the name of a connection of this process: each straight one has another."""
        if not source.endswith(STRAIGHT) or self.direct is None:
            return str(self.incarnation)
        return f"{self.incarnation}.{self.direct.incarnation}"

    def way_to(self, address: Address) -> tuple[str, str]:
        """Return the source and the target of messages to an address."""
        if address == CONTROLLER:
            return self.name, STORE
        if address.kind != Kind.LEADER:
            return self.name, address.name
        if self.direct is None or self.direct.endpoint is None:
            return self.name + STRAIGHT, NOBODY
        # The port is the incarnation: no message reaches a later process of the node.
        host, _, port = self.direct.endpoint.removeprefix("tcp://").rpartition(":")
        is_there = self.world.nodes[host].incarnation == int(port)
        return self.name + STRAIGHT, host if is_there else NOBODY

    def _introduce(self, change: PeerUp | PeerDown) -> None:
        """Open or close the connection to the leader's process; its end is noticed there."""
        before = self.direct
        if before is not None:
            source, target = self.way_to(before.address)
            ended = ("ended", self.process_at(source), 0, None, ())
            self.world.send(source, target, ended)
            for number, call in list(self.calls.items()):
                if call.address == before.address:
                    self.world.send(NOBODY, self.name, ("reply", self.incarnation, number, _gone(NOBODY), ()))
        self.direct = change if isinstance(change, PeerUp) else None

    def _cancel(self, cancel: CancelCall) -> None:
        for number, call in list(self.calls.items()):
            if call.token == cancel.token:
                del self.calls[number]
                source, target = self.way_to(call.address)
                cancelled = ("request", self.process_at(source), number, Cancel(), ())
                self.world.send(source, target, cancelled)

    def crash(self) -> None:
        """Kill the process; its machine loses power, so that some of the unsynced batches are gone."""
        self.loop = None
        self.calls.clear()
        draw = self.world.draw
        kept = draw.choice([self.disk.durable, draw.randint(self.disk.durable, len(self.disk.batches))])
        del self.disk.batches[kept:]
        if self.disk.snapshot is not None and self.disk.snapshot[1] > self.disk.end_offset:
            self.disk.snapshot = None
        self.world.on_down(self.name)


class ReplicaChecks:
    def __init__(self, world: "ReplicaWorld") -> None:
        self._world = world
        self.committed: dict[int, bytes] = {}
        """Every batch that was below a high watermark, by its offset."""
        self.committed_end = 0
        self._batches: dict[tuple[int, int], bytes] = {}

    def after_step(self) -> None:
        for node in self._world.nodes.values():
            for header, frame in node.disk.batches:
                known = self._batches.setdefault((header.leader_epoch, header.base_offset), frame)
                if known != frame:
                    raise Violation(f"two batches are {header.base_offset} of epoch {header.leader_epoch}")
            if node.loop is not None and node.machine._role.name == "leader":
                self._commit(node, node.machine._role.watermarks.high_watermark)

    def _commit(self, node: Node, high_watermark: int) -> None:
        for header, frame in node.disk.batches:
            if header.next_offset > high_watermark:
                break
            if header.base_offset not in self.committed:
                self._check_in_sync(header.base_offset, frame)
            known = self.committed.setdefault(header.base_offset, frame)
            if known != frame:
                raise Violation(f"{node.name} shows another record at {header.base_offset}")
        self.committed_end = max(self.committed_end, min(high_watermark, node.disk.end_offset))

    def _check_in_sync(self, offset: int, frame: bytes) -> None:
        holders = {node.name for node in self._world.nodes.values() if _is_durable(node.disk, offset, frame)}
        missing = {member.node for member in self._world.record.in_sync} - holders
        if missing or len(holders) < MINIMUM:
            raise Violation(
                f"{offset} is committed, {sorted(holders)} have it; in sync without it: {sorted(missing)}"
            )

    def on_leads(self, node: Node) -> None:
        """Check a process that begins to lead by the newest state of the store."""
        found = {header.base_offset: frame for header, frame in node.disk.batches}
        lost = [offset for offset, frame in self.committed.items() if found.get(offset) != frame]
        if lost:
            raise Violation(f"{node.name} leads without the committed records at {sorted(lost)[:5]}")

    def on_acknowledged(self, offset: int, value: bytes) -> None:
        frame = self.committed.get(offset)
        if frame is None or decode_records(frame, parse_header(frame))[0][1] != value:
            raise Violation(f"{value!r} was acknowledged at {offset}, and is not committed there")

    def at_the_end(self, acknowledged: dict[int, bytes]) -> None:
        logs = {name: [frame for _, frame in node.disk.batches] for name, node in self._world.nodes.items()}
        if len({tuple(frames) for frames in logs.values()}) != 1:
            raise Violation(f"the logs differ: { ({name: len(frames) for name, frames in logs.items()}) }")
        for offset, value in acknowledged.items():
            self.on_acknowledged(offset, value)


class ReplicaWorld:
    def __init__(self, seed: int, mirror: TopicMirror | None = None) -> None:
        self.draw = random.Random(seed)
        self.mirror = mirror
        """The state of the topic's mirror, as every controller knows it."""
        self.used_epoch = NO_EPOCH
        """The highest epoch with which a process has refused its role."""
        self.has_straight_ways = seed % 4 >= 2
        self.reliefs: list[tuple[str, tuple[str, ...]]] = []
        """The leaders that have asked to be relieved, and by which nodes."""
        self.trusted_until_ms = FOR_EVER_MS
        """Time until which the nodes' sessions live, as their controllers say."""
        self.now = 1_700_000_000_000
        self.nodes = {name: Node(self, name) for name in NODES}
        self.links: dict[tuple[str, str], deque[Any]] = {}
        self.cut: set[tuple[str, str]] = set()
        """Links that lose every message."""
        self.slow: set[tuple[str, str]] = set()
        """Links that deliver nothing for now."""
        self.record = PartitionRecord(
            replicas=NODES,
            leader="a",
            in_sync=tuple(RecordedMember(name, f"{name}1") for name in NODES),
        )
        if seed % 3 == 0:  # a new partition
            members = self.record.in_sync
            self.record = msgspec.structs.replace(
                self.record, in_sync=members[:1], eligible=members[1:], is_new=True
            )
        self.revision = 1
        self.claims: dict[str, int] = {}
        self.checks = ReplicaChecks(self)
        self.acknowledged: dict[int, bytes] = {}
        self.unseen: dict[int, bytes] = {}
        """Values that wait for an answer, by request."""
        self.is_quiet = False
        self._numbers = 0
        for node in self.nodes.values():
            node.start()

    def next_number(self) -> int:
        self._numbers += 1
        return self._numbers

    # -- the network

    def send(self, source: str, target: str, message: Any) -> None:
        self.links.setdefault((source, target), deque()).append(message)

    def _deliver(self, source: str, target: str) -> None:
        message = self.links[source, target].popleft()
        if (source, target) in self.cut or target == NOBODY:
            return
        kind, incarnation, number, body, payload = message
        if kind == "ended":
            node = self.nodes[target]
            if node.loop is not None:
                node.turn(Disconnected(f"{source}.{incarnation}".encode()))
            return
        if kind == "reply":
            self._deliver_reply(target, incarnation, number, body, payload)
        elif target == STORE:
            self._on_call(source, int(incarnation), number, body)
        else:
            node = self.nodes[target]
            if node.loop is not None:
                route = f"{source}.{incarnation}".encode()
                sender = Sender((route,), number, kind=type(body))
                self._check_lead(node, Received(sender, body, payload, context=direct_context(route, body)))

    def _check_lead(self, node: Node, received: Received) -> None:
        before = node.machine._role
        node.turn(received)
        if node.loop is not None and node.machine._role is not before and node.machine._role.name == "leader":
            is_newest = node.machine._role.leader_epoch == self.record.leader_epoch
            if is_newest and self.record.leader == node.name:
                self.checks.on_leads(node)

    def _deliver_reply(self, target: str, incarnation: int, number: int, body: Any, payload: Any) -> None:
        if target == CLIENT:
            self._on_answer(number, body)
            return
        if isinstance(body, RoleReply):
            self.used_epoch = max(self.used_epoch, used_epoch_of(body, None))
        node = self.nodes.get(target)
        if node is None or node.loop is None or node.incarnation != incarnation:
            return
        call = node.calls.pop(number, None)
        if call is None:
            return
        is_error = isinstance(body, ErrorBody)
        node.turn(Failed(call.key, body) if is_error else Answered(call.key, body, payload))

    def lose_call(self, node: Node, number: int) -> None:
        call = node.calls.pop(number)
        node.turn(Failed(call.key, ErrorBody(ErrorCode.TIMED_OUT, "lost", True)))

    # -- the store and the controller

    def _write(self, record: PartitionRecord | None) -> None:
        if record is not None:
            self.record, self.revision = record, self.revision + 1

    def _on_call(
        self,
        source: str,
        incarnation: int,
        number: int,
        request: ProposeInSync | ConfirmSession | RelieveLeader,
    ) -> None:
        """Answer a call of a node's controller."""
        if isinstance(request, RelieveLeader):
            self.reliefs.append((source, request.successors))
            self.send(STORE, source, ("reply", incarnation, number, Done(), ()))
        elif isinstance(request, ConfirmSession):
            reply = ConfirmSessionReply(trusted_until_ms=self.trusted_until_ms)
            self.send(STORE, source, ("reply", incarnation, number, reply, ()))
        else:
            self._on_proposal(source, incarnation, number, request)

    def _on_proposal(self, source: str, incarnation: int, number: int, request: ProposeInSync) -> None:
        record = self.record
        is_applied = (
            request.revision == self.revision
            and request.leader == record.leader
            and request.leader_epoch == record.leader_epoch
        )
        if is_applied:
            recorded = [
                [RecordedMember(*each) for each in found] for found in (request.in_sync, request.eligible)
            ]
            in_sync, eligible = recorded
            members = (tuple(in_sync), tuple(eligible))
            self._write(
                msgspec.structs.replace(record, in_sync=members[0], eligible=members[1], is_new=False)
            )
        reply = ProposeInSyncReply(
            applied=is_applied,
            leader_epoch=self.record.leader_epoch,
            in_sync=_members(self.record.in_sync),
            eligible=_members(self.record.eligible),
            revision=self.revision,
        )
        self.send(STORE, source, ("reply", incarnation, number, reply, ()))

    def live(self) -> dict[str, str]:
        return {name: f"{name}1" for name, node in self.nodes.items() if node.loop is not None}

    def elect(self) -> None:
        """Decide as the controller does: a dead leader has a successor, a living one may be taken for dead."""
        live = self.live()
        if self.record.leader not in live:
            self._write(elections.successor(self.record, live, MINIMUM))
        elif not self.is_quiet and self.draw.random() < 0.5:
            self._write(elections.handed_over(self.record, live, MINIMUM, avoid={self.record.leader}))

    def claim(self) -> None:
        """Have the leader's process claim the record, and send every node its role."""
        node = self.nodes[self.record.leader]
        if node.loop is not None:
            process = f"{node.name}/{node.incarnation}"
            if self.record.claim != process or self.record.leader_epoch <= self.used_epoch:
                self._write(elections.claimed(self.record, process, self.used_epoch))
        for name in NODES:
            self.assign(name)

    def assign(self, name: str) -> None:
        record = self.record
        if not record.claim:
            return
        common = {"topic": "ORDERS", "topic_id": "t1", "partition": 0}
        order = {"leader_epoch": record.leader_epoch, "revision": self.revision}
        request: Any
        if record.leader == name:
            if record.claim != f"{name}/{self.nodes[name].incarnation}":
                return
            request = Lead(
                **common,
                **order,
                replicas={each: f"{each}1" for each in NODES},
                in_sync=_members(record.in_sync),
                eligible=_members(record.eligible),
                min_in_sync_replicas=MINIMUM,
                down=tuple(each for each in NODES if each not in self.live()),
                trusted_until_ms=FOR_EVER_MS,
                mirror=self.mirror,
            )
        else:
            request = Follow(
                **common,
                **order,
                leader=record.leader,
                address=address_of(record.leader),
                mirror=self.mirror,
            )
        self.send("controller", name, ("request", 0, self.next_number(), request, ()))

    def on_down(self, name: str) -> None:
        """The supervisor reports the death: calls to the process fail, and the leader is notified."""
        for node in self.nodes.values():
            if node.loop is not None:
                for number, call in list(node.calls.items()):
                    if node.way_to(call.address)[1] in (name, NOBODY):
                        self.send(name, node.name, ("reply", node.incarnation, number, _gone(name), ()))
        self._report(name, False)

    def _report(self, name: str, is_up: bool) -> None:
        report = ReplicaReported(topic="ORDERS", topic_id="t1", partition=0, replica=name, is_up=is_up)
        self.send("controller", self.record.leader, ("request", 0, self.next_number(), report, ()))

    # -- clients

    def produce(self) -> None:
        target = self.draw.choice([self.record.leader, *NODES])
        number = self.next_number()
        value = b"%d" % number
        frame = build([(None, value, 0, None)], first_timestamp_ms=0, max_timestamp_ms=0)
        request = Produce(id=number, topic="ORDERS", partition=0, acks=self.draw.choice(["all", "all", 1]))
        if request.acks == "all":
            self.unseen[number] = value
        self.send(CLIENT, target, ("request", 0, number, request, (frame,)))

    def read(self) -> None:
        offset = self.draw.randint(0, self.checks.committed_end)
        request = Fetch(id=-1, topic="ORDERS", partition=0, offset=offset, isolation="read_uncommitted")
        self.send(CLIENT, self.draw.choice(NODES), ("request", 0, self.next_number(), request, ()))

    def _on_answer(self, number: int, body: Any) -> None:
        value = self.unseen.pop(number, None)
        if isinstance(body, ProduceReply) and value is not None:
            offset = body.batches[0].base_offset
            self.checks.on_acknowledged(offset, value)
            self.acknowledged[offset] = value
        elif isinstance(body, FetchReply) and body.high_watermark > self.checks.committed_end:
            raise Violation(f"a reader saw {body.high_watermark}, before it was committed")

    # -- steps

    def step(self) -> None:
        draw = self.draw
        pending = [link for link, queue in self.links.items() if queue and link not in self.slow]
        kind = draw.random()
        if pending and kind < 0.72:
            self._deliver(*draw.choice(pending))
        elif kind < 0.82:
            self.produce()
        elif kind < 0.85:
            self.read()
        elif kind < 0.90:
            self.pass_time(draw.choice([1, 20, 60, 250]))
        elif kind < 0.93:
            self.claim()
        else:
            self.fault()

    def pass_time(self, duration_ms: int) -> None:
        self.now += duration_ms
        for node in self.nodes.values():
            if node.loop is not None and (at := node.loop.next_timer_at) is not None and at <= self.now:
                node.turn()

    def fault(self) -> None:
        draw = self.draw
        node = self.nodes[draw.choice(NODES)]
        kind = draw.randint(0, 9)
        way = draw.choice(["", STRAIGHT]) if self.has_straight_ways else ""
        if node.loop is None:
            node.start()
            self._report(node.name, True)
        elif kind == 0:
            node.crash()
        elif kind == 1:
            node.dies_at = draw.randint(0, 6)
        elif kind == 2:
            self.elect()
        elif kind == 3 and node.calls:
            self.lose_call(node, draw.choice(list(node.calls)))
        elif kind == 4:
            link = (draw.choice([*(other + way for other in NODES), STORE]), node.name)
            self.cut.symmetric_difference_update({link})
        elif kind == 5:
            self.cut.clear()
        elif kind == 6:
            self.elect()
            self.claim()
        elif kind == 7:
            other = draw.choice(NODES) + way
            self.slow.symmetric_difference_update({(other, node.name)})
        elif kind == 8:
            self.slow.clear()

    def heal(self) -> None:
        """End all faults, and let the replicas come to rest."""
        self.is_quiet = True
        self.cut.clear()
        self.slow.clear()
        for node in self.nodes.values():
            node.dies_at = None
            if node.loop is None:
                node.start()
                self._report(node.name, True)
        for round_number in range(60):
            self.elect()
            if round_number % 4 == 0:
                self.claim()
            if round_number == 40:
                self.produce_to_the_leader()
            self._drain()
            for node in self.nodes.values():
                for number, call in list(node.calls.items()):
                    is_store = call.address == CONTROLLER
                    if is_store or round_number in (0, 20):
                        self.lose_call(node, number)
            self.pass_time(700)
        if self.unseen.pop(-2, None) is not None:
            raise Violation("after all faults a record is not acknowledged")
        self.checks.at_the_end(self.acknowledged)

    def produce_to_the_leader(self) -> None:
        frame = build([(None, b"last", 0, None)], first_timestamp_ms=0, max_timestamp_ms=0)
        self.unseen[-2] = b"last"
        request = Produce(id=-2, topic="ORDERS", partition=0)
        self.send(CLIENT, self.record.leader, ("request", 0, -2, request, (frame,)))

    def _drain(self) -> None:
        for _ in range(2_000):
            pending = [link for link, queue in self.links.items() if queue]
            if not pending:
                return
            self._deliver(*self.draw.choice(pending))


def address_of(node: str) -> Address:
    """Return the address of a node's replica: here each is an actor of one broker."""
    return partition_address(node, 0)


def _is_durable(disk: MemoryDisk, offset: int, frame: bytes) -> bool:
    durable = disk.batches[: disk.durable]
    return any(header.base_offset == offset and found == frame for header, found in durable)


def _members(found: tuple[RecordedMember, ...]) -> tuple[Member, ...]:
    return tuple(Member(each.node, each.data_id) for each in found)


def _gone(name: str) -> ErrorBody:
    return ErrorBody(ErrorCode.PARTITION_OFFLINE, f"{name} died", True)


def simulate(seed: int, steps: int = 400) -> ReplicaWorld:
    """Run one schedule. Raises Violation.

    In every other one a leader counts as busy always, so that the next fetch precedes the sync. In half of both
    followers know no way but the links.
    """
    return run(ReplicaWorld(seed), seed, steps)


World = TypeVar("World", bound=ReplicaWorld)


def run(world: World, seed: int, steps: int) -> World:
    with mock.patch.object(follower, "BUSY_BYTES", 1 if seed % 2 == 0 else follower.BUSY_BYTES):
        world.claim()
        for _ in range(steps):
            world.step()
        world.heal()
    return world


def a_batch(*values: bytes) -> bytes:
    return build([(None, value, 0, None) for value in values], first_timestamp_ms=0, max_timestamp_ms=0)


def ask(node: Node, request: Any, *payload: bytes) -> Any:
    """Return a replica's answer to a request that is alone in its turn; None while it waits."""
    sender = Sender((b"client.0",), node.world.next_number(), kind=type(request))
    node.turn(Received(sender, request, payload, context=direct_context(b"client.0", request)))
    answers = node.world.links.get((node.name, CLIENT), [])
    return next((message[3] for message in answers if message[2] == sender.id), None)


def settle(world: ReplicaWorld) -> None:
    """Deliver everything between the nodes; answers to clients stay."""
    while any(queue for (_, target), queue in world.links.items() if target != CLIENT):
        for link, queue in list(world.links.items()):
            if queue and link[1] != CLIENT:
                if link[1] in world.nodes or link[1] == "store":
                    world._deliver(*link)
                else:
                    queue.clear()

"""Guarantees of every simulation, checked while it runs and when it is over.

while it runs   no reply mentions an offset that is not durable; high watermarks never decrease; a partition is not
                granted while another member may hold it; commits do not pass delivered offsets; readers
                see each assignment's offsets in sequence, and one value at an offset
at the end      acknowledged records are in the log once, at their acknowledged offsets; refused ones are not; order is
                the producers'; offsets are dense; epochs only rise, each written by one incarnation; committed
                offsets never decreased; every record in the logs was delivered
"""

from collections import defaultdict
from typing import Any

import msgspec

from planaria.transport.batch import decode_records, split, verify
from planaria.transport.client.lanes import Outcome
from planaria.transport.codec import split_envelope
from planaria.transport.machine import Event, Received
from planaria.transport.protocol.errors import ErrorCode
from planaria.transport.protocol.groups import CommitOffsets, GroupHeartbeat, LeaveGroup
from simulator_actors import ActorHost, Disks, PartitionDisk, Taps
from simulator_world import Violation, World

TopicPartition = tuple[str, int]
RequestKey = tuple[tuple[bytes, ...], int | str | None]
"""Route and id: on a client's own connection, where there is no envelope, the id alone differs."""


class GroupWatch:
    """One group as its members' requests and its coordinator's answers show it."""

    def __init__(self, session_timeout_ms: int) -> None:
        self.session_timeout_ms = session_timeout_ms
        self.holders: dict[TopicPartition, tuple[str, int]] = {}
        """Last member assigned each partition, and its generation."""
        self.superseded: list[tuple[str, int, TopicPartition]] = []
        """Replaced members, with the generation they knew."""
        self._released: set[tuple[str, TopicPartition]] = set()
        self._told: dict[str, set[TopicPartition]] = {}
        self._heard_at: dict[str, int] = {}
        self._left: set[str] = set()
        self._instances: dict[str, str | None] = {}
        self._asking: dict[RequestKey, tuple[str | None, int]] = {}
        """Instance and time of the unanswered heartbeats."""

    def on_heartbeat(self, key: RequestKey, request: GroupHeartbeat, now_ms: int) -> None:
        self._asking[key] = (request.instance_id, now_ms)
        member = request.member_id
        if member is None:
            return
        if now_ms - self._heard_at.get(member, now_ms) >= self.session_timeout_ms:
            self._release_all(member)
        self._heard_at[member] = now_ms
        if request.owned is None:
            return
        owned = {(topic, partition) for topic, numbers in request.owned.items() for partition in numbers}
        for tp, (holder, generation) in self.holders.items():
            if (
                holder == member
                and request.generation >= generation
                and tp not in owned | self._told.get(member, set())
            ):
                self._released.add((member, tp))

    def on_left(self, member: str) -> None:
        self._left.add(member)

    def _release_all(self, member: str) -> None:
        """Release the partitions of a member silent for a session: another may hold them until its next assignment."""
        self._released |= {(member, tp) for tp, (holder, _) in self.holders.items() if holder == member}

    def on_told(self, key: RequestKey, reply: dict[str, Any], now_ms: int) -> None:
        member, generation = reply["member_id"], reply["generation"]
        assignment = {(topic, number) for topic, numbers in reply["assignment"].items() for number in numbers}
        instance, asked_at = self._asking.pop(key)
        if instance is not None:
            self._inherit(member, generation, instance, now_ms)
        self._instances.setdefault(member, instance)
        self._heard_at.setdefault(member, asked_at)
        for tp in sorted(assignment):
            holder, since = self.holders.get(tp, (member, generation))
            if holder != member:
                if not self._may_be_followed(holder, tp, now_ms):
                    raise Violation(f"{tp} was given to {member} while {holder} holds it since {since}")
                self.superseded.append((holder, since, tp))
            if holder != member or tp not in self.holders:
                self.holders[tp] = (member, generation)
            self._released.discard((member, tp))
        self._told[member] = assignment

    def _inherit(self, member: str, generation: int, instance: str, now_ms: int) -> None:
        """Transfer the partitions of a static member to its next process."""
        for tp, (holder, since) in self.holders.items():
            if holder != member and self._instances.get(holder) == instance:
                # Partitions revoked by the predecessor, or lost with its session, are not held by its successor either.
                if self._may_be_followed(holder, tp, now_ms):
                    self._released.add((member, tp))
                self.superseded.append((holder, since, tp))
                self.holders[tp] = (member, generation)

    def _may_be_followed(self, holder: str, tp: TopicPartition, now_ms: int) -> bool:
        return (
            (holder, tp) in self._released
            or holder in self._left
            or now_ms - self._heard_at[holder] >= self.session_timeout_ms
        )


class GroupRecords:
    """Durable records of all groups, read as they become durable."""

    def __init__(self, disks: Disks) -> None:
        self.generations: dict[str, int] = defaultdict(int)
        self.commits: set[tuple[str, str, int, int]] = set()
        self._disks = disks
        self._read: dict[str, int] = defaultdict(int)

    def refresh(self) -> None:
        for directory, disk in self._disks.partitions.items():
            if not directory.startswith("__offsets/"):
                continue
            for header, frame in disk.batches[self._read[directory] : disk.durable]:
                for key, value, _, _ in decode_records(frame, header):
                    assert key is not None
                    self._take(msgspec.msgpack.decode(key), value and msgspec.msgpack.decode(value))
            self._read[directory] = disk.durable

    def _take(self, key: list[Any], value: Any) -> None:
        if key[0] == "group":
            self.generations[key[1]] = value["generation"]
        elif key[0] == "offset":
            self.commits.add((key[1], key[2], key[3], value["offset"]))


class Checks(Taps):
    def __init__(self, world: World, disks: Disks) -> None:
        self.groups: dict[str, GroupWatch] = {}
        self.delivered: dict[tuple[str, TopicPartition], set[int]] = defaultdict(set)
        """Offsets by group, or by reader, and partition."""
        self.may_refuse_times = False
        """True if the machine has booted with its clock so far back that the clients' records are too far ahead."""
        self._world = world
        self._disks = disks
        self._records = GroupRecords(disks)
        self._commits: dict[RequestKey, CommitOffsets] = {}
        """Unanswered commits, by requester."""
        self._late_commits: set[tuple[str, str, int, int]] = set()
        """Commits of a gateway that was dead when they were read: a later one of its successor may precede them.
        They were not acknowledged, and the records they undo are delivered again: a known limit.
        """
        self._producer_ids: set[int] = set()
        self._published: dict[tuple[str, TopicPartition], list[bytes]] = defaultdict(list)
        self._acknowledged: dict[bytes, tuple[TopicPartition, int]] = {}
        self._refused: set[bytes] = set()
        self._settled = 0
        self._high_watermarks: dict[str, int] = defaultdict(int)
        self._values: dict[tuple[TopicPartition, int], bytes] = {}
        self._read_up_to: dict[tuple[str, TopicPartition, int], int] = {}

    @property
    def acknowledged_count(self) -> int:
        return len(self._acknowledged)

    # Producers.

    def on_published(self, producer: str, tp: TopicPartition, values: list[bytes]) -> None:
        self._published[producer, tp] += values

    def on_outcome(self, tp: TopicPartition, values: list[bytes], outcome: Outcome) -> None:
        self._settled += len(values)
        self._world.note(
            "outcome", values[0].decode(), f"{outcome.base_offset} {outcome.error and outcome.error.code}"
        )
        error = outcome.error
        if error is not None and error.code == ErrorCode.INVALID_TIMESTAMP and not self.may_refuse_times:
            raise Violation(f"{values[0]!r} is refused for its time: {error.message}")
        for position, value in enumerate(values):
            if value in self._acknowledged or value in self._refused:
                raise Violation(f"{value!r} has two outcomes")
            if outcome.error is None:
                self._acknowledged[value] = (tp, outcome.base_offset + position)
            elif not outcome.is_uncertain:
                self._refused.add(value)

    # Messages of actors.

    def on_received(self, host: ActorHost, event: Event) -> None:
        if type(event) is not Received or not host.address.startswith("coordinator/"):
            return
        request, now_ms = event.request, self._world.now_ms
        watch = self.groups.get(host.address.partition("/")[2])
        if watch is None:
            return  # a share group
        key = (event.sender.route, event.sender.id)
        if isinstance(request, GroupHeartbeat):
            watch.on_heartbeat(key, request, now_ms)
        elif isinstance(request, LeaveGroup):
            watch.on_left(request.member_id)
        elif isinstance(request, CommitOffsets):
            self._commits[key] = request
            is_late = not self._is_asker_alive(host, event.sender.route[0])
            for item in request.offsets:
                if is_late:
                    self._late_commits.add((request.group, item.topic, item.partition, item.offset))
                delivered = self.delivered[request.group, (item.topic, item.partition)]
                if item.offset > max(delivered, default=-1) + 1:
                    raise Violation(
                        f"{request.group} commits {item}, delivered up to {max(delivered, default=-1)}"
                    )

    def _is_asker_alive(self, host: ActorHost, peer: bytes) -> bool:
        connections = [socket.routes[peer] for socket in host.sockets if peer in socket.routes]
        return any(connection.dialler.host.is_alive for connection in connections)

    def on_reply(self, host: ActorHost, frames: list[Any]) -> None:
        kind = host.address.partition("/")[0]
        if kind == "gateway":
            return
        envelope, header, payload = split_envelope(frames[1:])
        reply = msgspec.msgpack.decode(header)
        if kind == "partition":
            self._on_partition_said(host, reply, payload)
        elif kind == "coordinator":
            self._on_coordinator_said(host, ((frames[0], *envelope), reply["id"]), reply)
        elif kind == "controller" and "producer_id" in reply:
            if reply["producer_id"] in self._producer_ids:
                raise Violation(f"the producer id {reply['producer_id']} is given away twice")
            self._producer_ids.add(reply["producer_id"])

    def _on_coordinator_said(self, host: ActorHost, key: RequestKey, reply: dict[str, Any]) -> None:
        group = host.address.partition("/")[2]
        commit = self._commits.pop(key, None)
        self._records.refresh()
        if "assignment" in reply:
            durable = self._records.generations[group]
            if reply["generation"] > durable:
                raise Violation(
                    f"{group}: the generation {reply['generation']} is told, durable is {durable}"
                )
            self.groups[group].on_told(key, reply, self._world.now_ms)
        elif commit is not None and "error" not in reply:
            for item in commit.offsets:
                if (group, item.topic, item.partition, item.offset) not in self._records.commits:
                    raise Violation(f"{group}: the commit of {item} is acknowledged and not durable")

    def _on_partition_said(self, host: ActorHost, reply: dict[str, Any], payload: Any) -> None:
        durable = host.disk.durable_end_offset
        if "high_watermark" not in reply:
            return
        high_watermark, before = reply["high_watermark"], self._high_watermarks[host.address]
        if high_watermark > durable:
            raise Violation(f"{host.name} shows the high watermark {high_watermark}, durable is {durable}")
        if high_watermark < before:
            raise Violation(f"{host.name}: the high watermark goes back from {before} to {high_watermark}")
        self._high_watermarks[host.address] = high_watermark
        for batch in reply.get("batches", ()):
            if batch["base_offset"] >= durable:
                raise Violation(f"{host.name} acknowledges {batch['base_offset']}, durable is {durable}")
        for run in payload:
            for header, _ in split(run):
                if header.next_offset > durable:
                    raise Violation(f"{host.name} shows {header.last_offset}, durable is {durable}")

    # Readers.

    def on_delivered(
        self, name: str, reader: str, tp: TopicPartition, epoch: int, offset: int, value: bytes
    ) -> None:
        if self._values.setdefault((tp, offset), value) != value:
            raise Violation(f"{tp} {offset} was {self._values[tp, offset]!r}, {reader} reads {value!r}")
        delivered = self.delivered[name, tp]
        before = self._read_up_to.get((reader, tp, epoch))
        if before is not None and offset != before + 1:
            raise Violation(f"{reader} reads {offset} of {tp} after {before}")
        if before is None and offset > max(delivered, default=-1) + 1:
            raise Violation(f"{reader} skips from {max(delivered, default=-1)} to {offset} of {tp}")
        self._read_up_to[reader, tp, epoch] = offset
        delivered.add(offset)

    # The end.

    def undelivered(self, name: str, topics: list[str]) -> str | None:
        """Return the first partition that a group or reader has not received completely, with its offsets."""
        for directory, disk in self._disks.partitions.items():
            topic, _, number = directory.rpartition("/")
            delivered = len(self.delivered[name, (topic, int(number))])
            if topic in topics and delivered < disk.end_offset:
                return f"{name}: {directory} has {disk.end_offset}, delivered {delivered}"
        return None

    def check_logs(self) -> None:
        found: dict[bytes, tuple[TopicPartition, int]] = {}
        for directory, disk in self._disks.partitions.items():
            topic, _, number = directory.rpartition("/")
            self._check_batches(directory, disk)
            for header, frame in disk.batches:
                for position, record in enumerate(decode_records(frame, header)):
                    at = ((topic, int(number)), header.base_offset + position)
                    if topic.startswith("__") or header.is_transactional:
                        continue
                    assert record[1] is not None
                    if record[1] in found:
                        raise Violation(f"{record[1]!r} is in the log twice: {found[record[1]]} and {at}")
                    found[record[1]] = at
            if topic == "__offsets":
                self._check_groups(directory, disk)
        self._check_outcomes(found)
        self._check_order(found)

    def _check_batches(self, directory: str, disk: PartitionDisk) -> None:
        expected, epoch = 0, -1
        writers: dict[int, int] = {}
        for header, frame in disk.batches:
            verify(frame)
            if header.base_offset != expected:
                raise Violation(f"{directory}: {header.base_offset} follows {expected}")
            if header.leader_epoch < epoch:
                raise Violation(f"{directory}: leader epoch {header.leader_epoch} after {epoch}")
            if header.is_control:
                # It may follow the first batch of the next transaction.
                expected, epoch = header.next_offset, header.leader_epoch
                continue
            if header.producer_epoch < writers.get(header.producer_id, -1):
                raise Violation(
                    f"{directory}: producer {header.producer_id} went back to {header.producer_epoch}"
                )
            writers[header.producer_id] = header.producer_epoch
            expected, epoch = header.next_offset, header.leader_epoch

    def _check_groups(self, directory: str, disk: PartitionDisk) -> None:
        committed: dict[tuple[Any, ...], int] = {}
        starts: dict[str, int] = {}
        for header, frame in disk.batches:
            for key, value, _, _ in decode_records(frame, header):
                assert key is not None
                name = tuple(msgspec.msgpack.decode(key))
                if value is None:
                    if name[0] in ("offset", "start"):
                        raise Violation(f"{directory}: {name} was deleted")
                elif name[0] == "start":
                    epoch = msgspec.msgpack.decode(value)["epoch"]
                    if epoch < starts.get(name[1], -1):
                        raise Violation(f"{directory}: {name[1]} start {epoch} after {starts[name[1]]}")
                    starts[name[1]] = epoch
                elif name[0] == "offset":
                    offset = msgspec.msgpack.decode(value)["offset"]
                    if offset < committed.get(name, 0) and (*name[1:], offset) not in self._late_commits:
                        at = header.base_offset
                        raise Violation(
                            f"{name} was committed up to {committed[name]}, then {offset} (at {at})"
                        )
                    committed[name] = offset

    def _check_outcomes(self, found: dict[bytes, tuple[TopicPartition, int]]) -> None:
        for value, at in self._acknowledged.items():
            if found.get(value) != at:
                raise Violation(f"{value!r} was acknowledged at {at} and is at {found.get(value)}")
        for value in self._refused:
            if value in found:
                raise Violation(f"{value!r} was refused for sure and is at {found[value]}")
        for (tp, offset), value in self._values.items():
            if found.get(value) != (tp, offset):
                raise Violation(f"{value!r} was read at {tp} {offset} and is at {found.get(value)}")

    def _check_order(self, found: dict[bytes, tuple[TopicPartition, int]]) -> None:
        for (producer, tp), values in self._published.items():
            offsets = [found[value][1] for value in values if value in found]
            if offsets != sorted(offsets):
                raise Violation(f"{producer}'s records are out of order in {tp}")

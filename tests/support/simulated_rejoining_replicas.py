"""Three replicas of a partition that was the source: it rejoins the topic that was promoted instead, with all faults.

At a moment of the schedule the other side turns out to have a prefix of the committed records, and writes on from there.
The mirror sets aside its other records, at the leader of that moment; the cuts are decided at a later one. Roles that
were sent before the topic rejoined arrive later, so that leaders take producers for a while. Beside the checks of
`simulated_mirrored_replicas.py`, these hold:

    kept      a committed record that the other side does not have was set aside before the topic follows
    gone      then no replica leads with such a record, and in the end each log is the other side's
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from planaria.transport.batch import BatchHeader, decode_records, parse_header, stamp
from planaria.transport.protocol.data import FetchReply
from planaria.transport.protocol.mirrored import FORK_EPOCHS, Cut, Fork, TopicMirror
from planaria.transport.protocol.mirrors import RejoinPartition, RejoinPartitionReply
from simulated_mirrored_replicas import MIRROR, NAMES, MirroredWorld
from simulated_replicas import Node, ReplicaChecks, ReplicaWorld, Violation, a_batch, run


class _Checks(ReplicaChecks):
    """Records that are set aside may be gone, and older leaders may still have them."""

    def __init__(self, world: "RejoiningWorld") -> None:
        super().__init__(world)
        self.aside: set[bytes] = set()
        self.copied_again: set[bytes] = set()

    def _commit(self, node: Node, high_watermark: int) -> None:
        committed = dict(self.committed)
        for header, frame in node.disk.batches:
            if header.next_offset <= high_watermark and frame in self.aside:
                self.committed[header.base_offset] = frame
        super()._commit(node, high_watermark)
        for offset in [each for each, frame in self.committed.items() if frame in self.aside]:
            if offset in committed:
                self.committed[offset] = committed[offset]
            else:
                del self.committed[offset]

    def on_leads(self, node: Node) -> None:
        kept, excused = self.committed, self.aside | self.copied_again
        self.committed = {offset: frame for offset, frame in kept.items() if frame not in excused}
        super().on_leads(node)
        self.committed = kept

    def on_acknowledged(self, offset: int, value: bytes) -> None:
        if not any(value == record[1] for frame in self.aside for record in _records(frame)):
            super().on_acknowledged(offset, value)

    def give_up(self, offset: int) -> None:
        """The topic follows: check that its own committed records are set aside, and forget them."""
        kept = self.aside | self.copied_again
        lost = [each for each, frame in self.committed.items() if each >= offset and frame not in kept]
        if lost:
            raise Violation(f"the committed records at {sorted(lost)[:5]} are cut, and not set aside")
        self.committed = {each: frame for each, frame in self.committed.items() if each < offset}
        self.committed_end = min(self.committed_end, offset)


class RejoiningWorld(MirroredWorld):
    checks: _Checks

    def __init__(self, seed: int) -> None:
        super().__init__(seed, None)
        self.checks = _Checks(self)
        self.begins_at = self.draw.randint(20, 300)
        self.is_whole = self.draw.random() < 0.25
        self.steps = self.asked = 0
        self.decided: tuple[Cut, ...] = ()
        """Cuts that the controller has not stored yet."""

    @property
    def _rejoins(self) -> TopicMirror | None:
        return self.mirror if self.mirror is not None and self._state == "rejoining" else None

    def step(self) -> None:
        self.steps += 1
        if self.steps >= self.begins_at and self.mirror is None:
            self.begin()
        super().step()

    def begin(self) -> None:
        """Let the topic rejoin one that has a prefix of its committed records."""
        committed = sorted(self.checks.committed.items())
        count = self.draw.randint(0, len(committed))
        self.source = [(parse_header(frame), frame) for _, frame in committed[:count]]
        last_epoch = self.source[-1][0].leader_epoch if self.source else -1
        if count < len(committed) and last_epoch >= 0 and self.draw.random() < 0.5:
            # This side lost its end once, and wrote on in a later epoch.
            is_free = (last_epoch, self.source_end) not in self.checks._batches
            if parse_header(committed[count][1]).leader_epoch > last_epoch and is_free:
                self._write_there(last_epoch)
        self.source_epoch = last_epoch + FORK_EPOCHS
        fork = Fork(
            partition=0, offset=self.source_end, leader_epoch=last_epoch, first_epoch=self.source_epoch
        )
        self.mirror = TopicMirror(mirror="m", state="rejoining", source_forks=(fork,))

    def _write_there(self, leader_epoch: int) -> None:
        frame = bytes(stamp(a_batch(b"%d" % self.next_number()), self.source_end, leader_epoch))
        self.source.append((parse_header(frame), frame))

    def produce(self) -> None:
        if self.mirror is None or (self._rejoins is not None and self.draw.random() < 0.4):
            ReplicaWorld.produce(self)
        elif self._rejoins is not None:
            self.rejoin()
        else:
            super().produce()

    def produce_to_the_leader(self) -> None:
        if self.mirror is not None:
            super().produce_to_the_leader()

    # -- the mirror

    def rejoin(self) -> None:
        """Let the mirror ask, or the controller store its decision."""
        mirror = self._rejoins
        assert mirror is not None
        if self.draw.random() < 0.1:
            self._write_there(self.source_epoch)
        if self.draw.random() < 0.05:
            # The mirror is deleted, and another one goes on.
            given_up = (*mirror.given_up, *mirror.cuts)
            self.mirror = mirror = msgspec.structs.replace(mirror, cuts=(), given_up=given_up)
            self.decided = ()
        if self.decided:
            self.mirror = msgspec.structs.replace(mirror, cuts=self.decided)
            self.decided = ()
            return
        request = RejoinPartition(**NAMES, mirror=mirror)
        self.asked = self.next_number()
        self.send(MIRROR, self.record.leader, ("request", 0, self.asked, request, ()))

    def _deliver_reply(self, target: str, incarnation: int, number: int, body: Any, payload: Any) -> None:
        mirror = self._rejoins
        if isinstance(body, RejoinPartitionReply) and number == self.asked and mirror is not None:
            self._on_bounds(mirror, body)
        else:
            super()._deliver_reply(target, incarnation, number, body, payload)

    def _on_bounds(self, mirror: TopicMirror, bounds: RejoinPartitionReply) -> None:
        if not bounds.is_done and mirror.cuts:
            self.mirror = msgspec.structs.replace(mirror, cuts=())
        elif bounds.is_done and (mirror.cuts or not self.is_whole):
            self._follow(mirror, bounds)
        elif self._set_aside(bounds):
            cut = Cut(
                partition=0,
                offset=bounds.cut_offset,
                end_offset=bounds.log_end_offset,
                last_epoch=bounds.last_epoch,
                is_whole=self.is_whole,
            )
            self.decided = (cut,)
            if self.is_whole:
                self.checks.copied_again = {frame for _, frame in self.source}

    def _set_aside(self, bounds: RejoinPartitionReply) -> bool:
        """Read the records from the present leader. Return False if it does not show all of them."""
        leader = self.nodes[self.record.leader]
        if leader.loop is None or leader.machine._role.watermarks.high_watermark < bounds.log_end_offset:
            return False
        self.checks.aside |= {
            frame
            for header, frame in leader.disk.batches
            if bounds.cut_offset <= header.base_offset < bounds.log_end_offset
        }
        return True

    def _follow(self, mirror: TopicMirror, bounds: RejoinPartitionReply) -> None:
        cut = mirror.cut_of(0)
        first = bounds.cut_offset if cut is None else cut.offset
        # A log that is copied again as a whole is not complete here if the topic is promoted before.
        self.checks.give_up(0 if self.is_whole and cut is not None else first)
        for offset in [each for each in self.acknowledged if each >= self.checks.committed_end]:
            del self.acknowledged[offset]
        self.mirror = TopicMirror(
            mirror="m", source_forks=mirror.source_forks, given_up=(*mirror.given_up, *mirror.cuts)
        )

    # -- the end

    def pass_time(self, duration_ms: int) -> None:
        super().pass_time(duration_ms)
        if self.is_quiet and self.mirror is None:
            self.begin()
        elif self.is_quiet and self._rejoins is not None:
            self.rejoin()

    def _on_answer(self, number: int, body: Any) -> None:
        # An older leader may show more than is committed now.
        if isinstance(body, FetchReply):
            self.unseen.pop(number, None)
        else:
            super()._on_answer(number, body)

    def check_copies(self) -> None:
        if self._state not in ("following", "promoted"):
            raise Violation(f"the topic does not follow at the end: {self._state}")
        super().check_copies()


def _records(frame: bytes) -> Iterator[Any]:
    header: BatchHeader = parse_header(frame)
    if not header.is_control:
        yield from decode_records(frame, header)


def simulate_rejoining(seed: int, steps: int = 400) -> RejoiningWorld:
    """Run one schedule. Raises Violation."""
    world = run(RejoiningWorld(seed), seed, steps)
    world.check_copies()
    return world

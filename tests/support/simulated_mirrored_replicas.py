"""Three replicas of a partition that follows one of another broker, and may be promoted, with the faults of the replicas.

The source is a list of batches whose leader epochs rise as they like: they are far above and below those of the replicas.
The mirror sends the next batches to the replica that it takes for the leader, as one or two processes. Beside the
checks of the replicas (`simulated_replicas.py`), these hold:

    copy        the part of each log that was not written here is a prefix of the source, byte by byte
    held        an end that a partition answers to the mirror is committed
    promoted    records of producers have an epoch of the promoted partition, and every replica has the same fork
"""

from typing import Any

import msgspec

from planaria.transport.batch import BatchHeader, parse_header, stamp
from planaria.transport.protocol.mirrored import TopicMirror
from planaria.transport.protocol.mirrors import MirrorAppend, MirrorAppendReply, SealMirror, SealMirrorReply
from simulated_replicas import NODES, ReplicaWorld, Violation, a_batch, run

MIRROR = "mirror"
FOLLOWS = TopicMirror(mirror="m")
MOST_CLAIMS = 500
"""More leaders than there are in one schedule."""
NAMES: Any = {"topic": "ORDERS", "topic_id": "t1", "partition": 0}


class MirroredWorld(ReplicaWorld):
    def __init__(self, seed: int, mirror: TopicMirror | None = FOLLOWS) -> None:
        super().__init__(seed, mirror)
        self.source: list[tuple[BatchHeader, bytes]] = []
        self.source_epoch = self.draw.choice([0, 0, 7, 5_000])
        self.is_promoted_at_the_end = self.draw.random() < 0.6

    @property
    def source_end(self) -> int:
        return self.source[-1][0].next_offset if self.source else 0

    # -- the source and the mirror

    def produce(self) -> None:
        """Let the source grow, or the mirror send, or a producer try."""
        kind = self.draw.random()
        if kind < 0.3:
            super().produce()
        elif kind < 0.6:
            self.grow()
        else:
            self.copy(self.record.leader if self.draw.random() < 0.8 else self.draw.choice(NODES))

    def grow(self) -> None:
        if self.draw.random() < 0.1:
            self.source_epoch += self.draw.choice([1, 2, 900])
        values = [b"%d" % self.next_number() for _ in range(self.draw.randint(1, 3))]
        frame = bytes(stamp(a_batch(*values), self.source_end, self.source_epoch))
        self.source.append((parse_header(frame), frame))

    def copy(self, target: str) -> None:
        node = self.nodes[target]
        if node.loop is None:
            return
        end = node.machine._role.log_end_offset
        following = [frame for header, frame in self.source if header.base_offset >= end]
        batches = following[: self.draw.randint(0, 3)]
        request = MirrorAppend(**NAMES, offset=end if batches else -1, source_high_watermark=self.source_end)
        payload = (b"".join(batches),) if batches else ()
        self.send(MIRROR, target, ("request", 0, self.next_number(), request, payload))

    def _deliver_reply(self, target: str, incarnation: int, number: int, body: Any, payload: Any) -> None:
        if isinstance(body, MirrorAppendReply) and body.log_end_offset > self.checks.committed_end:
            raise Violation(f"{body.log_end_offset} is answered to the mirror, before it is committed")
        is_fork = isinstance(body, SealMirrorReply) and body.leader_epoch == self.record.leader_epoch
        if is_fork and self._state == "sealed":
            assert self.mirror is not None
            self.mirror = msgspec.structs.replace(self.mirror, state="promoted", forks=(body.fork,))
        super()._deliver_reply(target, incarnation, number, body, payload)

    # -- promotion

    @property
    def _state(self) -> str:
        return "" if self.mirror is None else self.mirror.state

    def claim(self) -> None:
        super().claim()
        is_wanted = self.is_quiet or self.draw.random() < 0.1
        if self.is_promoted_at_the_end and self._state in ("following", "sealed") and is_wanted:
            self.promote()

    def promote(self) -> None:
        """Seal, durably, and ask for the fork; the answer promotes."""
        self.mirror = msgspec.structs.replace(self.mirror, state="sealed")
        for name in NODES:
            self.assign(name)
        seal = SealMirror(**NAMES)
        self.send("controller", self.record.leader, ("request", 0, self.next_number(), seal, ()))

    def produce_to_the_leader(self) -> None:
        if self._state == "promoted":
            super().produce_to_the_leader()
        elif self._state == "following":
            self.grow()

    def pass_time(self, duration_ms: int) -> None:
        super().pass_time(duration_ms)
        if self.is_quiet and self._state == "following":
            self.copy(self.record.leader)

    # -- the checks

    def check_copies(self) -> None:
        """Compare the logs, which are equal, with the source."""
        log = self.nodes["a"].disk.batches
        assert self.mirror is not None
        if self._state == "following":
            assert [frame for _, frame in log] == [frame for _, frame in self.source]
            assert self.record.leader_epoch < MOST_CLAIMS, (
                "the source's epochs count as those of leaders here"
            )
            return
        first = self.mirror.first_epoch(0)
        copied = [frame for header, frame in log if header.leader_epoch < first]
        assert copied == [frame for _, frame in self.source[: len(copied)]], "another prefix"
        assert all(header.leader_epoch >= first for header, _ in log[len(copied) :])
        assert self.mirror.forks[0].offset == (log[len(copied) - 1][0].next_offset if copied else 0)


def simulate_mirrored(seed: int, steps: int = 400) -> MirroredWorld:
    """Run one schedule. Raises Violation."""
    world = run(MirroredWorld(seed), seed, steps)
    world.check_copies()
    return world

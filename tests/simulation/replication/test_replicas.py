"""Replication under faults: three replicas, elections at any time, processes that die anywhere, links that lose messages.

`simulated_replicas.py` has the world and the invariants. A failing seed is replayed by
`pytest tests/simulation/replication --replica-seed N`. The simulator is tested as well: it finds each planted bug.
"""

from collections.abc import Callable
from typing import Any
from unittest import mock

import msgspec
import pytest

from memory_log import MemoryLog
from planaria.actors.controller.cluster import elections
from planaria.actors.log.errors import LogError
from planaria.actors.partition.effects import CutLog
from planaria.actors.partition.follower import CommittedRecordsMissing, Follower
from planaria.actors.partition.in_sync import DurableReported, InSync
from planaria.actors.partition.replica_fetches import ReplicaFetches
from planaria.actors.partition.replicas import Replicas
from planaria.actors.partition.replication import Watermarks
from planaria.transport.protocol.errors import ErrorCode
from planaria.transport.protocol.replication import Member
from simulated_replicas import Violation, simulate

BUG_SEEDS = 2_000
FIRST_SEEDS = {"epoch not checked on a fetch": 4_040}
"""Where the search begins, for a bug that one seed in many hundreds shows."""


def test_nothing_acknowledged_is_lost_and_all_logs_agree(replica_seeds: list[int]) -> None:
    acknowledged = epochs = 0
    for seed in replica_seeds:
        try:
            world = simulate(seed)
        except Exception as error:
            error.add_note(f"replay: pytest tests/simulation/replication --replica-seed {seed}")
            raise
        acknowledged += len(world.acknowledged)
        epochs += world.record.leader_epoch
    assert acknowledged >= 3 * len(replica_seeds), "the schedules leave time to acknowledge"
    assert epochs >= 3 * len(replica_seeds), "leaders change"


@pytest.mark.chaos
def test_many_schedules(many_replica_seeds: list[int]) -> None:
    test_nothing_acknowledged_is_lost_and_all_logs_agree(many_replica_seeds)


def _same_epoch_after_a_restart() -> Any:
    def lead(self: MemoryLog, leader_epoch: int) -> None:
        self._disk.leader_epoch = self.leader_epoch = leader_epoch

    def claimed(record: Any, process: str, used_epoch: int) -> Any:
        epoch = (
            record.leader_epoch if record.claim.startswith(f"{record.leader}/") else record.leader_epoch + 1
        )
        return msgspec.structs.replace(record, leader_epoch=epoch, claim=process)

    return mock.patch.multiple(MemoryLog, lead=lead), mock.patch.object(elections, "claimed", claimed)


def _smaller_set_counts() -> Any:
    def counting(self: InSync) -> Any:
        return self.in_sync if self._proposal is None else self.in_sync.intersection(self._proposal.in_sync)

    return (mock.patch.object(InSync, "_counting", counting),)


def _cut_to_the_high_watermark() -> Any:
    def start(self: Follower, now: int) -> Any:
        offset = min(self.watermarks.high_watermark, self.watermarks.written_offset)
        return [CutLog(offset)] if offset < self.watermarks.written_offset else [self._fetch()]

    return (mock.patch.object(Follower, "start", start),)


def _epoch_of_a_fetch_is_not_checked() -> Any:
    real = ReplicaFetches.refusal

    def refusal(self: ReplicaFetches, request: Any, is_replica: bool) -> Any:
        found = real(self, request, is_replica)
        is_of_epoch = found is not None and found.code in (
            ErrorCode.FENCED_LEADER_EPOCH,
            ErrorCode.UNKNOWN_LEADER_EPOCH,
        )
        return None if is_of_epoch else found

    def on_durable_reported(self: Replicas, request: Any, now: int) -> Any:
        return self._handle(
            DurableReported(Member(request.replica, request.data_id), request.durable_offset), now
        )

    return (
        mock.patch.object(ReplicaFetches, "refusal", refusal),
        mock.patch.object(Replicas, "on_durable_reported", on_durable_reported),
    )


def _divergence_is_not_checked() -> Any:
    return (mock.patch.object(ReplicaFetches, "divergence", return_value=None),)


def _ends_are_compared_without_epochs() -> Any:
    def is_at_end(self: ReplicaFetches, request: Any) -> bool:
        is_of_epoch = request.leader_epoch == self._leader_epoch
        return is_of_epoch and request.fetch_offset == self._watermarks.written_offset

    return (mock.patch.object(ReplicaFetches, "is_at_end", is_at_end),)


def _acknowledged_by_the_leader_alone() -> Any:
    def held(self: Watermarks, _: Any) -> int:
        return self.durable_offset

    return (mock.patch.object(Watermarks, "held", held),)


def _joins_anywhere() -> Any:
    def may_join(self: InSync, member: Any, _: Any) -> bool:
        return member not in self.in_sync

    return (mock.patch.object(InSync, "_may_join", may_join),)


def _advances_below_the_minimum() -> Any:
    real = InSync._advance

    def advance(self: InSync) -> None:
        self._stands_still = self.is_fenced
        real(self)

    return (mock.patch.object(InSync, "_advance", advance),)


def _written_counts_as_durable() -> Any:
    real = Follower._fetch

    def fetch(self: Follower, sync_ms: int | None = None) -> Any:
        durable, self.watermarks.durable_offset = (
            self.watermarks.durable_offset,
            self.watermarks.written_offset,
        )
        found = real(self, sync_ms)
        self.watermarks.durable_offset = durable
        return found

    return (mock.patch.object(Follower, "_fetch", fetch),)


def _any_replica_is_elected() -> Any:
    def successor(record: Any, live: Any, minimum: int) -> Any:
        node = next((each for each in record.replicas if each in live), None)
        return None if node is None else elections.forced(record, live, node)

    return (mock.patch.object(elections, "successor", successor),)


PLANTED: dict[str, Callable[[], Any]] = {
    "the same epoch after a leader's restart": _same_epoch_after_a_restart,
    "high watermark over the smaller set": _smaller_set_counts,
    "truncation to the high watermark": _cut_to_the_high_watermark,
    "epoch not checked on a fetch": _epoch_of_a_fetch_is_not_checked,
    "divergence not checked": _divergence_is_not_checked,
    "logs of equal length count as equal": _ends_are_compared_without_epochs,
    "acknowledged by the leader alone": _acknowledged_by_the_leader_alone,
    "a replica joins below the high watermark": _joins_anywhere,
    "the high watermark moves below the minimum": _advances_below_the_minimum,
    "written counts as durable": _written_counts_as_durable,
    "any replica is elected": _any_replica_is_elected,
}


@pytest.mark.parametrize("bug", PLANTED)
def test_the_simulator_finds_planted_bugs(bug: str) -> None:
    patches = PLANTED[bug]()
    for patch in patches:
        patch.start()
    try:
        first = FIRST_SEEDS.get(bug, 0)
        found = next((seed for seed in range(first, first + BUG_SEEDS) if _is_found(seed)), None)
        assert found is not None, "the simulator does not find it"
    finally:
        for patch in patches:
            patch.stop()


def _is_found(seed: int) -> bool:
    try:
        simulate(seed)
    except (Violation, AssertionError, CommittedRecordsMissing, LogError):
        return True
    return False

"""A group replayed from a compacted log equals the original: same members, offsets, generation, fence."""

import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from example_counts import examples
from keyed_logs import compact, seal
from log_batches import NOW_MS, abandon, unlimited
from planaria.actors.controller.groups import OFFSETS_CONFIG
from planaria.actors.coordinator import machine as machine_module
from planaria.actors.coordinator.snapshot import decode_snapshot, encode_snapshot
from planaria.actors.coordinator.state import GroupState
from planaria.actors.journal.replay import SNAPSHOT_AGE_MS
from planaria.actors.journal.snapshot import Snapshot
from planaria.actors.log.log import PartitionLog
from planaria.transport.batch import parse_header, split
from planaria.transport.protocol.groups import CommitOffsets, DeleteGroup, PartitionOffset
from simulated_group import GROUP, SimulatedGroup, SimulatedMember, converge


def written_to_disk(group: SimulatedGroup, directory: Path, segment_bytes: int) -> PartitionLog:
    """Return the simulated log as a real one."""
    config = unlimited(
        segment_bytes=segment_bytes, is_compacting=True, is_deleting=False, delete_retention_ms=1_000
    )
    log = PartitionLog.open(directory, config, NOW_MS)
    for batch in group.log.batches:
        log.append([batch], [parse_header(batch)], NOW_MS)
    return log


def batches_of(log: PartitionLog, end: int) -> list[bytes]:
    found: list[bytes] = []
    offset = 0
    while offset < end:
        run, offset = log.read(offset, 1 << 20, end)
        found += [bytes(frame) for _, frame in split(run)]
    return found


def compact_some(
    group: SimulatedGroup,
    directory: Path,
    slices: int | None,
    segment_bytes: int,
    *,
    are_tombstones_old: bool = True,
) -> None:
    """Replace the group's log by the output of a compaction pass; with `slices`, of an unfinished one."""
    end = group.log.end
    log = written_to_disk(group, directory, segment_bytes)
    seal(log)
    if slices is None:
        compact(log)
        if are_tombstones_old:
            compact(log, NOW_MS + 1_000)
    else:
        for _ in range(slices):
            log.compact(NOW_MS, 1)
    group.log.batches = batches_of(log, end)
    abandon(log)


def a_history(draw: random.Random, group: SimulatedGroup) -> None:
    members = [SimulatedMember(group, name, instance_id=name) for name in "abc"]
    for _ in range(draw.randint(3, 12)):
        step = draw.randrange(5)
        member = draw.choice(members)
        if step == 0:
            converge(members[: draw.randint(1, 3)])
        elif step == 1 and member.owned:
            for number in range(draw.randint(1, 5)):
                member.commits(*min(member.owned), number)
        elif step == 2:
            group.advance(draw.choice([1_000, 20_000]))
            group.drain()
        elif step == 3:
            group.crash(is_append_durable=draw.random() < 0.5)
            group.drain()
        else:
            group.set_topics(
                {"ORDERS": draw.randint(6, 8)} if draw.random() < 0.5 else {"OTHER": 2, "ORDERS": 6}
            )
            group.drain()


def content(state: GroupState) -> dict[object, object]:
    return {change.key: change.value for change in state.changes()}


@examples(40)
@given(st.randoms(use_true_random=False), st.none() | st.integers(0, 60), st.sampled_from([300, 2_000]))
def test_replaying_the_compacted_log_gives_the_same_state(
    draw: random.Random, slices: int | None, segment_bytes: int
) -> None:
    group = SimulatedGroup().run()
    a_history(draw, group)
    group.drain()
    group.start(with_snapshot=False)
    group.drain()
    before = content(group.state)
    original = list(group.log.batches)
    with tempfile.TemporaryDirectory() as directory:
        compact_some(group, Path(directory), slices, segment_bytes)
    assert len(group.log.batches) <= len(original)
    started = group.state.start.epoch
    group.start(with_snapshot=False)
    group.drain()
    assert group.is_ready
    after = content(group.state)
    start_key = next(key for key in after if type(key).__name__ == "StartKey")
    assert after.pop(start_key).epoch == started + 1  # type: ignore[attr-defined]
    before.pop(start_key)
    assert after == before


def test_a_log_that_is_compacted_while_it_is_read(tmp_path: Path) -> None:
    """An older record of a key is read; the next one is dropped before the reader reaches it, as a third is newer."""
    for seed in range(10):
        group = SimulatedGroup().run()
        draw = random.Random(seed)
        members = [SimulatedMember(group, name) for name in "ab"]
        for _ in range(6):
            converge(members)
            draw.choice(members).turn()
            leaver = members.pop(0)
            leaver.leave()
            group.drain()
            members.append(SimulatedMember(group, f"m{draw.random()}"))
            converge(members)
        expected = content(group.state)
        group.start(with_snapshot=False)
        group.answer(group.answerable()[0])  # the first few batches are read
        compact_some(group, tmp_path / str(seed), None, 300, are_tombstones_old=False)
        group.drain()
        assert group.is_ready
        found = content(group.state)
        assert {key: value for key, value in found.items() if type(key).__name__ != "StartKey"} == {
            key: value for key, value in expected.items() if type(key).__name__ != "StartKey"
        }


def test_the_offsets_topic_keeps_its_tombstones_for_longer_than_a_snapshot_is_used() -> None:
    assert OFFSETS_CONFIG.delete_retention_ms >= 2 * SNAPSHOT_AGE_MS


def test_a_snapshot_older_than_the_tombstones_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_module, "SNAPSHOT_RECORDS", 1)
    group = SimulatedGroup().run()
    group.request("x", CommitOffsets(group=GROUP, offsets=[PartitionOffset("ORDERS", 0, 7)]))
    snapshot = group.snapshot
    assert snapshot is not None
    group.request("x", DeleteGroup(group=GROUP))
    for age_ms, is_used in ((SNAPSHOT_AGE_MS, True), (SNAPSHOT_AGE_MS + 1, False), (-1, False)):
        stored = decode_snapshot(snapshot, GROUP)
        assert stored is not None
        group.snapshot, group.now = snapshot, stored.taken_at_ms + age_ms
        group.start()
        assert (group.calls[0].request.offset > 0) == is_used


def test_a_snapshot_that_is_not_used_is_replaced_at_once() -> None:
    """A snapshot from the future would look young again later, without the tombstones compacted since."""
    group = SimulatedGroup().run()
    group.request("x", CommitOffsets(group=GROUP, offsets=[PartitionOffset("ORDERS", 0, 7)]))
    group.snapshot = encode_snapshot(group.state, group.machine._mark, group.now)
    group.boot(-500_000)
    group.drain()
    assert group.snapshot is not None
    stored = decode_snapshot(group.snapshot, GROUP)
    assert stored is not None
    assert stored.taken_at_ms == group.now


def test_a_snapshot_from_before_it_said_its_age_is_not_used() -> None:
    group = SimulatedGroup().run()
    data = encode_snapshot(group.state, group.machine._mark, 0)
    stored = decode_snapshot(data, GROUP)
    assert isinstance(stored, Snapshot)
    group.snapshot, group.now = data, NOW_MS
    group.start()
    assert group.calls[0].request.offset == 0

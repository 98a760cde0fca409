"""A former source that rejoins the promoted topic: everything at random, and the cases that need care."""

from typing import Any

import pytest
from msgspec.structs import replace

from planaria.actors.mirror import rejoining
from planaria.transport.protocol.data import Produce
from planaria.transport.protocol.errors import ErrorCode
from planaria.transport.protocol.mirrored import Cut, TopicMirror
from planaria.transport.protocol.mirrors import MirrorAppend, RejoinPartition
from planaria.transport.protocol.topics import DeleteRecords, TopicConfig
from simulated_failback import FailbackWorld, parted
from simulated_mirror import NAMES, MirrorWorld
from simulated_partition import a_batch

FOUND = (20_436, 21_511)
"""Seeds that find the cut of an attempt whose topic of records was lost, and made again for another attempt."""


@pytest.fixture(autouse=True)
def few_bytes_a_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read one or two batches at a time."""
    monkeypatch.setattr(rejoining, "READ_BYTES", 150)


def run(seed: int, steps: int) -> None:
    world = parted(seed, steps)
    world.loss = world.draw.choice([0.0, 0.05, 0.3])
    for _ in range(steps):
        world.step()
    world.settle()
    assert world.has_rejoined
    assert not world.faults
    # The former source may have deleted records that the promoted side still has.
    start = max(world.source.log_start_offset, world.copy.log_start_offset)
    source, copy = (
        [frame for header, frame in side.log if header.next_offset > start]
        for side in (world.source, world.copy)
    )
    assert copy == source
    assert not world.diverged.machine._role._transactions.open()


@pytest.mark.parametrize("seed", FOUND)
def test_cuts_of_an_attempt_that_has_filled_another_topic_are_refused(seed: int) -> None:
    run(seed, 100)


@pytest.mark.parametrize("seed", range(12))
def test_the_former_source_becomes_the_copy_and_loses_nothing(seed: int) -> None:
    run(seed, 30)


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(12, 1_000))
def test_the_former_source_becomes_the_copy_and_loses_nothing_for_long(seed: int) -> None:
    run(seed, 100)


def before_loss(*, config: TopicConfig | None = None) -> MirrorWorld:
    """Return a source with three copied batches, two that were not copied, and its link cut."""
    world = MirrorWorld(config=config)
    for value in (b"a", b"b", b"c"):
        world.produce(value, producer=1)
    world.settle()
    world.is_cut = True
    world.crash_source()
    for value in (b"x", b"y"):
        world.produce(value, producer=1)
    return world


def rejoined(before: MirrorWorld) -> FailbackWorld:
    fork, _ = before.promote()
    world = FailbackWorld(before, fork)
    world.produce(b"new")
    world.settle()
    assert world.has_rejoined
    assert not world.faults
    return world


def test_only_records_beyond_the_fork_are_set_aside_and_a_producer_goes_on() -> None:
    world = rejoined(before_loss())
    assert [header.base_offset for header, _ in world.diverged.log] == [3, 4]
    assert world.diverged.log_start_offset == 3
    assert world.copy.log == world.source.log
    world.promote()
    sequenced = {"producer_id": 1, "producer_epoch": 0}
    # The sequence is that of the promoted side: it never had the batches that were set aside.
    reply = world.ask_copy(
        Produce(topic="ORDERS", partition=0), [a_batch(b"d", base_sequence=3, **sequenced)]
    )
    assert reply.batches[0].base_offset == 4


def test_a_source_that_lost_its_end_and_wrote_on_is_cut_before_the_fork() -> None:
    before = before_loss()
    before.lose_tail(2)
    for _ in range(4):
        before.produce(b"other")
    world = rejoined(before)
    assert [header.base_offset for header, _ in world.diverged.log] == [2, 3, 4, 5]
    assert world.copy.log == world.source.log


def test_a_compacted_topic_is_copied_whole() -> None:
    """Compaction has removed a record for one beyond the fork."""
    before = before_loss(config=TopicConfig(cleanup="compact"))
    del before.source.log[1]
    before.source.durable_count = len(before.source.log)
    before.source.disk.may_have_gaps = True
    world = rejoined(before)
    assert [header.base_offset for header, _ in world.diverged.log] == [3, 4]
    assert world.copy.log == world.source.log


def test_without_records_beyond_the_fork_nothing_is_made() -> None:
    world = MirrorWorld()
    world.produce(b"a")
    world.settle()
    world.crash_source()
    after = rejoined(world)
    assert after.entry.diverged == ""
    assert after.copy.log == after.source.log


def test_a_partition_that_rejoins_takes_neither_producers_nor_copies() -> None:
    world = before_loss()
    fork, _ = world.promote()
    mirror = TopicMirror(mirror="back", state="rejoining", source_forks=(fork,))
    world.source.mirror, request = mirror, RejoinPartition(**NAMES, mirror=mirror)

    def asked(request: Any, payload: Any = ()) -> Any:
        reply = world.source.ask(request, payload)
        assert reply is not None
        return reply.body

    assert asked(request).code == ErrorCode.PARTITION_OFFLINE
    reply = asked(request)
    assert (reply.cut_offset, reply.log_end_offset, reply.is_done) == (3, 5, False)
    produce = Produce(topic="ORDERS", partition=0)
    assert asked(produce, [a_batch(b"x")]).code == ErrorCode.TOPIC_IS_MIRRORED
    assert asked(MirrorAppend(**NAMES, offset=5)).code == ErrorCode.NOT_MIRRORED
    world.source.crash()
    reply = asked(request)
    assert (reply.cut_offset, reply.log_end_offset, reply.is_done) == (3, 5, False)
    # More is in the log than was set aside: nothing is cut.
    cut = Cut(partition=0, offset=3, end_offset=4, last_epoch=reply.last_epoch)
    assert asked(replace(request, mirror=replace(mirror, cuts=(cut,)))) == reply
    world.source.mirror = replace(mirror, cuts=(replace(cut, end_offset=5),))
    request = replace(request, mirror=world.source.mirror)
    assert asked(request).code == ErrorCode.PARTITION_OFFLINE
    assert asked(request).is_done
    assert world.source.log_end_offset == 3
    late = replace(request, mirror=replace(mirror, mirror="m"))
    world.copy.mirror = TopicMirror(mirror="m", state="promoted", forks=(fork,))
    assert world.ask_copy(late).code == ErrorCode.NOT_MIRRORED


def test_an_empty_log_that_starts_inside_a_batch_begins_with_that_batch() -> None:
    """The former source had deleted the first record of a batch, and lost the batch."""
    before = MirrorWorld()
    before.produce(b"a", b"b", b"c")
    before.settle()
    before.source.ask(DeleteRecords(topic="ORDERS", partition=0, before_offset=1))
    before.is_cut = True
    before.lose_tail(0)
    assert before.source.log_end_offset == 1
    world = rejoined(before)
    assert world.copy.log == world.source.log

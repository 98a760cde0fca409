"""The log against a list, under random appends, rolls, deletions, kills, power cuts and full disks."""

import random
import shutil
import tempfile
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from example_counts import examples
from faulty_files import FaultyFiles
from log_batches import NOW_MS, abandon, batch, contents, open_log, unlimited
from planaria.actors.log.errors import StorageFull
from planaria.actors.log.producers import Accept, Duplicate

PRODUCER = 9


class LogAgainstList(RuleBasedStateMachine):
    """`self.values[i]` is the value at offset i; values above `self.synced` may be lost by a power cut."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="planaria-log-"))
        self.values: list[bytes] = []
        self.sequences: list[int] = []  # the first sequence of each of our batches
        self.ends: list[int] = []  # the offset after each batch
        self.start = 0
        self.synced = 0
        self.clock_ms = NOW_MS

    @initialize(segment_bytes=st.sampled_from([150, 400, 3000]))
    def begin(self, segment_bytes: int) -> None:
        self.config = unlimited(segment_bytes=segment_bytes)
        self._open()

    def _open(self) -> None:
        self.files = FaultyFiles()
        self.log = open_log(
            self.directory, self.files, self.clock_ms, segment_bytes=self.config.segment_bytes
        )

    @rule(counts=st.lists(st.integers(1, 4), min_size=1, max_size=5), size=st.integers(0, 200))
    def append(self, counts: list[int], size: int) -> None:
        self.clock_ms += 10
        frames, headers = [], []
        offset, values = self.log.log_end_offset, []
        for count in counts:
            new = [b"%d." % (offset + index) + b"x" * size for index in range(count)]
            frame, header = batch(
                offset,
                new,
                timestamps_ms=[self.clock_ms] * count,
                producer_id=PRODUCER,
                producer_epoch=0,
                base_sequence=offset,
            )
            frames.append(frame)
            headers.append(header)
            values += new
            offset += count
        for header in headers:
            assert self.log.producers.check(header) == Accept()
            self.log.producers.apply(header)
        try:
            self.log.append(frames, headers, self.clock_ms)
        except StorageFull:
            assert self.files.space_bytes is not None
            return
        self.values += values
        self.ends += [header.next_offset for header in headers]

    @rule()
    def sync(self) -> None:
        self.log.sync()
        self.synced = len(self.values)

    @rule()
    def checkpoint(self) -> None:
        self.log.checkpoint()
        self.synced = len(self.values)

    @rule(fraction=st.floats(0, 1))
    def delete_before(self, fraction: float) -> None:
        offset = self.start + int((len(self.values) - self.start) * fraction)
        try:
            self.log.delete_before(offset)
        except StorageFull:
            assert self.files.space_bytes is not None
        else:
            self.start = max(self.start, offset)

    @rule(age_ms=st.integers(0, 200))
    def retain(self, age_ms: int) -> None:
        self.log.reconfigure(unlimited(segment_bytes=self.config.segment_bytes, retention_ms=age_ms))
        start = self.log.apply_retention(self.clock_ms)
        self.log.reconfigure(self.config)
        assert self.start <= start <= len(self.values)
        self.start = start

    @rule(space_bytes=st.integers(0, 2000))
    def fill_disk(self, space_bytes: int) -> None:
        self.files.space_bytes = space_bytes

    @rule()
    def free_disk(self) -> None:
        self.files.space_bytes = None

    @rule()
    def restart(self) -> None:
        self.files.space_bytes = None
        self.log.close()
        self.synced = len(self.values)
        self._open()
        assert self.log.was_clean

    @rule()
    def kill(self) -> None:
        """Kill the process: everything written survives; recovery makes it durable."""
        abandon(self.log)
        self._open()
        self.synced = len(self.values)

    @rule(
        appends=st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=3), max_size=6),
        fraction=st.none() | st.floats(0, 1),
        seed=st.integers(0, 2**32),
    )
    def cut_power(self, appends: list[list[int]], fraction: float | None, seed: int) -> None:
        """Cut the power right after some unsynced appends, and perhaps a deletion, which syncs."""
        for counts in appends:
            self.append(counts, 50)
        if fraction is not None:
            self.delete_before(fraction)
        abandon(self.log)
        self.files.lose_unsynced(random.Random(seed))
        self._open()
        assert self.synced <= self.log.log_end_offset <= len(self.values)
        assert self.log.log_end_offset in (0, self.synced, *self.ends)
        del self.values[self.log.log_end_offset :]
        self.ends = [end for end in self.ends if end <= len(self.values)]
        # Retention on a full disk deletes before it can record; a segment that was rolled for it is never lost.
        self.start = max(self.log.log_start_offset, min(self.start, len(self.values)))
        self.synced = len(self.values)

    @invariant()
    def log_equals_list(self) -> None:
        if not hasattr(self, "log"):
            return
        assert self.log.log_end_offset == len(self.values)
        assert self.log.log_start_offset == self.start
        expected = list(enumerate(self.values))[self.start :]
        assert contents(self.log) == expected
        assert contents(self.log, max_bytes=1) == expected
        producer = self.log.producers.get(PRODUCER)
        if producer is not None:
            assert producer.next_sequence == len(self.values)
        else:
            assert not self.values
        if self.ends and producer is not None:
            last = producer.batches[-1]
            _, header = batch(
                0,
                [b""] * (last.last_sequence - last.first_sequence + 1),
                producer_id=PRODUCER,
                producer_epoch=0,
                base_sequence=last.first_sequence,
            )
            assert self.log.producers.check(header) == Duplicate(last.base_offset)

    @invariant()
    def nothing_is_damaged(self) -> None:
        if hasattr(self, "log"):
            assert self.log.verify() == []

    def teardown(self) -> None:
        if hasattr(self, "log"):
            abandon(self.log)
        shutil.rmtree(self.directory)


LogAgainstList.TestCase.settings = examples(45, steps=30)
TestLogAgainstList = LogAgainstList.TestCase

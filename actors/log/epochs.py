"""The leader epochs of a log's batches, and the offset at which each began.

Owns the table, a function of the log: epochs rise with offsets, so each takes one range of them. The checkpoint holds
the table up to its recovery point (`checkpoint.py`), recovery adds the tail; without a checkpoint it is read from the
segments (`epoch_search.py`). With it a leader finds where another replica's log begins to differ from its own, as in
KIP-101 and KIP-279:

    epoch    0        1        4              offset 0      10       25       31 (end)
    end_of(1) = (1, 25)   end_of(3) = (1, 25): there was none between   end_of(4) = (4, 31)

Pure. Kept by `log.py` and `recovery.py`; the partition's machine looks ends up.
"""

from collections.abc import Iterable

NO_EPOCH = -1
"""The leader epoch of a log without batches."""


class EpochTable:
    def __init__(self, entries: Iterable[tuple[int, int]] = ()) -> None:
        """Take pairs of an epoch and the offset at which it begins, both rising."""
        self._entries = [(epoch, start) for epoch, start in entries]

    @property
    def entries(self) -> tuple[tuple[int, int], ...]:
        return tuple(self._entries)

    @property
    def last(self) -> int:
        """Return the epoch of the log's last batch."""
        return self._entries[-1][0] if self._entries else NO_EPOCH

    def note(self, epoch: int, start_offset: int) -> None:
        """Note a batch; only the first of an epoch counts."""
        if epoch > self.last:
            self._entries.append((epoch, start_offset))

    def end_of(self, epoch: int, log_end_offset: int) -> tuple[int, int]:
        """Return the highest epoch of the log up to `epoch`, and the offset after its last batch.

        (NO_EPOCH, offset of the first batch) if every batch has a later epoch.
        """
        found, end_offset = NO_EPOCH, log_end_offset
        for entry_epoch, start_offset in reversed(self._entries):
            if entry_epoch <= epoch:
                found = entry_epoch
                break
            end_offset = start_offset
        return found, end_offset

    def cut(self, log_end_offset: int) -> None:
        """Forget the epochs that begin at or after the log's new end."""
        while self._entries and self._entries[-1][1] >= log_end_offset:
            self._entries.pop()

    def trim(self, log_start_offset: int) -> None:
        """Forget the epochs that end before the log's start; the last one stays."""
        while len(self._entries) > 1 and self._entries[1][1] <= log_start_offset:
            self._entries.pop(0)

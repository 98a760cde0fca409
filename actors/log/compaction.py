"""Compaction: keep the newest record of each key, in slices small enough not to delay other requests.

Owns the current pass. Must never touch the active segment, nor one that recovery could need to replay
(`compaction_plan.py`). Called by `log.py`, a slice at a time.

    compaction_plan.py     which segments, whether it is due, which are merged
    compaction_pass.py     the pass: map, rewrite, swap, mark
    compaction_output.py   the segment that is written aside
    compaction_state.py    the steps that are committed, and the file of the progress
"""

import logging
from collections.abc import Generator, Sequence
from pathlib import Path

from .cleaned import Cleaned
from .compaction_pass import CompactionPass, Replace
from .compaction_plan import cleanable, is_due, safe_offset
from .compaction_state import CompactionState
from .errors import StorageFull
from .files import Files
from .retention import LogConfig
from .segment import Segment
from .transactions import Transactions

_log = logging.getLogger(__name__)


class Compactor:
    """Compaction of one log. `replace` is called when one segment has been swapped in for several."""

    def __init__(
        self, directory: Path, files: Files, cleaned: Cleaned, replace: Replace, transactions: Transactions
    ) -> None:
        self._directory = directory
        self._files = files
        self._state = CompactionState(directory, files, cleaned)
        self._transactions = transactions
        self._replace = replace
        self._pass: CompactionPass | None = None
        self._slices: Generator[int, None, None] | None = None
        self._is_unfinished = False
        """True if the last pass could not take all keys that were due."""

    @property
    def cleaned(self) -> Cleaned:
        return self._state.cleaned

    def step(
        self,
        config: LogConfig,
        segments: Sequence[Segment],
        now_ms: int,
        wall_ms: int | None,
        budget_bytes: int,
        end_offset: int,
    ) -> bool:
        """Continue the current pass, or begin one that is due; return True if there is more to do now.

        `segments` are the log's, the active one last. The age of tombstones is counted by `now_ms`, the clock that
        never steps, because readers with a snapshot of the log rely on it. The age of records is counted by
        wall-clock time, as their timestamps are: `wall_ms`, where it is not `now_ms`. A pass ends before `end_offset`.

        Raises StorageFailed; a full disk ends the pass.
        """
        if self._slices is None:
            wall_ms = now_ms if wall_ms is None else wall_ms
            self._pass = self._begin(config, segments, now_ms, wall_ms, end_offset)
            if self._pass is None:
                return False
            self._slices = self._pass.run()
        assert self._pass is not None
        self._pass.now_ms = now_ms
        spent_bytes = 0
        try:
            while spent_bytes < budget_bytes:
                cost_bytes = next(self._slices, None)
                if cost_bytes is None:
                    self._is_unfinished = self._pass.is_map_full
                    self._slices = self._pass = None
                    return True
                spent_bytes += cost_bytes
        except StorageFull as error:
            _log.warning("%s: compaction waits for disk space: %s", self._directory, error)
            self.stop()
            return False
        return True

    def _begin(
        self, config: LogConfig, segments: Sequence[Segment], now_ms: int, wall_ms: int, end_offset: int
    ) -> CompactionPass | None:
        """Return a pass if one is due."""
        state = self._state
        state.on_log_start(segments[0].base_offset)
        below_offset = safe_offset(self._directory, self._files, self._transactions.first_unstable_offset())
        chosen = cleanable(segments, config, min(below_offset, end_offset), state.is_dirty, wall_ms)
        if not is_due(chosen, config, state.cleaned, state.is_dirty, self._is_unfinished, now_ms):
            return None
        return CompactionPass(
            self._directory, self._files, config, chosen, state, self._transactions, self._replace, now_ms
        )

    def stop(self) -> None:
        """Abort the current pass, and delete its output."""
        ended = self._pass
        self.release()
        if ended is not None:
            ended.discard()

    def release(self) -> None:
        """Abort the current pass and close its descriptors; recovery deletes the rest."""
        if self._slices is not None and self._pass is not None:
            self._slices.close()
            self._pass.release()
        self._slices = self._pass = None

    def on_deleted(self, segment: Segment) -> None:
        """Note that the log has deleted a segment."""
        if self._pass is not None:
            self._pass.deleted.add(segment.base_offset)

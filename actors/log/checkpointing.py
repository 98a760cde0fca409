"""The times at which a log writes its checkpoint and its producer snapshot, and the files that the checkpoint names.

Owns the amount written since the last checkpoint and since the last snapshot, which bounds the work of a recovery.
Called by `log.py` with everything synced that a checkpoint covers.
"""

from pathlib import Path

from .checkpoint import CHECKPOINT_NAME, Checkpoint, encode_checkpoint
from .files import Files
from .producers import ProducerStates
from .recovery import Recovered
from .snapshots import write_snapshot

CHECKPOINT_BYTES = 32 * 1024 * 1024
CHECKPOINT_BATCHES = 50_000
"""A sync makes a checkpoint when this many batches lie above the last one, to bound the work of a recovery."""
SNAPSHOT_PRODUCERS_PER_BATCH = 4
"""A checkpoint writes a producer snapshot only when replaying instead would take about as long as reading it."""


class Checkpointer:
    def __init__(self, directory: Path, files: Files, recovered: Recovered) -> None:
        self._directory = directory
        self._files = files
        self._producers: ProducerStates = recovered.producers
        self.companions = recovered.companions
        """Names of the files beside the log that exist."""
        self._checkpoint = recovered.checkpoint
        self._snapshot_offset = recovered.snapshot_offset
        self._bytes_since_checkpoint = 0
        self._batches_since_checkpoint = 0
        self.is_due = False
        """True if the next sync makes a checkpoint."""
        # Unknown for the last owner's batches: assume that a snapshot is worth its cost.
        self._batches_since_snapshot = self._snapshot_entries

    @property
    def _snapshot_entries(self) -> int:
        return len(self._producers) + len(self._producers.dedup_ids) + len(self._producers.key_versions)

    def appended(self, size_bytes: int, batch_count: int) -> None:
        self._bytes_since_checkpoint += size_bytes
        self._batches_since_checkpoint += batch_count
        self._batches_since_snapshot += batch_count
        self.is_due = (
            self._bytes_since_checkpoint >= CHECKPOINT_BYTES
            or self._batches_since_checkpoint >= CHECKPOINT_BATCHES
        )

    @property
    def is_snapshot_due(self) -> bool:
        return self._batches_since_snapshot * SNAPSHOT_PRODUCERS_PER_BATCH >= self._snapshot_entries

    def write_snapshot(self, log_end_offset: int) -> None:
        """Write the producers' state at the end of the log. Raises StorageFull."""
        if self._snapshot_offset == log_end_offset:
            return
        write_snapshot(self._directory, self._files, self._producers, log_end_offset)
        self._snapshot_offset = log_end_offset
        self._batches_since_snapshot = 0

    def write(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint if it differs. Raises StorageFull with the old one unchanged."""
        if checkpoint != self._checkpoint:
            self._files.replace(self._directory / CHECKPOINT_NAME, encode_checkpoint(checkpoint))
            self._checkpoint = checkpoint
        self._bytes_since_checkpoint = 0
        self._batches_since_checkpoint = 0
        self.is_due = False

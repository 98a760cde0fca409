"""The recovery point and the start of a log: the file `checkpoint` in the partition's directory.

Layout: `checked.py` with kind `PLCP`; the body is a MessagePack map of the fields below. It is written at every roll,
after a number of bytes or batches (`log.py`), every few seconds during writes, and on a clean close. Without it a log
is recovered from the first byte of its last segment. That is always correct, because no segment is begun before its
predecessor is synced.
"""

from contextlib import suppress
from pathlib import Path

import msgspec

from .checked import decode_checked, encode_checked
from .errors import LogError
from .files import Files

CHECKPOINT_NAME = "checkpoint"
CLEAN_NAME = "clean"
"""Present when the last owner closed the log cleanly: written last, deleted first."""
SYNC_FAILED_NAME = "sync-failed"
"""Present when a sync failed: the kernel's cache may show data that is not on the medium and must be rewritten."""
_KIND = b"PLCP"


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Every byte of `recovery_segment` before `recovery_position`, and every byte of earlier segments, was synced.

    `recovery_offset` is the first offset after those bytes, `epochs` the leader epochs of the batches before it, each
    with the offset at which it begins (`epochs.py`); `leader_epoch` the highest epoch that a leader of this log took,
    used or not. `high_watermark` is an offset below which every record was known to be committed. `active_since_ms`
    is the time at which `recovery_segment` got its first batch (0: it has none).
    """

    log_start_offset: int
    recovery_offset: int
    recovery_segment: int
    recovery_position: int
    epochs: tuple[tuple[int, int], ...]
    leader_epoch: int
    high_watermark: int
    active_since_ms: int
    companions: tuple[str, ...] = ()
    """The files of `companions.py` that exist."""


def encode_checkpoint(checkpoint: Checkpoint) -> bytes:
    return encode_checked(_KIND, checkpoint)


def decode_checkpoint(data: bytes | None) -> Checkpoint | None:
    return decode_checked(_KIND, data, Checkpoint)


def note_sync_failure(directory: Path, files: Files) -> None:
    """Leave a note for recovery that a sync failed.

    The note needs no sync: it matters only while the kernel's cache exists, which may hold data that the medium
    lacks.
    """
    with suppress(LogError):  # the first failure is the one to report
        files.close(files.open_append(directory / SYNC_FAILED_NAME))

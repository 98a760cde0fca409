"""How far a log is known to be safe, and where it begins: the file `checkpoint` in the partition's directory.

Layout: `checked.py` with kind `PLCP`; the body is a MessagePack map of the fields below. It is written at every roll,
after so many bytes or batches (`log.py`), every few seconds while something is written, and on a clean close. Without it
a log is recovered from its last segment's first byte, which is always right, for no segment is begun before its
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
"""Present when the last owner closed the log in order: written last, deleted first."""
SYNC_FAILED_NAME = "sync-failed"
"""Present when a sync failed: what the kernel's cache shows may not be on the medium, and is to be written anew."""
_KIND = b"PLCP"


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Every byte of `recovery_segment` before `recovery_position`, and all of every earlier segment, was synced.

    `recovery_offset` is the first offset after those bytes, `last_leader_epoch` the epoch of the batch before it (-1:
    none), `leader_epoch` the highest one that an opening of the log took, used or not. `active_since_ms` is when
    `recovery_segment` got its first batch (0: it has none).
    """

    log_start_offset: int
    recovery_offset: int
    recovery_segment: int
    recovery_position: int
    last_leader_epoch: int
    leader_epoch: int
    active_since_ms: int
    companions: tuple[str, ...] = ()
    """Those of `companions.py` that are there."""


def encode_checkpoint(checkpoint: Checkpoint) -> bytes:
    return encode_checked(_KIND, checkpoint)


def decode_checkpoint(data: bytes | None) -> Checkpoint | None:
    return decode_checked(_KIND, data, Checkpoint)


def note_sync_failure(directory: Path, files: Files) -> None:
    """Leave a note for recovery that a sync failed.

    It needs no sync of its own: it matters only as long as the kernel's cache, which may hold what the medium lacks,
    lives.
    """
    with suppress(LogError):  # the failure to report is the first one
        files.close(files.open_append(directory / SYNC_FAILED_NAME))

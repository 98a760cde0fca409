"""Batches as they came from a leader, checked before they are appended. Pure; called by `follower.py`, `mirrored.py`.

A follower changes no byte of a batch: offset, leader epoch and both checksums are the leader's. So the batch that a
producer was acknowledged is the one that the next leader has, and a fault on the way is noticed here.
"""

from collections.abc import Sequence
from typing import NamedTuple

from ...transport.batch import DEDUP, BatchHeader, InvalidBatch, check_stored, split
from ...transport.compression import Buffer
from ...transport.deduplication import dedup_id_of
from ..log.key_versions import writes_of
from ..log.producers import ProducerStates

MAX_EPOCH = 2**31 - 1
"""No batch has a higher leader epoch."""


class Copies(NamedTuple):
    frames: list[Buffer]
    headers: list[BatchHeader]

    @property
    def base_offset(self) -> int:
        return self.headers[0].base_offset

    def note(self, producers: ProducerStates, now: int) -> None:
        """Record the keys and dedup ids in the batches; what the heads tell is recorded when they are written."""
        for header, frame in zip(self.headers, self.frames, strict=True):
            if producers.key_versions.is_kept:
                producers.key_versions.note(header, writes_of(frame, header))
            dedup_id = dedup_id_of(frame, header) if header.attributes & DEDUP else None
            if dedup_id is not None:
                producers.dedup_ids.note(dedup_id, header.base_offset, now)


def copies_of(payload: Sequence[Buffer], last_epoch: int, leader_epoch: int) -> Copies:
    """Return the batches of a reply, whose offsets and epochs rise, none in an epoch after the leader's.

    Raises InvalidBatch if one of them is damaged, or out of order.
    """
    copies = Copies([], [])
    next_offset = 0
    for run in payload:
        size_bytes = 0
        for header, frame in split(run):
            check_stored(header, frame)
            size_bytes += len(frame)
            if header.base_offset < next_offset or not last_epoch <= header.leader_epoch <= leader_epoch:
                place = f"offset {header.base_offset} of epoch {header.leader_epoch}"
                raise InvalidBatch(f"{place} follows {next_offset - 1} of {last_epoch}")
            next_offset, last_epoch = header.next_offset, header.leader_epoch
            copies.frames.append(frame)
            copies.headers.append(header)
        if size_bytes != len(run):
            raise InvalidBatch("the reply ends with a part of a batch")
    return copies

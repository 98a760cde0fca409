"""The producer id and epoch of each start of an actor, which fence the earlier starts. Pure.

Owns the rule and the start record, the first that every incarnation writes. Several actors share a partition of an
internal topic; the producer id identifies an actor's batches, so that no other actor opens them. Called by replay.py,
and by modules that build an actor's batches.

    start       0     1     ...  32,766  |  32,767   ...              counts an actor's starts
    id          first first      first   |  first + 1                 the id's lowest bits count the ids used up
    epoch       0     1          32,766  |  0                         epoch 32,767 of an id closes it forever
"""

from hashlib import sha256
from typing import NamedTuple

from msgspec import Struct

from ...transport.addresses import Address
from ...transport.batch import BatchHeader
from ..log.key_map import FAMILY_BITS, OWN_ID

NO_START = -1
STARTS_PER_ID = 2**15 - 1
"""Starts that write under one producer id, with epochs from 0; the epoch after the last one closes the id forever."""
ERA_BITS = FAMILY_BITS
"""The lowest bits of a producer id count the ids an actor has used up; the others identify its records to compaction.
"""


class Start(Struct, frozen=True):
    """An actor's incarnation took over."""

    epoch: int
    """Number of the actor's start, from 0; its producer id and epoch follow from it."""
    starter: str
    """Distinguishes it from another incarnation that chose the same number."""


class JournalIdentity(NamedTuple):
    """The producer id and epoch in an incarnation's batches: each start has its own pair, and fences the earlier ones."""

    producer_id: int
    epoch: int


def identity_of(address: Address, start: int) -> JournalIdentity:
    """Return the identity of the actor's start number `start`, from 0 on. Ids of the controller's never have bit 62."""
    era, epoch = divmod(start, STARTS_PER_ID)
    digest = sha256(address.encode()).digest()
    family = int.from_bytes(digest[:8], "big") >> (4 + ERA_BITS)
    assert era < 1 << ERA_BITS, f"{address} has been started {start} times"
    return JournalIdentity(OWN_ID | family << ERA_BITS | era, epoch)


def closing_identity(address: Address, start: int) -> JournalIdentity | None:
    """Return the identity with which the first start of a new id fences the id before; None for any other start."""
    if start == 0 or start % STARTS_PER_ID:
        return None
    return JournalIdentity(identity_of(address, start - 1).producer_id, STARTS_PER_ID)


def start_of(address: Address, header: BatchHeader) -> int | None:
    """Return the number of the start that wrote a batch; None if the batch is not this actor's."""
    first_id = identity_of(address, 0).producer_id
    if header.producer_id >> ERA_BITS != first_id >> ERA_BITS:
        return None
    return (header.producer_id - first_id) * STARTS_PER_ID + header.producer_epoch

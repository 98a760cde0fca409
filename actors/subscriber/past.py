"""What others have left: attempts, finished records and suspects, and the progress of a partition's last owner. Pure.

A record that an earlier incarnation finished without committing it is not handled again. Its word counts only as long as
the group's offset has not been set back since: a partition that begins before the offset that was committed when the
record was started is being read anew on purpose. Nor does it count, as nothing does that was noted, in another lineage of
the partition or for a record of another leader epoch (lineage.py).
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from ...transport.addresses import Place
from ...transport.lineage import UNTRACED
from .bisection import Spot
from .effects import Charge, Record
from .progress import Ahead


class Finished(Struct, frozen=True):
    """A record that was handled and perhaps not committed."""

    topic: str
    partition: int
    offset: int
    committed: int
    """The group's offset, as far as known, when it was started."""
    leader_epoch: int = 0
    lineage: bytes = UNTRACED


class Suspect(Struct, frozen=True):
    """A record that was at hand, with others, when the process ended."""

    topic: str
    partition: int
    offset: int
    leader_epoch: int = 0
    lineage: bytes = UNTRACED

    @property
    def spot(self) -> Spot:
        return (self.topic, self.partition, self.offset)


class Past(Struct, frozen=True):
    """What a flight recorder says when it is opened."""

    charges: Sequence[Charge] = ()
    finished: Sequence[Finished] = ()
    suspects: Sequence[Suspect] = ()


NO_PAST = Past()


class Memory:
    """The past, as long as it matters."""

    def __init__(self, past: Past) -> None:
        self._charges: dict[Place, dict[int, Charge]] = {}
        self._finished: dict[Place, list[Finished]] = {}
        self._done: dict[Place, tuple[dict[int, int], Ahead]] = {}
        """The leader epochs of finished records by offset, and what the last owner had done."""
        self._lineages: dict[Place, bytes] = {}
        for charge in past.charges:
            self.charge(charge)
        for finished in past.finished:
            self._finished.setdefault((finished.topic, finished.partition), []).append(finished)

    def learn(self, lineages: Mapping[Place, bytes]) -> None:
        """What partitions belong to that are new here."""
        self._lineages.update(lineages)

    def lineage(self, key: Place) -> bytes:
        return self._lineages.get(key, UNTRACED)

    def clear(self) -> None:
        """It matters no more."""
        self._charges.clear()
        self._finished.clear()
        self._done.clear()

    def charge(self, charge: Charge) -> None:
        self._charges.setdefault(charge.key, {})[charge.offset] = charge

    def charges(self) -> list[Charge]:
        return [charge for charges in self._charges.values() for charge in charges.values()]

    def charged(self, key: Place) -> Mapping[int, Charge]:
        """By offset."""
        return self._charges.get(key) or {}

    def take_charge(self, record: Record) -> Charge | None:
        """The record's charge, or one that is void: of another record at its offset."""
        charges = self._charges.get((record.topic, record.partition))
        return charges.pop(record.offset, None) if charges else None

    def take_charges_before(self, key: Place, offset: int) -> Iterator[Charge]:
        """Those of records that the group has passed."""
        for at in [at for at in self._charges.get(key) or () if at < offset]:
            yield self._charges[key].pop(at)

    def take_void_charges(self, key: Place) -> list[Charge]:
        """Those of another lineage."""
        charges, lineage = self._charges.get(key, {}), self.lineage(key)
        return [charges.pop(each.offset) for each in list(charges.values()) if each.lineage != lineage]

    def begin(self, key: Place, position: int, ahead: Ahead) -> None:
        """The partition is read from `position` on; its last owner had done what is `ahead`."""
        noted = [each for each in self._finished.get(key, ()) if each.lineage == self.lineage(key)]
        is_set_back = any(finished.committed > position for finished in noted)
        done = {} if is_set_back else {finished.offset: finished.leader_epoch for finished in noted}
        for offset in self.charged(key):
            done.pop(offset, None)
        if done or ahead:
            self._done[key] = (done, ahead)
        else:
            self._done.pop(key, None)

    def sort(self, key: Place, records: list[Record]) -> tuple[list[Record], list[Record]]:
        """Those to be handled, and those that are done already."""
        if key not in self._done:
            return records, []
        done, ahead = self._done[key]
        flags = [
            done.get(record.offset) == record.leader_epoch or ahead.has(record.offset, record.leader_epoch)
            for record in records
        ]
        fresh = [record for record, is_done in zip(records, flags, strict=True) if not is_done]
        return fresh, list(itertools.compress(records, flags))


def spot_of(record: Record) -> Spot:
    return (record.topic, record.partition, record.offset)

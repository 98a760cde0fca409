"""What others have left: attempts, finished records and suspects, and the progress of a partition's last owner. Pure.

A record that an earlier incarnation finished without committing it is not handled again. Its word counts only as long as
the group's offset has not been set back since: a partition that begins before the offset that was committed when the
record was started is being read anew on purpose.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from ...transport.addresses import Place
from .bisection import Spot
from .effects import Charge, Record
from .progress import Ranges, is_in


class Finished(Struct, frozen=True):
    """A record that was handled and perhaps not committed."""

    topic: str
    partition: int
    offset: int
    committed: int
    """The group's offset, as far as known, when it was started."""


class Past(Struct, frozen=True):
    """What a flight recorder says when it is opened."""

    charges: Sequence[Charge] = ()
    finished: Sequence[Finished] = ()
    suspects: Sequence[Spot] = ()


NO_PAST = Past()


class Memory:
    """The past, as long as it matters."""

    def __init__(self, past: Past) -> None:
        self._charges: dict[Place, dict[int, Charge]] = {}
        self._finished: dict[Place, list[Finished]] = {}
        self._done: dict[Place, tuple[set[int], Ranges]] = {}
        for charge in past.charges:
            self.charge(charge)
        for finished in past.finished:
            self._finished.setdefault((finished.topic, finished.partition), []).append(finished)

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

    def take_charge(self, key: Place, offset: int) -> Charge | None:
        charges = self._charges.get(key)
        return charges.pop(offset, None) if charges else None

    def take_charges_before(self, key: Place, offset: int) -> Iterator[Charge]:
        """Those of records that the group has passed."""
        for at in [at for at in self._charges.get(key) or () if at < offset]:
            yield self._charges[key].pop(at)

    def begin(self, key: Place, position: int, ahead: Ranges) -> None:
        """The partition is read from `position` on; its last owner had done what is `ahead`."""
        noted = self._finished.get(key, ())
        is_set_back = any(finished.committed > position for finished in noted)
        done = set() if is_set_back else {finished.offset for finished in noted}
        done -= self.charged(key).keys()
        if done or ahead:
            self._done[key] = (done, ahead)
        else:
            self._done.pop(key, None)

    def sort(self, key: Place, records: list[Record]) -> tuple[list[Record], list[Record]]:
        """Those to be handled, and those that are done already."""
        if key not in self._done:
            return records, []
        done, ahead = self._done[key]
        flags = [record.offset in done or is_in(record.offset, ahead) for record in records]
        fresh = [record for record, is_done in zip(records, flags, strict=True) if not is_done]
        return fresh, list(itertools.compress(records, flags))


def spot_of(record: Record) -> Spot:
    return (record.topic, record.partition, record.offset)

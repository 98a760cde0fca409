"""Damage in the logs that a member reads: where it is, and which of it was skipped. Pure.

    standing   the partition is paused before it; the machine orders another reading now and then (`serving.py`)
    skipped    `on_damage="skip"`: reading went on at the next intact offset
    gone       read after all, or the partition is assigned to another member

The first two are alarms as long as the partition is assigned to this member. Called by the feed.
"""

from collections.abc import Iterable

from ...transport.addresses import TopicPartition
from .effects import Damage, DamageFound, Record


class DamageTable:
    def __init__(self) -> None:
        self._standing: dict[TopicPartition, Damage] = {}
        """The damage that stops each partition."""
        self._skipped: dict[TopicPartition, list[Damage]] = {}
        self.has_changed = False

    def stand(self, damage: Damage) -> bool:
        """Stop before this damage; return True if it was not known yet."""
        is_new = self._standing.get(damage.tp) != damage
        self._standing[damage.tp] = damage
        self.has_changed |= is_new
        return is_new

    def skip(self, damage: Damage) -> None:
        self._standing.pop(damage.tp, None)
        self._skipped.setdefault(damage.tp, []).append(damage)
        self.has_changed = True

    def standing(self) -> list[Damage]:
        return list(self._standing.values())

    def read(self, records: Iterable[Record]) -> None:
        """Forget the damage before these records: it has been passed."""
        if not self._standing:
            return
        for tp in {
            TopicPartition(record.topic, record.partition) for record in records
        } & self._standing.keys():
            del self._standing[tp]
            self.has_changed = True

    def gone(self, tps: Iterable[TopicPartition]) -> None:
        for tp in tps:
            damage = (self._standing.pop(tp, None), self._skipped.pop(tp, None))
            self.has_changed |= any(damage)

    def report(self) -> DamageFound:
        self.has_changed = False
        skipped = [damage for found in self._skipped.values() for damage in found]
        return DamageFound((*self._standing.values(), *skipped))

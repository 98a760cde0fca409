"""Damage in the logs that a member reads: where it is, which of it was skipped, when it is read again. Pure.

    standing   the partition is paused before it; read again every LOOK_AGAIN_S, since the log may have been
               restored, or its start moved past the damage
    skipped    `on_damage="skip"`: reading went on at the next intact offset
    gone       read after all, or the partition is assigned to another member

The first two are alarms as long as the partition is assigned to this member. Called by the consumer thread.
"""

from collections.abc import Iterable

from ...transport.addresses import TopicPartition
from .effects import Damage, DamageFound, Record

LOOK_AGAIN_S = 5.0


class DamageTable:
    def __init__(self) -> None:
        self._standing: dict[TopicPartition, tuple[Damage, float]] = {}
        """The damage that stops each partition, and the time of the next read."""
        self._skipped: dict[TopicPartition, list[Damage]] = {}
        self.has_changed = False

    def stand(self, damage: Damage, now_s: float) -> bool:
        """Stop before this damage; return True if it was not known yet."""
        before = self._standing.get(damage.tp)
        self._standing[damage.tp] = (damage, now_s + LOOK_AGAIN_S)
        is_new = before is None or before[0] != damage
        self.has_changed |= is_new
        return is_new

    def skip(self, damage: Damage) -> None:
        self._standing.pop(damage.tp, None)
        self._skipped.setdefault(damage.tp, []).append(damage)
        self.has_changed = True

    def to_look_at(self, now_s: float) -> list[Damage]:
        """Return the damage to read again now."""
        due = [damage for damage, at_s in self._standing.values() if at_s <= now_s]
        for damage in due:
            self._standing[damage.tp] = (damage, now_s + LOOK_AGAIN_S)
        return due

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
        return DamageFound((*(damage for damage, _ in self._standing.values()), *skipped))

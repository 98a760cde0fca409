"""Text of the alarm of lost records, from the first reader that meets the loss until the log's start has passed it."""

from planaria.actors.partition.damage import KnownDamage
from planaria.actors.partition.effects import Alarm, Loss


def test_losses_are_told_until_the_logs_start_has_passed_them() -> None:
    damage = KnownDamage([Loss(10, 20, "found at the opening")])
    assert damage.alarm() == [Alarm("damage", ("records are lost: found at the opening",))]
    assert damage.on_loss(Loss(12, 20, "a part of it")) == []
    assert damage.on_loss(Loss(3, 5, "met by a reader")) == [
        Alarm("damage", ("records are lost: met by a reader", "records are lost: found at the opening"))
    ]
    assert damage.on_trimmed(5) == [Alarm("damage", ("records are lost: found at the opening",))]
    assert damage.on_trimmed(19) == []
    assert damage.on_trimmed(20) == [Alarm("damage", ())]

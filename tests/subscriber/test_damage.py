"""Damage that blocks a member: reported once, checked again, cleared when read past or revoked."""

from planaria.actors.subscriber.damage import LOOK_AGAIN_S, DamageTable
from planaria.actors.subscriber.effects import Damage, DamageFound
from subscriber_script import Script, messages

DAMAGE = Damage("A", 0, 5, 9, "segment 0 is damaged")


def test_it_is_told_once_and_looked_at_again_now_and_then() -> None:
    table = DamageTable()
    assert table.stand(DAMAGE, 0.0)
    assert table.has_changed
    assert table.report().found == (DAMAGE,)
    assert table.to_look_at(LOOK_AGAIN_S - 1) == []
    assert table.to_look_at(LOOK_AGAIN_S) == [DAMAGE]
    assert table.to_look_at(LOOK_AGAIN_S) == []
    assert not table.stand(DAMAGE, LOOK_AGAIN_S)
    assert not table.has_changed


def test_it_is_over_when_something_behind_it_is_read_or_the_partition_goes() -> None:
    for end in ("read", "gone"):
        table = DamageTable()
        table.stand(DAMAGE, 0.0)
        table.report()
        table.read(messages("A", 1, 7))
        assert not table.has_changed
        table.read(messages("A", 0, 9)) if end == "read" else table.gone([("A", 0)])
        assert table.has_changed
        assert table.report().found == ()


def test_the_alarm_names_partition_and_offsets() -> None:
    script = Script()
    script.start()
    script.give(
        DamageFound(
            (DAMAGE, Damage("A", 1, 3, None, "no codec"), Damage("A", 2, 0, 2, "rot", is_skipped=True))
        )
    )
    assert script.alarms == (
        "damaged: A/0 offsets 5 to 8 cannot be read, and the group is stopped before them: segment 0 is damaged",
        "damaged: A/1 offset 3 and later records cannot be read, and the group is stopped before them: no codec",
        "damaged: A/2 offsets 0 to 1 were skipped: rot",
    )
    script.give(DamageFound(()))
    assert script.alarms == ()

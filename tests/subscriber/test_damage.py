"""Damage that blocks a member: reported once, read again, cleared when read past or revoked."""

from planaria.actors.subscriber.damage import DamageTable
from planaria.actors.subscriber.effects import Damage, DamageFound, EndPoll, ReadDamage
from planaria.actors.subscriber.serving import READ_DAMAGE_MS
from subscriber_script import Script, messages

DAMAGE = Damage("A", 0, 5, 9, "segment 0 is damaged")


def test_it_is_told_once() -> None:
    table = DamageTable()
    assert table.stand(DAMAGE)
    assert table.has_changed
    assert table.report().found == (DAMAGE,)
    assert not table.stand(DAMAGE)
    assert not table.has_changed
    assert table.standing() == [DAMAGE]


def test_it_is_read_again_now_and_then_between_two_polls() -> None:
    script = Script()
    script.start()
    script.give(DamageFound((DAMAGE,)))
    for _ in range(3):
        script.take_effects()
        assert script.after(READ_DAMAGE_MS - 1) == []
        assert script.after(1) == ["readdamage"]
        assert [each for each in script.take_effects() if isinstance(each, EndPoll | ReadDamage)] == [
            EndPoll(),
            ReadDamage(),
        ]
        script.polled()
    script.give(DamageFound(()))
    assert script.after(10 * READ_DAMAGE_MS) == []


def test_skipped_damage_is_not_read_again() -> None:
    script = Script()
    script.start()
    script.give(DamageFound((Damage("A", 2, 0, 2, "rot", is_skipped=True),)))
    assert script.after(10 * READ_DAMAGE_MS) == []


def test_it_is_over_when_something_behind_it_is_read_or_the_partition_goes() -> None:
    for end in ("read", "gone"):
        table = DamageTable()
        table.stand(DAMAGE)
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

"""Two promoted topics that are ordered to follow each other at the same moment: one of them is refused."""

from typing import Any

import pytest

from planaria.actors.controller.rejoins import Rejoins
from planaria.actors.mirror.machine import DESCRIBE_AGAIN_MS
from planaria.transport.protocol.mirrored import TopicMirror
from simulated_meeting import Meeting, Side

SEEDS = 300
STEPS = 400


def reason(side: Side) -> str:
    assert side.machine is not None
    [topic] = side.machine.report(0).topics
    return topic.reason


def met(seed: int) -> None:
    world = Meeting(seed)
    world.run(STEPS)
    states = [side.mirror.state for side in world.sides.values()]
    assert sorted(states) == ["following", "promoted"]
    promoted = list(world.sides.values())[states.index("promoted")]
    assert not promoted.was_cut
    assert not promoted.mirror.mirror
    assert "only one of the two can follow: delete mirror 'back'" in reason(promoted)
    follower = world.other(promoted)
    assert (follower.mirror.state, follower.mirror.source_forks) == ("following", promoted.mirror.forks)
    assert not reason(follower)


def all_met(seeds: range) -> None:
    for seed in seeds:
        met(seed)


@pytest.mark.parametrize("first", range(0, SEEDS, 50))
def test_one_follows_and_the_other_is_refused_and_stays_promoted(first: int) -> None:
    all_met(range(first, first + 50))


def test_the_one_that_was_promoted_later_stays_so_if_both_have_begun() -> None:
    kept = set()
    for seed in range(SEEDS):
        world = Meeting(seed)
        world.run(STEPS)
        kept |= {name for name, side in world.sides.items() if side.mirror.state == "promoted"}
    assert kept == {"paris", "rome"}, "the order of the two commands decides as well"


def test_two_that_follow_each_other_say_so_until_one_is_promoted() -> None:
    """Descriptions of a cluster may be old. Nothing is lost then either."""
    both = 0
    for seed in range(SEEDS):
        world = Meeting(seed, staleness=3)
        world.run(STEPS)
        states = [side.mirror.state for side in world.sides.values()]
        if states == ["following", "following"]:
            both += 1
            world.staleness, world.now = 0, DESCRIBE_AGAIN_MS
            world.run(STEPS)
            for side in world.sides.values():
                assert reason(side).endswith("follows this one, too: promote it at one of the two")
        else:
            assert sorted(states) == ["following", "promoted"]
    assert both


def _meets_nobody(
    self: Rejoins, sender: Any, topic: str, found: TopicMirror, request: Any, now: int
) -> list[Any]:
    return self._go_on(sender, topic, found, now)


def test_the_schedules_find_a_planted_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Rejoins, "_meet", _meets_nobody)
    with pytest.raises(AssertionError):
        all_met(range(SEEDS))

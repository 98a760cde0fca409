"""The order of a turn's end: what leaves at once, what waits for the disk, and what is done when all has left."""

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from msgspec import Struct

from manual_loop import ManualLoop, context_of
from planaria.transport.actor import Actor
from planaria.transport.machine import Reply, Sender
from planaria.transport.protocol.message import Done

SENDER = Sender((b"client",), 1)


class Asked(Struct, frozen=True):
    """An event that is answered."""


class Synced(Struct, frozen=True):
    """The turn's writes are durable."""


class Steps:
    """The machine and its actor's steps, in `log` with the replies between them."""

    def __init__(self, log: list[str]) -> None:
        self.log = log

    def handle(self, event: Any, now: int) -> list[Any]:
        self.log.append(type(event).__name__)
        return [Reply(SENDER, Done())]


class Stepping(Actor[Any, Any]):
    def __init__(self, log: list[str]) -> None:
        super().__init__(context_of("gateway/0", 1, {}))
        self.log = log
        self.machine = Steps(log)

    def end_turn(self) -> None:
        self.log.append("end_turn")

    def follow_up(self) -> None:
        self.log.append("follow_up")
        self.loop.dispatch(Synced())


class Prompt(Stepping):
    is_prompt: ClassVar[bool] = True


class LoggingLoop(ManualLoop):
    def _send_reply(self, answer: Reply) -> None:
        self._actor.log.append("reply")


def steps_of(make: Callable[[list[str]], Stepping], turns: int = 1) -> list[str]:
    """Return the steps of turns with two events each."""
    log: list[str] = []
    actor = make(log)
    loop = LoggingLoop(actor, actor.context, lambda: 0)
    for _ in range(turns):
        loop.turn(Asked(), Asked())
    return log


def test_nothing_leaves_before_the_end_of_the_turn_and_the_follow_up_comes_after_it() -> None:
    assert steps_of(Stepping) == [
        *("Asked", "Asked", "end_turn", "reply", "reply"),
        *("follow_up", "Synced", "reply"),
    ]


@pytest.mark.parametrize("turns", [1, 2])
def test_the_first_messages_of_a_prompt_actor_leave_when_they_are_made_and_later_ones_together(
    turns: int,
) -> None:
    one_turn = [
        *("Asked", "reply", "Asked", "end_turn", "reply"),
        *("follow_up", "Synced", "reply"),
    ]
    assert steps_of(Prompt, turns) == one_turn * turns

"""The steps by which a group member moves from the partitions it owns to those it should own. Pure.

The steps of one change, in order; the consumer (`consumer.py`) performs them on the program's thread:

    gained, revoked     commit, call on_revoked, release, confirm, assign, call on_assigned
    lost                release, call on_lost

Callbacks are the program's code and may raise anything. A change that has begun is finished whatever they
raise: the call that performed the change raises the first error, the next call a second one. The next call
performs steps left undone by an interrupt.
"""

from collections import deque
from typing import Literal, NamedTuple

from msgspec import Struct, field

from ..addresses import TopicPartition
from .membership import Target

StepKind = Literal["commit", "revoked", "lost", "assigned", "release", "confirm", "assign"]
CALLS = frozenset({"revoked", "lost", "assigned"})
"""The kinds of steps that call the program's code."""


class Step(NamedTuple):
    kind: StepKind
    tps: frozenset[TopicPartition]


class Rebalancing(Struct, eq=False):
    """The change in progress, if there is one."""

    steps: deque[Step] = field(default_factory=deque)
    errors: deque[BaseException] = field(default_factory=deque)

    @property
    def is_unfinished(self) -> bool:
        return bool(self.steps or self.errors)

    @property
    def next_step(self) -> Step | None:
        return self.steps[0] if self.steps else None

    def begin(self, target: Target, owned: frozenset[TopicPartition]) -> None:
        self.steps.extend(steps_to(target, owned))

    def done(self, step: Step) -> None:
        """Record that the step has been performed. It may have been dropped meanwhile."""
        if self.steps and self.steps[0] is step:
            self.steps.popleft()

    def drop(self) -> None:
        """Drop the change: the consumer is closed, and leaving the group releases its partitions."""
        self.steps.clear()

    def raise_error(self) -> None:
        """Raise the oldest error that has not been raised."""
        if self.errors:
            raise self.errors.popleft()


def steps_to(target: Target, owned: frozenset[TopicPartition]) -> list[Step]:
    revoked, added = owned - target.tps, target.tps - owned
    if target.is_lost:
        return [Step("release", revoked), Step("lost", revoked)]
    steps: list[Step] = []
    if revoked:
        steps += [Step("commit", revoked), Step("revoked", revoked), Step("release", revoked)]
    steps.append(Step("confirm", target.tps))
    if added:
        steps += [Step("assign", added), Step("assigned", added)]
    return steps

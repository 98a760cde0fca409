"""Who of several records that were in progress killed the process: found by trying them in halves. Pure.

A process dies with records in progress; those are the suspects, and nobody is charged. The next incarnation starts half
of the suspects that are at hand, and nothing else until these have ended. If the process dies, they alone are the
suspects of the one that follows; those of them that had ended by then are not. If they all end, they are cleared, and
half of the rest is next. A record that is tried alone is charged with the death.

So each death at least halves the suspects: one killer among n is found after at most ceil(log2 n) + 1 deaths, the first
one included. Each of several killers is found like that, one after the other.
"""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

Spot: TypeAlias = tuple[str, int, int]
"""Topic, partition, offset: one record."""


class Bisection:
    def __init__(self, suspects: Iterable[Spot] = ()) -> None:
        self.suspects = set(suspects)
        self._on_trial: set[Spot] = set()

    def clear(self, spot: Spot) -> None:
        """It has ended, and the process has not; or it is not for this process to try any more."""
        self.suspects.discard(spot)
        self._on_trial.discard(spot)

    def on_trial(self, at_hand: Sequence[Spot], *, is_quiet: bool) -> frozenset[Spot]:
        """The suspects that may be started now, of those at hand.

        Empty while others are in progress: nothing is to be started then.
        """
        if not self._on_trial and is_quiet:
            half = max(1, len(at_hand) // 2)
            self._on_trial = set(at_hand[:half])
        return frozenset(self._on_trial)

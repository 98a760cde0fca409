"""Bisection: finds which of several records in progress killed the process, by trying them in halves. Pure.

The records in progress when a process dies are the suspects; the death counts as an attempt of none of them. The next
incarnation starts half of the suspects it has polled, and no other record until these have ended. If the process dies,
the started ones that had not ended are the suspects of the next incarnation. If they all end, they are cleared, and
half of the rest is next. The death counts as an attempt of a record that is tried alone.

So each death at least halves the suspects: one killer among n is found after at most ceil(log2 n) + 1 deaths, the first
one included. Several killers are found one after the other in the same way.
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
        """Clear a suspect: it ended without killing the process, or this process is not to try it any more."""
        self.suspects.discard(spot)
        self._on_trial.discard(spot)

    def on_trial(self, ready: Sequence[Spot], *, is_quiet: bool) -> frozenset[Spot]:
        """Return the suspects that may be started now, of those in `ready`.

        Empty while other records are in progress: no suspect may be started then.
        """
        if not self._on_trial and is_quiet:
            half = max(1, len(ready) // 2)
            self._on_trial = set(ready[:half])
        return frozenset(self._on_trial)

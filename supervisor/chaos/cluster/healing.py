"""The faults that last: what is down, and when each is over. Called by the nemesis and its kinds of faults."""

import time
from collections.abc import Callable, Hashable
from random import Random

from ..run import Say

HELD_S = (1.0, 8.0)
POLL_S = 0.05


class Healing:
    def __init__(self, chance: Random, say: Say) -> None:
        self.down: set[Hashable] = set()
        """Machines, and directions of the network, that a fault is in force for."""
        self._chance = chance
        self._say = say
        self._started = time.monotonic()
        self.healed_at = self._started
        """The time at which a fault was over last."""
        self._due: list[tuple[float, str, Callable[[], None]]] = []

    @property
    def is_calm(self) -> bool:
        """Return True if no fault lasts."""
        return not self._due

    def elapsed_s(self) -> float:
        return time.monotonic() - self._started

    def later(self, description: str, heal: Callable[[], None], *down: Hashable) -> str:
        """Heal after a while, until when `down` are down; return the description."""
        held_s = self._chance.uniform(*HELD_S)
        self.down.update(down)

        def end() -> None:
            heal()
            self.down.difference_update(down)
            self.healed_at = time.monotonic()
            self._say(f"{self.elapsed_s():7.2f} s    over: {description}")

        self._due.append((time.monotonic() + held_s, description, end))
        return f"{description} for {held_s:.1f} s"

    def wait(self, seconds: float) -> None:
        """Wait, and heal the faults that are due meanwhile."""
        ends_at = time.monotonic() + seconds
        while True:
            now = time.monotonic()
            for due in [each for each in self._due if each[0] <= now]:
                self._due.remove(due)
                due[2]()
            if now >= ends_at:
                return
            time.sleep(min(POLL_S, ends_at - now))

    def heal_all(self) -> None:
        for _, _, end in sorted(self._due, key=lambda due: due[0]):
            end()
        self._due.clear()

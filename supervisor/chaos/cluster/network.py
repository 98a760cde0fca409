"""The parent's side of the relay (relay.py): starts it, gives it orders, waits until each is in force."""

import subprocess
import sys
from collections.abc import Iterable
from types import TracebackType
from typing import Self

import msgspec

from ...local_cluster import LocalMachine, Route
from .rules import FREE, Order, Rule

Pair = tuple[str, str]
"""Sender and receiver."""


class Network:
    """Use it as a context manager, around the machines."""

    def __init__(self, routes: list[Route]) -> None:
        package = __name__.rpartition(".")[0]
        self._relay = subprocess.Popen(
            [sys.executable, "-m", f"{package}.relay"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._order(Order(routes=routes))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._relay.kill()
        self._relay.communicate()

    def know(self, machine: LocalMachine) -> None:
        """Recognize the connections of a machine that has just been started."""
        assert machine.pid is not None
        self._order(Order(sessions={machine.pid: machine.name}))

    def apply(self, pairs: Iterable[Pair], rule: Rule) -> None:
        self._order(Order(rules=[(*pair, rule) for pair in pairs]))

    def free(self, pairs: Iterable[Pair]) -> None:
        self.apply(pairs, FREE)

    def reset(self, pairs: Iterable[Pair]) -> None:
        """Close the connections between the machines of each pair."""
        self._order(Order(resets=list(pairs)))

    def _order(self, order: Order) -> None:
        assert self._relay.stdin is not None
        assert self._relay.stdout is not None
        self._relay.stdin.write(msgspec.json.encode(order) + b"\n")
        self._relay.stdin.flush()
        answer = self._relay.stdout.readline()
        assert answer == b"done\n", "the relay has ended"

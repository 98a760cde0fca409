"""Notifies objects that this process is a fork of the one that made them.

After `os.fork` the child has the memory and the descriptors of its parent, but none of its threads. An object that
depends on a thread, or whose descriptor another process shares, registers here. Its `on_fork` is called in the child
before any other code of the program runs there. It must not wait, and must not take a lock that another thread may
have held. Called by clients, by the embedded broker and by subscribers.
"""

import os
from typing import Protocol
from weakref import WeakSet


class Inherited(Protocol):
    """An object of which a forked child has a copy."""

    def on_fork(self) -> None: ...


_inherited: WeakSet[Inherited] = WeakSet()


def notify_of_fork(item: Inherited) -> None:
    """Call `item.on_fork()` in every child that is forked from now on, for as long as the item is referenced."""
    _inherited.add(item)


def _in_child() -> None:
    for item in list(_inherited):
        item.on_fork()


os.register_at_fork(after_in_child=_in_child)

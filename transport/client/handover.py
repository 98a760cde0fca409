"""The owner of a client's socket: the network thread, or the thread of the program that waits for an answer. Pure.

A waiting thread that runs the turns itself saves two switches of threads, a quarter of the time of a single publish. One
thread at a time owns the socket with everything behind it (exchange, producers, consumers, timers).

    state      owner                          left by
    attended   the network thread, which      an answer for which a thread waited, and nothing else is expected soon
               sleeps in its poll             -> free
    free       none; the network thread       a thread waits for an answer -> led
               takes a turn every TICK_MS     a tick with work left, or a second event of a thread that does not
                                              wait, or a thread that sleeps at its gate, or SPELL_TICKS
                                              without a lead -> attended
    led        the waiting thread, for        its answer is there -> free, or attended if work is left
               LEAD_MS at most                LEAD_MS are over -> attended

Invariants:

- The lock is held by the owner and by no other thread. It also carries the memory of one owner to the next, which ZeroMQ
  demands when a socket changes its thread.
- An event that was posted is handled in a bounded time: while the owner sleeps in its poll `posted` wakes it; an owner
  that is awake looks at the inbox before it sleeps, and after it has released the socket; while the socket is free the
  next tick is at most TICK_MS away.
- A thread that sleeps at its gate has the network thread attending, another thread leading, or a tick ahead.
- The callbacks of the program run in the network thread, whichever thread received the answer.

Each method is called by the thread that its docstring names. The order of the steps in it matters: what one thread writes
before it reads, the other one reads after it has written. CPython executes these steps one after the other.
"""

from collections.abc import Callable, Sized
from typing import Any, Protocol

TICK_MS = 1
"""Time between the turns of the network thread while the socket is free: the longest that a message waits then."""
SPELL_TICKS = 20
"""Ticks without a lead after which the network thread sleeps in its poll again."""
LEAD_MS = 5
"""Longest time that a waiting thread runs the turns. A longer wait gains nothing from it."""


class Lock(Protocol):
    def acquire(self, blocking: bool = True) -> bool: ...

    def release(self) -> None: ...


class Handover:
    """Ownership of the socket, and the notifications that change it."""

    def __init__(
        self, lock: Lock, inbox: Sized, wake_owner: Callable[[], None], wake_network: Callable[[], None]
    ) -> None:
        """`wake_owner` ends the poll of the owner, `wake_network` the network thread's wait for the next tick."""
        self.waits: set[Any] = set()
        """Gates at which threads sleep that do not lead."""
        self.callbacks: list[Callable[[], None]] = []
        """Calls of the program's callbacks that a led turn left to the network thread."""
        self.is_free = False
        self.is_asleep = False
        """True while the owner sleeps in its poll, and must be woken for an event."""
        self.is_stopping = False
        self._lock = lock
        self._inbox = inbox
        self._wake_owner = wake_owner
        self._wake_network = wake_network
        self._leads = 0
        self._leads_seen = 0
        self._idle_ticks = 0

    # Any thread.

    def posted(self, *, is_waiting: bool = False) -> None:
        """An event was appended to the inbox.

        While the socket is free, one event alone wakes no thread: its sender is probably about to wait, and leads.
        `is_waiting`: it is, in the next step, so it leads or calls `sleeps`.
        """
        if self.is_asleep:
            self.is_asleep = False
            self._wake_owner()
        elif self.is_free and not is_waiting and len(self._inbox) > 1:
            self.is_free = False
            self._wake_network()

    def stop(self) -> None:
        """Have the owner end its turns, and the network thread end."""
        self.is_stopping = True
        self._wake_owner()
        self._wake_network()

    # A waiting thread.

    def lead(self) -> bool:
        """Take the socket if it is free. `end_lead` must follow."""
        if not self.is_free or self.is_stopping or not self._lock.acquire(False):
            return False
        self._leads += 1
        self.is_free = False
        return True

    def end_lead(self, is_quiet: bool) -> None:
        """Release the socket. `is_quiet`: no answer is expected soon."""
        self.is_free = is_quiet
        self._lock.release()
        if not is_quiet or self._has_work:
            self._wake_network()

    def sleeps(self, gate: Any) -> None:
        """Note that the thread is about to sleep at its gate, and does not lead."""
        self.waits.add(gate)
        if self.is_free:
            self.is_free = False
            self._wake_network()

    # The network thread.

    def begin(self) -> None:
        """Own the socket from the start, before other threads know this object."""
        self._lock.acquire()

    def rest(self) -> bool:
        """Free the socket, after a turn that answered a waiting thread. Return False if it is attended again."""
        self._idle_ticks = 0
        self._leads_seen = self._leads
        return self._release()

    def tick(self) -> bool:
        """Take the socket for the turn of a tick, if no other thread leads. `end_tick` must follow."""
        return self._lock.acquire(False)

    def end_tick(self, is_quiet: bool) -> bool:
        """Free the socket again after the turn of a tick. Return False if it is attended from now on."""
        self._idle_ticks = self._idle_ticks + 1 if self._leads == self._leads_seen else 0
        self._leads_seen = self._leads
        if not is_quiet or self._idle_ticks >= SPELL_TICKS:
            self.is_free = False
            return False
        return self._release()

    def take(self) -> None:
        """Own the socket for good, to close it."""
        self.is_free = False
        self._lock.acquire()

    def _release(self) -> bool:
        self.is_free = True
        self._lock.release()
        # Events that came until now found an owner that was awake, so they woke no thread.
        if self._has_work and self._lock.acquire(False):
            self.is_free = False
            return False
        return True

    @property
    def _has_work(self) -> bool:
        return self.is_stopping or bool(self._inbox or self.waits or self.callbacks)

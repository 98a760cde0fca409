"""Idleness: an actor falls asleep after `idle_ms` without a request, unless there is work. Pure.

Owns the time of the last request and one timer; the machine defines work. Called by journal/machine.py and by the
machine of a partition.

    awake --idle timer, a request within idle_ms-->    awake, until idle_ms after that request
    awake --idle timer, work-->                        awake, checked again after `check_ms`
    awake --idle timer, neither-->                     asleep: the process ends
    asleep --a call, or the time to wake has come-->   the supervisor starts the next incarnation

There is no state between awake and asleep. In one turn the machine checks that all its decisions are durable and
answered, saves its state, and stops; a request that arrives later is not read, and the requester's loop repeats it
when the next incarnation is up (`transport/calls/`).
"""

from msgspec import Struct

from ...transport.machine import LoopEffect, SetTimer


class IdleTimer(Struct, frozen=True):
    """The time at which the actor may be idle."""


class Idleness:
    def __init__(self, idle_ms: int, check_ms: int) -> None:
        """`idle_ms` 0: never sleep."""
        self._idle_ms = idle_ms
        self._check_ms = check_ms
        self._last_request = 0

    def start(self, now: int) -> list[LoopEffect]:
        self._last_request = now
        return [SetTimer(IdleTimer(), now + self._idle_ms)] if self._idle_ms else []

    def on_request(self, now: int) -> None:
        self._last_request = now

    def on_timer(self, is_working: bool, now: int) -> tuple[list[LoopEffect], bool]:
        """Return effects, and True if it is time to sleep."""
        due = self._last_request + self._idle_ms
        if now < due:
            return [SetTimer(IdleTimer(), due)], False
        if is_working:
            return [SetTimer(IdleTimer(), now + min(self._idle_ms, self._check_ms))], False
        return [], True

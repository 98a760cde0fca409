"""Idleness: a coordinator falls asleep after `idle_ms` without a request, unless there is work. Pure.

Owns the time of the last request and one timer; the machine defines work. Called by machine.py.

    awake --idle timer, a request within idle_ms-->    awake, until idle_ms after that request
    awake --idle timer, work-->                        awake, checked again after CHECK_MS
    awake --idle timer, neither-->                     asleep: the process ends
    asleep --a call-->                                 the supervisor starts the next incarnation, which replays the group

There is no state between awake and asleep. In one turn the machine checks that all its decisions are durable and
answered, saves the snapshot, and stops; a request that arrives later is not read, and the requester's loop repeats it
when the next incarnation is up (`transport/calls.py`).
"""

from ...transport.machine import Effect, SetTimer

IDLE = "idle"
CHECK_MS = 30_000


class Idleness:
    def __init__(self, idle_ms: int) -> None:
        """`idle_ms` 0: never sleep."""
        self._idle_ms = idle_ms
        self._last_request = 0

    def start(self, now: int) -> list[Effect]:
        self._last_request = now
        return [SetTimer(IDLE, now + self._idle_ms)] if self._idle_ms else []

    def on_request(self, now: int) -> None:
        self._last_request = now

    def on_timer(self, is_working: bool, now: int) -> tuple[list[Effect], bool]:
        """Return effects, and True if it is time to sleep."""
        due = self._last_request + self._idle_ms
        if now < due:
            return [SetTimer(IDLE, due)], False
        if is_working:
            return [SetTimer(IDLE, now + min(self._idle_ms, CHECK_MS))], False
        return [], True

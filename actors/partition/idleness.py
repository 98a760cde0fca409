"""The sleep of a partition without traffic: after `idle_ms` without a request, unless there is work. Pure.

Owns the time of the last request and one timer. The machine defines which other work
counts. Called by machine.py.

    awake  --idle timer, a request within idle_ms-->    awake, until idle_ms after that request
    awake  --idle timer, work-->                        awake, checked again after CHECK_MS
    awake  --idle timer, neither-->                     asleep: retention runs once more, the process ends
    asleep --a call, or `longest_sleep_ms` have passed (upkeep.py)-->  awake

As with groups there is no state between awake and asleep (`coordinator/idleness.py`).
"""

from ...transport.machine import SetTimer
from .effects import Effect
from .timers import SleepDue

CHECK_MS = 5_000


class Idleness:
    def __init__(self, idle_ms: int) -> None:
        """Set the idle time; `idle_ms` 0: never sleep."""
        self._idle_ms = idle_ms
        self._last_request = 0

    def start(self, now: int) -> list[Effect]:
        self._last_request = now
        return [SetTimer(SleepDue(), now + self._idle_ms)] if self._idle_ms else []

    def on_request(self, now: int) -> None:
        self._last_request = now

    def on_timer(self, is_working: bool, now: int) -> tuple[list[Effect], bool]:
        """Return effects, and whether it is time to sleep."""
        due = self._last_request + self._idle_ms
        if now < due:
            return [SetTimer(SleepDue(), due)], False
        if is_working:
            return [SetTimer(SleepDue(), now + min(self._idle_ms, CHECK_MS))], False
        return [], True

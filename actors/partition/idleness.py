"""The sleep of a partition without traffic: after `idle_ms` without a request, unless there is work. Pure.

Owns the time of the last request, one timer, and the state of compaction. The machine defines which other work
counts. Called by machine.py.

    awake  --idle timer, a request within idle_ms-->    awake, until idle_ms after that request
    awake  --idle timer, work-->                        awake, checked again after CHECK_MS
    awake  --idle timer, neither-->                     asleep: retention runs once more, the process ends
    asleep --a call, or `longest_sleep_ms` have passed (ages.py)-->  awake

As with groups there is no state between awake and asleep (`coordinator/idleness.py`).
"""

from ...transport.machine import Effect, SetTimer

IDLE = "idle"
CHECK_MS = 5_000


class Idleness:
    def __init__(self, idle_ms: int) -> None:
        """Set the idle time; `idle_ms` 0: never sleep."""
        self._idle_ms = idle_ms
        self._last_request = 0
        self.is_compacted = False
        """True if compaction has run since the last write, and has no more to do."""

    def start(self, now: int) -> list[Effect]:
        self._last_request = now
        return [SetTimer(IDLE, now + self._idle_ms)] if self._idle_ms else []

    def on_request(self, now: int) -> None:
        self._last_request = now

    def on_timer(self, is_working: bool, now: int) -> tuple[list[Effect], bool]:
        """Return effects, and whether it is time to sleep."""
        due = self._last_request + self._idle_ms
        if now < due:
            return [SetTimer(IDLE, due)], False
        if is_working:
            return [SetTimer(IDLE, now + min(self._idle_ms, CHECK_MS))], False
        return [], True

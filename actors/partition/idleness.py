"""When a partition without traffic falls asleep: after `idle_ms` without a request, unless there is work. Pure.

Owns the time of the last request, one timer, and whether compaction has still something to do. What else counts as work
is the machine's to say. Called by machine.py.

    awake  --idle timer, a request within idle_ms-->    awake, until idle_ms after that request
    awake  --idle timer, work-->                        awake, looked at again after CHECK_MS
    awake  --idle timer, neither-->                     asleep: retention looks once more, the process ends
    asleep --a call, or `longest_sleep_ms` have passed (ages.py)-->  awake

As with groups there is nothing between awake and asleep (`coordinator/idleness.py`).
"""

from ...transport.machine import Effect, SetTimer

IDLE = "idle"
CHECK_MS = 5_000


class Idleness:
    def __init__(self, idle_ms: int) -> None:
        """`idle_ms` 0: never."""
        self._idle_ms = idle_ms
        self._last_request = 0
        self.is_compacted = False
        """Compaction has looked since the last write, and left nothing to do."""

    def start(self, now: int) -> list[Effect]:
        self._last_request = now
        return [SetTimer(IDLE, now + self._idle_ms)] if self._idle_ms else []

    def on_request(self, now: int) -> None:
        self._last_request = now

    def on_timer(self, is_working: bool, now: int) -> tuple[list[Effect], bool]:
        """Effects, and whether it is time to sleep."""
        due = self._last_request + self._idle_ms
        if now < due:
            return [SetTimer(IDLE, due)], False
        if is_working:
            return [SetTimer(IDLE, now + min(self._idle_ms, CHECK_MS))], False
        return [], True

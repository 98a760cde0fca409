"""A queue of events for the thread that runs a loop, posted by any other thread. Impure.

The first event after a `take` wakes the loop through a pipe, those behind it cost no system call.
"""

from collections import deque
from typing import Generic, TypeVar

from .wake_pipe import WakePipe

EventT = TypeVar("EventT")


class EventQueue(Generic[EventT]):
    def __init__(self) -> None:
        self._events: deque[EventT] = deque()
        self._wakes = WakePipe()
        self._is_awake = False

    def fileno(self) -> int:
        """Return the descriptor that is readable when there are events."""
        return self._wakes.fileno()

    def post(self, event: EventT) -> None:
        self._events.append(event)
        # The loop clears the mark before it takes: a thread that still finds it set appended in time to be taken.
        if not self._is_awake:
            self._is_awake = True
            self._wakes.wake()

    def take(self) -> list[EventT]:
        """Take the posted events, in the order of posting."""
        self._wakes.clear()
        self._is_awake = False
        return [self._events.popleft() for _ in range(len(self._events))]

    def close(self) -> None:
        self._wakes.close()

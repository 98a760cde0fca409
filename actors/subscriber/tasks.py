"""Tasks in the turns of the actor's loop: the event loop on which the asynchronous client runs here. Impure.

A task waits for signals alone, never for time: the machine's timers decide how long something may take. Signals are set
in the loop's own thread, by an effect or by a callback that the client's thread has posted; the tasks that they wake run
at the end of that turn. A task must not block. An exception that leaves it leaves the turn, and ends the actor.
"""

from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextlib import AbstractContextManager, nullcontext
from types import coroutine
from typing import Any, TypeAlias

from ...transport.aio.loops import Signal, Work
from .threads import Callback, Inbox

Task: TypeAlias = Coroutine["TaskSignal", None, None]


class TaskSignal:
    """A signal for which tasks wait."""

    def __init__(self, ready: deque[Task]) -> None:
        self.waiting: list[Task] = []
        self._ready = ready
        self._is_set = False

    def set(self) -> None:
        self._is_set = True
        self._ready += self.waiting
        self.waiting = []

    def is_set(self) -> bool:
        return self._is_set

    async def wait(self) -> None:
        if not self._is_set:
            await _suspend(self)


@coroutine
def _suspend(signal: TaskSignal) -> Generator[TaskSignal, None, None]:
    yield signal


class Tasks:
    """The tasks of one actor, and the interface that the client has to an event loop."""

    def __init__(self, inbox: Inbox) -> None:
        """Take the queue by which other threads reach the loop."""
        self._inbox = inbox
        self._ready: deque[Task] = deque()

    def start(self, task: Task) -> None:
        """Run it from the end of this turn on."""
        self._ready.append(task)

    def run(self) -> None:
        """Run the tasks whose signals are set, until all wait. Called at the end of each turn."""
        ready = self._ready
        while ready:
            task = ready.popleft()
            try:
                signal = task.send(None)
            except StopIteration:
                continue
            signal.waiting.append(task)

    # The event loop of the client.

    def call_soon(self, callback: Callable[[], object]) -> None:
        self._inbox.post(Callback(callback))

    def check(self) -> None:
        return  # its tasks run nowhere else

    def has_ended(self) -> bool:
        return False

    def signal(self) -> Signal:
        return TaskSignal(self._ready)

    def shield(self) -> AbstractContextManager[object]:
        return nullcontext()  # nothing is cancelled

    async def wait(self, signal: Signal, timeout_s: float | None) -> bool:
        assert timeout_s is None, "tasks do not wait for time"
        await signal.wait()
        return True

    async def within(self, work: Work, limit_s: float) -> bool:
        raise AssertionError("tasks do not wait for time")

    async def in_thread(self, call: Callable[[], Any]) -> Any:
        raise AssertionError("tasks use no threads")

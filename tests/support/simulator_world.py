"""The world of a simulation: one clock, one source of randomness, one queue of future events, and its hosts.

Nothing here depends on a broker. A Host is anything that takes turns and may be frozen or killed; a Program is a thread
that runs only while the world waits for it, so that blocking code runs deterministically as well. Time is in microseconds
and moves only when everything due has happened.
"""

import hashlib
import heapq
import random
import threading
from collections import deque
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

EPOCH_MS = 1_700_000_000_000
MS = 1_000
SECOND = 1_000_000
TRACE_LENGTH = 250


class Violation(AssertionError):
    """A guarantee was violated, or a process did something that only a bug can cause."""


class Crashed(BaseException):
    """A process dies here: its unsent and unwritten data is gone."""


class Killed(BaseException):
    """Ends a program's thread."""


class MachineClocks:
    """Clocks of the broker's machine, as their advance over the world's time. They only step."""

    def __init__(self) -> None:
        self.steady_ms = 0
        """For the processes that start from now on: it changes when the machine boots."""
        self.wall_ms = 0
        self.wall_of_ms: dict[str, int] = {}
        """Further error of single processes, by address."""

    def boot(self, wall_ms: int) -> None:
        """Restart the steady clock at the present time of day."""
        self.steady_ms = self.wall_ms = wall_ms
        self.wall_of_ms.clear()


class World:
    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.now_us = 0
        self.clocks = MachineClocks()
        self.events = 0
        self._queue: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._turns = count()
        self._digest = hashlib.sha256()
        self._trace: deque[tuple[int, str, str, str, bytes]] = deque(maxlen=TRACE_LENGTH)
        self.programs: list[Program] = []
        self.current_program: Program | None = None

    @property
    def now_ms(self) -> int:
        return EPOCH_MS + self.now_us // MS

    def monotonic(self) -> float:
        return self.now_us / SECOND

    def after(self, delay_us: int, action: Callable[..., None], *arguments: Any) -> None:
        heapq.heappush(self._queue, (self.now_us + delay_us, next(self._turns), action, arguments))

    def run(self, until_us: int, is_done: Callable[[], bool] | None = None, check_us: int = 200 * MS) -> bool:
        """Run all events until a time, or until `is_done`, polled now and then; return True if it held."""
        next_check = self.now_us
        while self._queue and self._queue[0][0] <= until_us:
            if is_done is not None and self._queue[0][0] >= next_check:
                if is_done():
                    return True
                next_check = self._queue[0][0] + check_us
            self.now_us, _, action, arguments = heapq.heappop(self._queue)
            self.events += 1
            action(*arguments)
        self.now_us = until_us
        return is_done() if is_done is not None else True

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def between(self, least: int, most: int) -> int:
        return self.random.randint(least, most)

    def note(self, kind: str, source: str, target: str = "", header: bytes = b"") -> None:
        """Record an event for the trace. All of it goes into the fingerprint; the last ones can be read."""
        self._digest.update(f"{self.now_us}|{kind}|{source}|{target}|{len(header)}|".encode())
        self._digest.update(header)
        self._trace.append((self.now_us, kind, source, target, header))

    @property
    def fingerprint(self) -> str:
        return self._digest.hexdigest()

    def trace(self) -> Iterator[str]:
        for at_us, kind, source, target, header in self._trace:
            arrow = f"{source} -> {target}" if target else source
            yield f"{at_us / SECOND:10.6f} {kind:9} {arrow}  {_readable(header)}"

    def end(self) -> None:
        for program in self.programs:
            program.kill()


def _readable(header: bytes) -> str:
    if not header:
        return ""
    try:
        import msgspec

        text = repr(msgspec.msgpack.decode(header))
    except Exception:  # noqa: BLE001 - only for reading; a header may be anything
        text = repr(header)
    return text if len(text) <= 230 else f"{text[:230]}..."


class Host:
    """Takes turns: woken by messages and timers, silent when frozen, gone when killed."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.is_alive = True
        self.is_frozen = False
        self.doom: int | None = None
        """Steps left until it dies in the middle of a turn."""
        self.sockets: list[Any] = []
        self._wake_at: int | None = None
        self._busy_until = 0

    def step(self) -> None:
        """Mark a point in a turn where it may die."""
        if self.doom is None:
            return
        self.doom -= 1
        if self.doom < 0:
            self.doom = None
            raise Crashed

    def busy(self, duration_us: int) -> None:
        """Extend the turn by this duration; the next one comes after it."""
        self._busy_until = max(self._busy_until, self.world.now_us) + duration_us

    @property
    def lag_us(self) -> int:
        """Return the delay after which messages of this turn leave the process."""
        return max(0, self._busy_until - self.world.now_us)

    def wake(self, delay_us: int = 0) -> None:
        if not self.is_alive or self.is_frozen:
            return
        at = max(self.world.now_us + delay_us, self._busy_until)
        if self._wake_at is not None and self._wake_at <= at:
            return
        self._wake_at = at
        self.world.after(at - self.world.now_us, self._on_wake, at)

    def _on_wake(self, at: int) -> None:
        if self._wake_at != at or not self.is_alive or self.is_frozen:
            return
        self._wake_at = None
        self.turn()

    def freeze(self) -> None:
        self.is_frozen = True
        self._wake_at = None

    def thaw(self) -> None:
        self.is_frozen = False
        self.wake()

    def turn(self) -> None:
        raise NotImplementedError

    def on_connection(self, endpoint: str, is_refused: bool) -> None:
        """Handle the end or refusal of a connection that this host dialled."""


class Program:
    """A thread with a baton: it runs from `resume` until it waits, and the world stands still meanwhile."""

    def __init__(self, world: World, main: Callable[[], None], host: Host | None = None) -> None:
        self._world = world
        self._host = host
        self._main = main
        self._mine = threading.Lock()
        self._theirs = threading.Lock()
        self._mine.acquire()
        self._theirs.acquire()
        self._is_killed = False
        self._error: BaseException | None = None
        self._token = 0
        self.is_over = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        world.programs.append(self)
        self._thread.start()
        world.after(0, self._resume, 0)

    def _run(self) -> None:
        self._mine.acquire()
        try:
            if not self._is_killed:
                self._main()
        except Killed:
            pass
        except BaseException as error:  # noqa: BLE001 - handed to the world
            self._error = error
        self.is_over = True
        self._theirs.release()

    def _resume(self, token: int) -> None:
        if token != self._token or self.is_over:
            return
        if self._host is not None and self._host.is_frozen:
            self._world.after(10 * MS, self._resume, token)
            return
        self._hand_over()
        if self._error is not None:
            raise self._error

    def _hand_over(self) -> None:
        self._token += 1
        before, self._world.current_program = self._world.current_program, self
        self._mine.release()
        self._theirs.acquire()
        self._world.current_program = before

    def kill(self) -> None:
        if not self.is_over:
            self._is_killed = True
            self._hand_over()
            self._thread.join()

    # In the thread.

    def pause(self) -> None:
        """Give the baton back until this wait is resumed."""
        self._theirs.release()
        self._mine.acquire()
        if self._is_killed:
            raise Killed

    def wake_after(self, delay_us: int) -> None:
        """End the current or next wait after a while; a no-op once it has ended otherwise."""
        self._world.after(delay_us, self._resume, self._token)

    def sleep(self, duration_us: int) -> None:
        self.wake_after(duration_us)
        self.pause()


class BatonEvent:
    """threading.Event for programs."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._is_set = False
        self._waiter: Program | None = None

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        if self._waiter is not None:
            waiter, self._waiter = self._waiter, None
            waiter.wake_after(20)

    def clear(self) -> None:
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        if self._is_set:
            return True
        program = self._world.current_program
        assert program is not None
        self._waiter = program
        if timeout is not None:
            program.wake_after(max(1, int(timeout * SECOND)))
        program.pause()
        self._waiter = None
        return self._is_set

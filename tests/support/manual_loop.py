"""The turns of a real actor with the clock of a test: no socket, no thread, no spontaneous step.

Everything between an event and a reply is the product's own: the actor's process, and `Turns` around it. The output
of a turn is in `replies` and `calls` until the test takes it. `OneFile` is the directory of an actor that keeps
one file.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from planaria.actors.journal.sleep_mark import SUFFIX
from planaria.actors.log.errors import StorageFull
from planaria.actors.log.files import Files
from planaria.transport.actor import Actor, ActorContext
from planaria.transport.addresses import Address
from planaria.transport.machine import Call, CancelCall, Cast, Event, Reply, TimerFired, WallClockStepped
from planaria.transport.turns import Turns


def context_of(
    address: str, incarnation: int, arguments: dict[str, Any], data_directory: str = "/nowhere"
) -> ActorContext:
    return ActorContext(
        address=Address.parse(address),
        incarnation=incarnation,
        arguments=arguments,
        run_directory="/nowhere/run",
        data_directory=data_directory,
        control_endpoint="unused",
        instance_id="run",
    )


class ManualLoop(Turns):
    """`clock` returns the time. A turn begins when the test has an event, or when time has passed."""

    def __init__(self, actor: Actor, context: ActorContext, clock: Callable[[], int]) -> None:
        super().__init__(actor, context)
        self._clock = clock
        self.replies: list[Reply] = []
        self.calls: list[Call | CancelCall | Cast] = []
        self.fired: list[Any] = []
        """Keys of the fired timers, in order."""
        self.is_ready = False
        self.ahead = WallClockStepped(0)
        """Advance of the other clocks over `clock`; `step` changes it."""

    def step(self, ahead: WallClockStepped) -> None:
        self.ahead = ahead
        if self.is_ready:
            self.turn(ahead)

    def start(self) -> None:
        """Perform the start of a process before its first turn."""
        self._actor.start()
        self._end_turn()

    def turn(self, *events: Event) -> None:
        for event in events:
            self.dispatch(event)
        self._end_turn()

    @property
    def now(self) -> int:
        return self._clock()

    @property
    def next_timer_at(self) -> int | None:
        return self._timers.next_at()

    @property
    def timers(self) -> list[Any]:
        """Return the keys of the timers that run."""
        return list(self._timers)

    @property
    def is_stopped(self) -> bool:
        return self._stopping

    @property
    def is_asleep(self) -> bool:
        return self._sleep is not None

    def dispatch(self, event: Event) -> None:
        if isinstance(event, TimerFired):
            self.fired.append(event.key)
        super().dispatch(event)

    def progress(self) -> None:
        """Do nothing: there is no supervisor."""

    @property
    def wall_offset_ms(self) -> int:
        return self.ahead.offset_ms

    @property
    def slept_ms(self) -> int:
        return self.ahead.slept_ms

    def ready(self) -> None:
        self.is_ready = True
        if self._actor.follows_wall_clock:
            self.dispatch(self.ahead)

    def _expire_calls(self, now: int) -> None:
        """Do nothing: the test decides about the answer to a call."""

    def _answer(self, reply: Reply) -> None:
        self._outbox.append(reply)

    def _send_reply(self, answer: Reply) -> None:
        self.replies.append(answer)

    def _send_out(self, effect: Call | CancelCall | Cast) -> None:
        self.calls.append(effect)


class OneFile(Files):
    """A directory in memory with one file in it, replaced atomically and durably."""

    def __init__(self) -> None:
        super().__init__()
        self.content: bytes | None = None
        self.marks: set[str] = set()
        """Names of empty files whose presence marks an actor as asleep."""
        self.is_full = False
        self.free = 1_000_000_000
        self.measured = 0

    def make_directory(self, path: Path) -> None:
        pass

    def sync_directory(self, path: Path) -> None:
        pass

    def read_whole(self, path: Path) -> bytes | None:
        if path.suffix == SUFFIX:
            return b"" if path.name in self.marks else None
        return self.content

    def replace(self, path: Path, data: bytes) -> None:
        if self.is_full:
            raise StorageFull("no space left in memory")
        if path.suffix == SUFFIX:
            self.marks.add(path.name)
        else:
            self.content = data

    def unlink(self, path: Path) -> None:
        if path.suffix == SUFFIX:
            self.marks.discard(path.name)
        else:
            self.content = None

    def free_bytes(self, directory: Path) -> int:
        self.measured += 1
        return self.free

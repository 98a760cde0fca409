"""A controller with a simulated supervisor, partitions and disk, all of them obedient or not.

The controller's process and the turns around it are the product's own; only files, calls and clock are the test's.
"""

from collections import deque
from pathlib import Path
from typing import Any

import msgspec

from manual_loop import ManualLoop, OneFile, context_of
from planaria.actors.controller.catalog import Catalog, decode_catalog, encode_catalog
from planaria.actors.controller.effects import RemoveTopic
from planaria.actors.controller.machine import ControllerMachine
from planaria.actors.controller.process import ControllerActor
from planaria.actors.controller.storage import CATALOG_NAME
from planaria.actors.log.errors import StorageFull
from planaria.actors.metadata.store import MetadataStore
from planaria.transport.addresses import Address
from planaria.transport.machine import (
    Answered,
    Call,
    CancelCall,
    Cast,
    Failed,
    PeerDown,
    PeerUp,
    Received,
    Sender,
)
from planaria.transport.protocol.control import ChildSpec, StartChild, StopChild
from planaria.transport.protocol.errors import ErrorBody
from planaria.transport.protocol.groups import DeleteGroup
from planaria.transport.protocol.message import Done, Request
from planaria.transport.protocol.operations import ActorStatus, Status, StatusReply
from planaria.transport.protocol.topics import (
    DescribePartition,
    DescribePartitionReply,
    HighestEra,
    HighestEraReply,
    PartitionDescription,
)


class _Files(OneFile):
    """Keeps the catalog, and forgets the labels of folders."""

    def __init__(self, catalog: Catalog) -> None:
        super().__init__()
        self.content = encode_catalog(catalog)
        self.saved: list[Catalog] = []

    def read_whole(self, path: Path) -> bytes | None:
        return self.content if path.name == CATALOG_NAME else None

    def replace(self, path: Path, data: bytes) -> None:
        if path.name == CATALOG_NAME:
            is_changed = data != self.content  # not so at the start, which makes durable what it has read
            super().replace(path, data)
            if is_changed:
                self.saved.append(decode_catalog(data, str(path)))
        elif self.is_full:
            raise StorageFull("no space left in memory")


class _Actor(ControllerActor):
    """A disk that takes its time, and actors that slept when the broker ended."""

    is_save_held = False

    def __init__(self, driver: "ControllerDriver", incarnation: int, arguments: dict[str, Any]) -> None:
        context = context_of("controller", incarnation, arguments)
        super().__init__(context, driver.files, driver.store)
        self._driver = driver

    def _asleep(self, _: Catalog) -> dict[str, int | None]:
        return dict(self._driver.slept_before)

    def perform(self, effect: Any) -> None:
        if isinstance(effect, RemoveTopic):
            self._driver.removed.append(effect)
        super().perform(effect)

    def end_turn(self) -> None:
        if not self.is_save_held:
            super().end_turn()


class ControllerDriver:
    """Driver: `ask` passes a request and runs all possible steps; answers are in `replies` by the request's number.

    The controller starts with `load`, or with its first event.
    """

    def __init__(
        self,
        catalog: Catalog | None = None,
        asleep: dict[str, int | None] | None = None,
        store: MetadataStore | None = None,
        incarnation: int = 1,
        **arguments: Any,
    ) -> None:
        self.now = 1_000_000
        self.store = store
        """A store of the test's; None: the file."""
        self.slept_before = asleep or {}
        """Actors whose marks the controller finds at its start."""
        self.files = _Files(catalog or Catalog(catalog_id="test"))
        self._actor = _Actor(self, incarnation, msgspec.to_builtins(arguments))
        self.loop = ManualLoop(self._actor, self._actor.context, lambda: self.now)
        self._is_started = False
        self.replies: dict[int, Any] = {}
        self.specs: dict[str, ChildSpec] = {}
        self.up: dict[str, int] = {}
        self.asleep: dict[str, int | None] = {}
        self.woken: list[str] = []
        self.orphans: set[str] = set()
        """Children that run without this controller's command."""
        self.eras: dict[str, int] = {}
        """Highest era known to the partitions."""
        self.casts: list[Cast] = []
        self.removed: list[RemoveTopic] = []
        # Injected faults.
        self.comes_up = True
        self.refuses_orders = False
        self.forgets: ErrorBody | None = None
        self._events: deque[Any] = deque()
        self._endless: list[Call] = []
        """Endless calls until their next attempt, when time passes."""
        self._last_number = 0

    @property
    def machine(self) -> ControllerMachine:
        return self._actor.machine  # type: ignore[return-value]

    @property
    def timers(self) -> list[Any]:
        """Keys of the timers that run."""
        return self.loop.timers

    @property
    def stopped(self) -> bool:
        return self.loop.is_stopped

    @property
    def saved(self) -> list[Catalog]:
        """Every catalog made durable since the start."""
        return self.files.saved

    @property
    def is_full(self) -> bool:
        return self.files.is_full

    @is_full.setter
    def is_full(self, is_full: bool) -> None:
        self.files.is_full = is_full

    @property
    def is_save_held(self) -> bool:
        """True while the disk is not done with a catalog; the controller goes on with its turns."""
        return self._actor.is_save_held

    @is_save_held.setter
    def is_save_held(self, is_held: bool) -> None:
        self._actor.is_save_held = is_held

    def load(self) -> None:
        assert not self._is_started
        self.run()

    def ask(self, request: Request) -> int:
        number = self.send(request)
        self.run()
        return number

    def send(self, request: Request) -> int:
        self._last_number += 1
        sender = Sender((b"asker",), self._last_number)
        self._events.append(Received(sender, request))
        return self._last_number

    def answer(self, request: Request) -> Any:
        """Return the answer to a request that must be answered now."""
        return self.replies[self.ask(request)]

    def give(self, event: Any) -> None:
        self._events.append(event)
        self.run()

    def run(self) -> None:
        """Run turns until nothing is left to do without time."""
        if not self._is_started:
            self._is_started = True
            self.loop.start()
        else:
            self.loop.turn()
        self._take_output()
        while self._events:
            # Several may arrive together.
            events, self._events = list(self._events), deque()
            self.loop.turn(*events)
            self._take_output()

    def advance(self, milliseconds: int) -> None:
        """Let time pass, and every timer in it fire in order."""
        until = self.now + milliseconds
        endless, self._endless = self._endless, []
        self._events += [outcome for call in endless if (outcome := self._answer_call(call)) is not None]
        self.run()
        while (at := self.loop.next_timer_at) is not None and at <= until:
            self.now = max(self.now, at)
            self.run()
        self.now = until

    def bring_up(self, address: str) -> None:
        self.up[address] = self.up.get(address, 0) + 1
        self.give(
            PeerUp(address=Address.parse(address), incarnation=self.up[address], endpoint=f"ipc://{address}")
        )

    def bring_down(self, address: str, reason: str = "killed by SIGKILL", quarantined: bool = False) -> None:
        self.give(
            PeerDown(
                address=Address.parse(address),
                incarnation=self.up[address],
                reason=reason,
                quarantined=quarantined,
            )
        )

    def _take_output(self) -> None:
        replies, self.loop.replies = self.loop.replies, []
        for reply in replies:
            assert isinstance(reply.to.id, int)
            assert reply.to.id not in self.replies, "answered twice"
            self.replies[reply.to.id] = reply.body
        calls, self.loop.calls = self.loop.calls, []
        for call in calls:
            match call:
                case Call():
                    outcome = self._answer_call(call)
                    if outcome is not None:
                        self._events.append(outcome)
                case Cast():
                    self.casts.append(call)
                case CancelCall(token=token):
                    self._endless = [call for call in self._endless if call.token != token]

    def _answer_call(self, call: Call) -> Any:
        request = call.request
        if call.address == "supervisor" and self.refuses_orders:
            assert call.is_endless, call
            self._endless.append(call)
            return None
        match request:
            case StartChild(spec=spec):
                is_new = spec.address not in self.specs and not request.is_asleep
                self.specs[spec.address] = spec
                if request.is_asleep:
                    self.asleep[spec.address] = request.wake_after_ms
                elif spec.address in self.asleep:
                    del self.asleep[spec.address]
                    self.woken.append(spec.address)
                if is_new and self.comes_up:
                    self.up[spec.address] = self.up.get(spec.address, 0) + 1
                    incarnation = self.up[spec.address]
                    self._events.append(
                        PeerUp(address=spec.address, incarnation=incarnation, endpoint="ipc://x")
                    )
                return Answered(call.key, Done())
            case StopChild(address=address):
                self.specs.pop(address, None)
                self.orphans.discard(address)
                return Answered(call.key, Done())
            case Status():
                return Answered(call.key, self._status())
            case DescribePartition():
                partition = int(call.address.rpartition("/")[2])
                description = PartitionDescription(partition=partition, online=True, high_watermark=7)
                return Answered(call.key, DescribePartitionReply(description=description))
            case HighestEra():
                return Answered(call.key, HighestEraReply(era=self.eras.get(call.address, -1)))
            case DeleteGroup():
                if self.forgets is not None:
                    return Failed(call.key, self.forgets)
                return Answered(call.key, Done())
        raise AssertionError(request)

    def _status(self) -> StatusReply:
        children = ["controller", "gateway/0", *self.specs, *self.orphans]
        return StatusReply(
            supervisor_pid=1,
            instance_id="run",
            data_directory="",
            endpoint="",
            uptime_ms=0,
            actors=[
                ActorStatus(
                    address=Address.parse(address),
                    pid=2,
                    incarnation=1,
                    restarts=0,
                    state="ready",
                    uptime_ms=0,
                    memory_bytes=0,
                )
                for address in children
            ],
        )

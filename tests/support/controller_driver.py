"""A controller machine with a simulated supervisor, partitions and disk, all of them obedient or not."""

from collections import deque
from typing import Any

from planaria.actors.controller.catalog import Catalog
from planaria.actors.controller.effects import (
    CatalogNotSaved,
    CatalogSaved,
    Loaded,
    RemoveTopic,
    SaveCatalog,
    TopicRemoved,
)
from planaria.actors.controller.machine import ControllerMachine
from planaria.transport.machine import (
    Answered,
    Call,
    CancelTimer,
    Cast,
    Failed,
    PeerDown,
    PeerUp,
    Received,
    Reply,
    Sender,
    SetTimer,
    Stop,
    TimerFired,
)
from planaria.transport.protocol.control import ChildSpec, StartChild, StopChild
from planaria.transport.protocol.errors import ErrorBody, ErrorCode
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

FULL = ErrorBody(ErrorCode.STORAGE_FULL, "no room", True)


class ControllerDriver:
    """Driver: `ask` passes a request and runs all possible steps; answers are in `replies` by the request's number."""

    def __init__(self, catalog: Catalog | None = None, **options: Any) -> None:
        self.machine = ControllerMachine(catalog or Catalog(catalog_id="test"), **options)
        self.now = 1_000_000
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
        self.timers: dict[Any, int] = {}
        self.saved: list[Catalog] = []
        self.stopped = False
        # Injected faults.
        self.is_full = False
        self.is_save_held = False
        self.comes_up = True
        self.refuses_orders = False
        self.forgets: ErrorBody | None = None
        self._unsaved: Catalog | None = None
        self._events: deque[Any] = deque()
        self._last_number = 0

    def load(self) -> None:
        self.give(Loaded())

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
        while self._events or (self._unsaved is not None and not self.is_save_held):
            while self._events:
                for effect in self.machine.handle(self._events.popleft(), self.now):
                    self._perform(effect)
            if not self.is_save_held:
                self._save()

    def advance(self, milliseconds: int) -> None:
        """Let time pass, and every timer in it fire in order."""
        until = self.now + milliseconds
        while due := sorted((at, str(key), key) for key, at in self.timers.items() if at <= until):
            at, _, key = due[0]
            self.now = max(self.now, at)
            del self.timers[key]
            self.give(TimerFired(key))
        self.now = until

    def bring_up(self, address: str) -> None:
        self.up[address] = self.up.get(address, 0) + 1
        self.give(PeerUp(address=address, incarnation=self.up[address], endpoint=f"ipc://{address}"))

    def bring_down(self, address: str, reason: str = "killed by SIGKILL", quarantined: bool = False) -> None:
        self.give(
            PeerDown(address=address, incarnation=self.up[address], reason=reason, quarantined=quarantined)
        )

    def _save(self) -> None:
        if self._unsaved is None:
            return
        catalog, self._unsaved = self._unsaved, None
        if self.is_full:
            self._events.append(CatalogNotSaved(FULL))
        else:
            self.saved.append(catalog)
            self._events.append(CatalogSaved(catalog.revision))

    def _perform(self, effect: Any) -> None:
        match effect:
            case SaveCatalog(catalog=catalog):
                self._unsaved = catalog
            case Reply(to=to, body=body):
                assert isinstance(to.id, int)
                assert to.id not in self.replies, "answered twice"
                self.replies[to.id] = body
            case Call():
                self._events.append(self._answer_call(effect))
            case Cast():
                self.casts.append(effect)
            case SetTimer(key=key, at=at):
                self.timers[key] = at
            case CancelTimer(key=key):
                self.timers.pop(key, None)
            case RemoveTopic(topic=topic):
                self.removed.append(effect)
                self._events.append(TopicRemoved(topic))
            case Stop():
                self.stopped = True
            case _:
                raise AssertionError(effect)

    def _answer_call(self, call: Call) -> Any:
        request = call.request
        if call.address == "supervisor" and self.refuses_orders:
            return Failed(call.key, ErrorBody(ErrorCode.TIMED_OUT, "no answer", True))
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
                    address=address,
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

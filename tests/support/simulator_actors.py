"""Actors in a simulation: the real processes and the real loop, on simulated sockets, disks and time.

`replacing_the_world` replaces the clock, sockets, log, lock and randomness where the product imports the real ones;
everything else is the product's own code. An ActorHost is one incarnation of one actor. It may die at any effect, write,
sync or message of a turn.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import zmq

from memory_log import MemoryDisk, MemoryLog, Step, opener
from planaria.actors.controller.process import ControllerActor
from planaria.actors.coordinator.process import CoordinatorActor
from planaria.actors.gateway.process import GatewayActor
from planaria.actors.log.errors import StorageFull
from planaria.actors.log.files import Files
from planaria.actors.log.lock import DirectoryLock
from planaria.actors.partition.process import PartitionProcess
from planaria.actors.transactions.process import TransactionsActor
from planaria.transport.actor import Actor, ActorContext
from planaria.transport.batch import BatchHeader
from planaria.transport.endpoints import control_endpoint
from planaria.transport.loop import Loop
from planaria.transport.machine import Event
from planaria.transport.protocol.control import ChildSpec
from simulator_network import Network, SimulatedContext, SimulatedPoller
from simulator_world import BatonEvent, Crashed, Host, Violation, World

RUN_DIRECTORY = "/simulated/run"
DATA_DIRECTORY = "/simulated/data"
INSTANCE_ID = "simulation"
GATEWAY_ENDPOINT = "tcp://127.0.0.1:5570"
HEARTBEAT_INTERVAL_MS = 1_000


class PartitionDisk(MemoryDisk):
    """One partition's directory, with the rule that each leader epoch belongs to one incarnation."""

    def __init__(self) -> None:
        super().__init__()
        self.is_locked = False
        self.written_by: dict[int, str] = {}
        """Leader epoch -> the one incarnation whose batches may carry it."""

    def crash(self, world: World) -> None:
        """Lose all unsynced data, except for a part of it."""
        self.is_locked = False
        del self.batches[world.between(self.durable, len(self.batches)) :]
        epochs = {header.leader_epoch for header, _ in self.batches}
        self.written_by = {epoch: name for epoch, name in self.written_by.items() if epoch in epochs}


class Disks:
    """State that outlives processes."""

    def __init__(self) -> None:
        self.partitions: dict[str, PartitionDisk] = {}
        self.files: dict[str, list[bytes]] = {}
        """Each file's contents, the newest last."""
        self.full_until = 0

    def partition(self, directory: Path) -> PartitionDisk:
        return self.partitions.setdefault(
            str(directory.relative_to(f"{DATA_DIRECTORY}/topics")), PartitionDisk()
        )


class SimulatedLog(MemoryLog):
    """The log of one incarnation: it may die at each step, and a sync takes time."""

    _disk: PartitionDisk

    def __init__(self, disk: PartitionDisk, host: "ActorHost", config: Any, now_ms: int) -> None:
        self._host = host
        super().__init__(disk, config, now_ms)

    def _step(self, step: Step, header: BatchHeader | None = None) -> None:
        if step == "synced":
            self._host.busy(self._host.sync_us)
        self._host.step()
        if header is not None:
            writer = self._disk.written_by.setdefault(header.leader_epoch, self._host.name)
            if writer != self._host.name:
                raise Violation(
                    f"{self._host.name} writes in the epoch {header.leader_epoch} of another incarnation"
                )

    def _is_full(self) -> bool:
        return self._host.world.now_us < self._host.disks.full_until


class SimulatedLock(DirectoryLock):
    """Lock held by one process at a time."""

    def __init__(self, disk: PartitionDisk) -> None:
        assert not disk.is_locked, "two processes have one partition's directory"
        disk.is_locked = True
        self._disk = disk

    def release(self) -> None:
        self._disk.is_locked = False


class SimulatedFiles(Files):
    """The part of Files that catalog and snapshots use; replaced atomically, durably."""

    def __init__(self, host: "ActorHost") -> None:
        super().__init__()
        self._host = host

    def read_whole(self, path: Path) -> bytes | None:
        versions = self._host.disks.files.get(str(path))
        return versions[-1] if versions else None

    def replace(self, path: Path, data: bytes) -> None:
        self._host.step()
        if self._host.world.now_us < self._host.disks.full_until:
            raise StorageFull("no space left on the simulated device")
        self._host.disks.files.setdefault(str(path), []).append(data)
        self._host.busy(self._host.sync_us)
        self._host.step()

    def unlink(self, path: Path) -> None:
        self._host.step()
        self._host.disks.files.pop(str(path), None)

    def exists(self, path: Path) -> bool:
        return any(Path(name).is_relative_to(path) for name in self._host.disks.files)

    def names(self, directory: Path) -> list[str]:
        return sorted(Path(name).name for name in self._host.disks.files if Path(name).parent == directory)

    def make_directory(self, path: Path) -> None:
        pass

    def sync_directory(self, path: Path) -> None:
        pass

    def free_bytes(self, directory: Path) -> int:
        return 1_000_000_000


class Taps:
    """Listeners to the actors' messages; the checks use them."""

    def on_received(self, host: "ActorHost", event: Event) -> None: ...

    def on_reply(self, host: "ActorHost", frames: list[Any]) -> None: ...


class SimulatedLoop(Loop):
    """The loop, one turn at a time."""

    def __init__(self, host: "ActorHost", actor: Actor, context: ActorContext) -> None:
        super().__init__(actor, context)
        self._host = host
        self._is_begun = False
        self.is_over = False

    def clock_ns(self) -> int:  # type: ignore[override]
        return self._host.world.now_us * 1_000

    def begin(self) -> None:
        """Run `run` up to its first turn."""
        try:
            self.run()
        except _Begun:
            self._is_begun = True

    def _turn(self) -> None:
        if not self._is_begun:
            raise _Begun
        super()._turn()

    def turn(self) -> None:
        self._turn()
        if self._stopping:
            self._finish()
            self.is_over = True

    @property
    def patience_us(self) -> int:
        return self._timeout_ms() * 1_000

    def dispatch(self, event: Event) -> None:
        self._host.step()
        self._host.taps.on_received(self._host, event)
        super().dispatch(event)

    def _send_reply(self, answer: Any) -> None:
        self._host.taps.on_reply(self._host, answer[0])
        super()._send_reply(answer)


class SimulatedClock:
    """The clocks as one process of the broker's machine reads them."""

    slept_ms = 0
    ahead_ms = 0

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self._name = name
        self._steady_ms = world.clocks.steady_ms
        self.offset_ms = 0
        self.follow()

    def now_ms(self) -> int:
        return self._world.now_ms + self._steady_ms

    def follow(self) -> int:
        clocks = self._world.clocks
        before = self.offset_ms
        self.offset_ms = clocks.wall_ms + clocks.wall_of_ms.get(self._name, 0) - self._steady_ms
        return self.offset_ms - before


class _Begun(Exception):
    """The loop is about to take its first turn."""


class ActorHost(Host):
    """One incarnation of an actor."""

    def __init__(
        self,
        world: World,
        network: Network,
        disks: Disks,
        taps: Taps,
        spec: ChildSpec,
        incarnation: int,
        on_end: "Callable[[ActorHost, str], None]",
    ) -> None:
        super().__init__(world, f"{spec.address}.{incarnation}")
        self.address = spec.address
        self.incarnation = incarnation
        self.network = network
        self.disks = disks
        self.taps = taps
        self.sync_us = world.between(80, 900)
        self.actor: Actor
        self._spec = spec
        self._on_end = on_end
        self._loop: SimulatedLoop | None = None
        self._deadline_at = -1

    def turn(self) -> None:
        CURRENT.host = self
        try:
            if self._loop is None:
                self._loop = self._make()
                self._loop.begin()
            else:
                self._loop.turn()
        except Crashed:
            self.world.note("crash", self.name)
            self.end("killed by SIGKILL")
            return
        if self._loop.is_over:
            self.end("exited")
            return
        self.busy(self.world.between(5, 60))
        self._sleep(self._loop.patience_us)

    def _sleep(self, patience_us: int) -> None:
        if any(socket.inbox for socket in self.sockets):
            self.wake()
        # Messages may wake it earlier; an idle turn costs nothing.
        at = self.world.now_us + patience_us
        if not self.world.now_us < self._deadline_at <= at:
            self._deadline_at = at
            self.world.after(patience_us, self._on_timeout, at)

    def _on_timeout(self, at: int) -> None:
        if self._deadline_at == at:
            self._deadline_at = -1
            self.wake()

    def thaw(self) -> None:
        self._deadline_at = -1
        super().thaw()

    def end(self, reason: str) -> None:
        """End, with the loss of everything in memory."""
        if not self.is_alive:
            return
        self.is_alive = False
        self.network.kill(self, is_orderly=reason == "exited")
        if reason != "exited" and self.address.startswith("partition/"):
            self.disks.partition(self._directory).crash(self.world)
        self._on_end(self, reason)

    @property
    def _directory(self) -> Path:
        return Path(DATA_DIRECTORY) / self._spec.arguments["directory"]

    @property
    def disk(self) -> PartitionDisk:
        return self.disks.partition(self._directory)

    def _make(self) -> SimulatedLoop:
        context = ActorContext(
            address=self.address,
            incarnation=self.incarnation,
            arguments=self._spec.arguments,
            run_directory=RUN_DIRECTORY,
            data_directory=DATA_DIRECTORY,
            control_endpoint=control_endpoint(RUN_DIRECTORY),
            instance_id=INSTANCE_ID,
            directory=self._spec.directory,
            heartbeat_interval_ms=HEARTBEAT_INTERVAL_MS,
        )
        files = SimulatedFiles(self)
        makers: dict[str, Callable[[], Actor]] = {
            "controller": lambda: ControllerActor(context, files),
            "coordinator": lambda: CoordinatorActor(context, files),
            "gateway": lambda: GatewayActor(context),
            "transactions": lambda: TransactionsActor(context),
            "partition": lambda: PartitionProcess(
                context,
                files,
                opener(lambda config, now_ms: SimulatedLog(self.disk, self, config, now_ms)),
                lambda *_: SimulatedLock(self.disk),
            ),
        }
        self.actor = makers[self.address.partition("/")[0]]()
        return SimulatedLoop(self, self.actor, context)


CURRENT = SimpleNamespace(host=None)
"""Host of the current turn: new objects are created for it."""


@contextmanager
def replacing_the_world(world: World, network: Network) -> Iterator[None]:
    """Simulate time, sockets, disks and randomness wherever the product would use real ones."""

    def new_context() -> Any:
        return SimulatedContext(network, CURRENT.host)

    def uuid4() -> Any:
        return SimpleNamespace(hex=f"{world.random.getrandbits(128):032x}")

    replaced: dict[str, Any] = {
        "planaria.transport.loop.Clock": lambda _, name: SimulatedClock(world, name),
        "planaria.transport.loop.Poller": SimulatedPoller,
        "planaria.transport.loop.random": SimpleNamespace(random=world.random.random),
        "planaria.transport.server_side.ServerConnections": _NoMonitor,
        "planaria.transport.sockets.new_context": new_context,
        "planaria.transport.sockets.receive_frames": lambda socket, _=None: socket.recv_multipart(),
        "planaria.transport.sockets.has_message": lambda socket: bool(socket.get(zmq.EVENTS) & zmq.POLLIN),
        "planaria.transport.sockets.send_frames": lambda socket, frames: socket.send_multipart(frames),
        "planaria.transport.sockets.send_tracked": lambda socket, frames: socket.send_multipart(
            frames, track=True
        ),
        "planaria.transport.client.consumer.monotonic": world.monotonic,
        "planaria.transport.client.assigned_partitions.monotonic": world.monotonic,
        "planaria.transport.client.assigned_partitions.random": SimpleNamespace(random=world.random.random),
        "planaria.transport.client.assigned_partitions.uuid": SimpleNamespace(uuid4=uuid4),
        "planaria.transport.client.share_member.random": SimpleNamespace(random=world.random.random),
        "planaria.transport.client.share_consumer.threading": SimpleNamespace(
            Event=lambda: BatonEvent(world)
        ),
        "planaria.transport.client.consumer.Bell": lambda: BatonEvent(world),
    }
    patches = [mock.patch(name, value) for name, value in replaced.items()]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in reversed(patches):
            patch.stop()
        CURRENT.host = None


class _Unread:
    """A socket that never receives anything."""

    inbox = ()


class _NoMonitor:
    """Simulated connections end without an event: requests on them end by their timeout."""

    def __init__(self, _: Any, server: Any, endpoint: str, *__: Any, **___: Any) -> None:
        self.monitor = self.queue = _Unread()
        if endpoint.startswith("ipc://"):
            server.bind(endpoint)

    note = None

    has_gone = False

    def gone(self) -> list[bytes]:
        return []

    def close(self) -> None:
        pass

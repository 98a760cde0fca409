"""The network of a simulation: connections as ZeroMQ's were measured to behave, behind sockets with ZeroMQ's interface.

Inside a connection nothing is lost, repeated or reordered while both ends live; connections are independent, so messages
on two of them arrive in any order. A killed receiver loses its unread messages, one contiguous run; a killed sender loses
its unsent messages, the newest of each connection. A broken connection is reported to its dialling end, a moment later.
"""

from collections import deque
from typing import Any

import zmq

from planaria.transport.codec import split_envelope
from planaria.transport.protocol.errors import ProtocolError
from simulator_world import MS, Host, World

REDIAL_US = 20 * MS
REDIAL_MAX_US = 500 * MS


class Network:
    def __init__(self, world: World) -> None:
        self.world = world
        self.bound: dict[str, SimulatedSocket] = {}
        self.connections: dict[int, Connection] = {}
        self._numbers = 0

    def next_number(self) -> int:
        self._numbers += 1
        return self._numbers

    def kill(self, host: Host, is_orderly: bool = False) -> None:
        """Remove everything of a host at once; in an orderly end its sent messages still leave."""
        for socket in host.sockets:
            socket.close()
        for connection in list(self.connections.values()):
            if host in connection.hosts:
                connection.break_off(host, is_orderly)

    def slow_down(self, host: Host, delay_us: int, until_us: int) -> None:
        for connection in self.connections.values():
            if host in connection.hosts:
                connection.slow_us, connection.slow_until = delay_us, until_us


class Connection:
    """Connection from a dialling socket, which names it `route`, to the bound socket, which names it `peer`."""

    def __init__(self, dialler: "SimulatedSocket", route: bytes, endpoint: str) -> None:
        self.network = dialler.network
        self.number = self.network.next_number()
        self.dialler = dialler
        self.route = route
        self.endpoint = endpoint
        self.listener: SimulatedSocket | None = None
        self.peer = b""
        self.is_over = False
        self.slow_us = 0
        self.slow_until = 0
        self._delay_us = self.network.world.between(15, 150)
        self._unsent: list[list[bytes]] = []
        self._last_at = [0, 0]
        self._lost_after: list[int | None] = [None, None]
        """By direction: messages due to arrive later than this never left their sender."""
        self._redial_us = REDIAL_US
        self.network.connections[self.number] = self
        self.network.world.after(self._delay_us, self._dial)

    @property
    def hosts(self) -> tuple[Host | None, Host | None]:
        return self.dialler.host, self.listener.host if self.listener is not None else None

    def _dial(self) -> None:
        if self.is_over or self.listener is not None:
            return
        listener = self.network.bound.get(self.endpoint)
        if listener is None:
            self.dialler.host.on_connection(self.endpoint, True)
            self.network.world.after(self._redial_us, self._dial)
            self._redial_us = min(2 * self._redial_us, REDIAL_MAX_US)
            return
        self.listener = listener
        self.peer = self.dialler.name or b"\0%d" % self.number
        listener.routes[self.peer] = self
        unsent, self._unsent = self._unsent, []
        for frames in unsent:
            self.send(self.dialler, frames)

    def send(self, sender: "SimulatedSocket", frames: list[bytes]) -> None:
        if self.listener is None:
            self._unsent.append(frames)
            return
        world = self.network.world
        way = 0 if sender is self.dialler else 1
        slow_us = world.between(0, self.slow_us) if world.now_us < self.slow_until else 0
        delay_us = self._delay_us + world.between(0, 100) + slow_us + sender.host.lag_us
        at = self._last_at[way] = max(self._last_at[way] + 1, world.now_us + delay_us)
        receiver = self.listener if way == 0 else self.dialler
        world.note("send", sender.host.name, receiver.host.name, header_in(frames))
        world.after(at - world.now_us, self._arrive, way, at, frames)

    def _arrive(self, way: int, at: int, frames: list[bytes]) -> None:
        assert self.listener is not None
        receiver = self.listener if way == 0 else self.dialler
        lost_after = self._lost_after[way]
        if receiver.is_closed or (lost_after is not None and at > lost_after):
            return
        name = self.peer if way == 0 else self.route
        if way == 1 and self.dialler.routes.get(self.route) is not self:
            return
        receiver.inbox.append([name, *frames] if receiver.kind == zmq.ROUTER else list(frames))
        receiver.host.wake(self.network.world.between(1, 60))

    def break_off(self, dead: Host, is_orderly: bool) -> None:
        """End one side. Its sent messages may arrive, up to some point; then the other end is notified."""
        if self.is_over:
            return
        self.is_over = True
        del self.network.connections[self.number]
        world = self.network.world
        way = 0 if dead is self.dialler.host else 1
        latest = max(self._last_at[way], world.now_us)
        if not is_orderly and world.chance(0.5):
            self._lost_after[way] = world.between(world.now_us, latest)
        after_us = max(latest - world.now_us, 0) + world.between(100, 1_500)
        world.after(after_us, self._noticed, way)

    def _noticed(self, way: int) -> None:
        if way == 0:
            if self.listener is not None:
                self.listener.routes.pop(self.peer, None)
        elif self.dialler.host.is_alive and self.dialler.routes.get(self.route) is self:
            self.dialler.host.on_connection(self.endpoint, False)

    def hang_up(self) -> None:
        """Close the dialling end: nothing more is delivered to it."""
        if self.dialler.routes.get(self.route) is self:
            del self.dialler.routes[self.route]
        if self.is_over:
            return
        self.is_over = True
        del self.network.connections[self.number]
        if self.listener is not None:
            self._last_at[0] += 1
            self.network.world.after(
                max(0, self._last_at[0] - self.network.world.now_us) + 50, self._noticed, 0
            )


class Departed:
    """The tracker of a message: it is in flight, and no longer in the sender's memory."""

    done = True


class SimulatedSocket:
    """The part of zmq.Socket that the loop, its calls and the clients use."""

    def __init__(self, network: Network, host: Host, kind: int) -> None:
        self.network = network
        self.host = host
        self.kind = kind
        self.name = b""
        self.inbox: deque[list[bytes]] = deque()
        self.routes: dict[bytes, Connection] = {}
        self.is_closed = False
        self._endpoint = ""
        self._next_route = b""
        host.sockets.append(self)

    def setsockopt(self, option: int, value: Any) -> None:
        if option == zmq.ROUTING_ID:
            self.name = value
        elif option == zmq.CONNECT_ROUTING_ID:
            self._next_route = value

    def get(self, option: int) -> int:
        assert option == zmq.EVENTS
        return int(zmq.POLLOUT | zmq.POLLIN) if self.inbox else int(zmq.POLLOUT)

    def getsockopt_string(self, option: int) -> str:
        assert option == zmq.LAST_ENDPOINT
        return self._endpoint

    def bind(self, endpoint: str) -> None:
        assert endpoint not in self.network.bound, f"{endpoint} is bound twice"
        self._endpoint = endpoint
        self.network.bound[endpoint] = self

    def connect(self, endpoint: str) -> None:
        self.routes[self._next_route] = Connection(self, self._next_route, endpoint)

    def disconnect(self, endpoint: str) -> None:
        for connection in list(self.routes.values()):
            if connection.endpoint == endpoint:
                connection.hang_up()

    def recv_multipart(self, flags: int = 0) -> list[bytes]:
        if not self.inbox:
            raise zmq.Again
        if self.kind != zmq.ROUTER or len(self.inbox) == 1:
            return self.inbox.popleft()
        # Each connection has a queue of its own, and ZeroMQ does not promise the order in which they are served.
        peers = list(dict.fromkeys(frames[0] for frames in self.inbox))
        chosen = peers[self.network.world.between(0, len(peers) - 1)]
        index = next(index for index, frames in enumerate(self.inbox) if frames[0] == chosen)
        found = self.inbox[index]
        del self.inbox[index]
        return found

    def send_multipart(
        self, frames: list[Any], flags: int = 0, copy: bool = True, track: bool = False
    ) -> "Departed | None":
        self.host.step()
        if self.kind == zmq.DEALER:
            connection, rest = next(iter(self.routes.values())), frames
        else:
            found = self.routes.get(bytes(frames[0]))
            if found is None:
                raise zmq.ZMQError(zmq.EHOSTUNREACH)
            connection, rest = found, frames[1:]
        connection.send(self, [bytes(frame) for frame in rest])
        return Departed() if track else None

    def close(self, linger: int | None = None) -> None:
        self.is_closed = True
        self.inbox.clear()
        if self.network.bound.get(self._endpoint) is self:
            del self.network.bound[self._endpoint]


class SimulatedContext:
    """Creates a process's sockets."""

    def __init__(self, network: Network, host: Host) -> None:
        self._network = network
        self._host = host

    def socket(self, kind: int) -> SimulatedSocket:
        return SimulatedSocket(self._network, self._host, kind)

    def term(self) -> None:
        pass


class SimulatedPoller:
    """The loop's poller that never waits: a turn is only taken when there is something to do."""

    def __init__(self, used: set[SimulatedSocket], _: object = None) -> None:
        self._used = used
        self._sources: list[SimulatedSocket] = []

    def register(self, source: SimulatedSocket) -> None:
        self._sources.append(source)

    def wait(self, timeout_ms: int) -> list[SimulatedSocket]:
        self._used.clear()
        return [source for source in self._sources if source.inbox]


def header_in(frames: list[bytes]) -> bytes:
    try:
        return split_envelope([frame for frame in frames if frame[:1] != b"\xc1"])[1]  # without a context
    except ProtocolError:
        return b""

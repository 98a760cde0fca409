"""The network between the machines of a chaos run: `python -m planaria.supervisor.chaos.cluster.relay`, a process.

Each Route is a port whose connections are forwarded to a machine. Orders arrive on standard input, one JSON object per
line; its end is the relay's. Rules apply to one direction between two machines, on present and later connections:

    routes      listen                          cut       nothing arrives, neither data nor the end of a connection
    sessions    processes of which machine      delay     everything arrives later by some milliseconds
    rule        how data flows from A to B      limit     so many bytes a second
    reset       close the connections of A and B

Data held back by a cut arrives when it is over, as TCP's own repetitions would. The sender of a connection from a route
without a source is found through the kernel's table of sockets: the machine whose session the process belongs to.
"""

import asyncio
import contextlib
import os
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ...local_cluster import Route
from .rules import FREE, Order, Rule

NO_LINGER = struct.pack("ii", 1, 0)
"""Closing sends a reset."""
CHUNK_BYTES = 65_536
CHUNKS_UNDERWAY = 16
"""Chunks in one direction of a connection that a delay holds back; more wait at the sender."""


class Flows:
    """The rules in force, and the connections they apply to."""

    def __init__(self) -> None:
        self.sessions: dict[int, str] = {}
        self._rules: dict[tuple[str, str], Rule] = {}
        self._is_changed = asyncio.Event()
        self._open: set[tuple[frozenset[str], asyncio.StreamWriter]] = set()

    def rule(self, sender: str, receiver: str) -> Rule:
        return self._rules.get((sender, receiver), FREE)

    def set(self, sender: str, receiver: str, rule: Rule) -> None:
        self._rules[sender, receiver] = rule
        self._is_changed.set()
        self._is_changed = asyncio.Event()

    async def passable(self, sender: str, receiver: str) -> None:
        while self.rule(sender, receiver).is_cut:
            await self._is_changed.wait()

    @contextlib.contextmanager
    def connected(self, pair: frozenset[str], *writers: asyncio.StreamWriter) -> Iterator[None]:
        entries = {(pair, writer) for writer in writers}
        self._open |= entries
        try:
            yield
        finally:
            self._open -= entries
            for writer in writers:
                writer.transport.abort()

    def reset(self, pair: frozenset[str]) -> None:
        for each, writer in self._open:
            if each == pair:
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
                writer.transport.abort()


async def forward(
    flows: Flows, route: Route, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Serve one accepted connection."""
    source = route.source or _machine_of(flows.sessions, writer.get_extra_info("peername")[1])
    target = route.target
    try:
        await flows.passable(source, target)
        behind = await asyncio.open_connection("127.0.0.1", route.target_port)
    except OSError:
        writer.transport.abort()
        return
    with flows.connected(frozenset((source, target)), writer, behind[1]):
        pumps = {
            asyncio.ensure_future(_pump(flows, source, target, reader, behind[1])),
            asyncio.ensure_future(_pump(flows, target, source, behind[0], writer)),
        }
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()


async def _pump(
    flows: Flows, sender: str, receiver: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Carry data one way, until its end has been carried, too."""
    underway: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(CHUNKS_UNDERWAY)
    reading = asyncio.ensure_future(_read(flows, sender, receiver, reader, underway))
    clock = asyncio.get_running_loop().time
    try:
        while True:
            due, data = await underway.get()
            if due > clock():
                await asyncio.sleep(due - clock())
            await flows.passable(sender, receiver)
            if not data:
                return
            writer.write(data)
            await writer.drain()
            if limit := flows.rule(sender, receiver).bytes_per_second:
                await asyncio.sleep(len(data) / limit)
    except OSError:
        return
    finally:
        reading.cancel()


async def _read(
    flows: Flows,
    sender: str,
    receiver: str,
    reader: asyncio.StreamReader,
    underway: "asyncio.Queue[tuple[float, bytes]]",
) -> None:
    clock = asyncio.get_running_loop().time
    data = b"first"
    while data:
        try:
            data = await reader.read(CHUNK_BYTES)
        except OSError:
            data = b""
        await underway.put((clock() + flows.rule(sender, receiver).delay_ms / 1_000, data))


def _machine_of(sessions: dict[int, str], port: int) -> str:
    """Return the machine whose process has the loopback port; empty if it has gone."""
    inode = _inode_of(port)
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, IndexError):
            session = int((entry / "stat").read_text().rpartition(")")[2].split()[3])
            if session in sessions and any(_is_socket(each, inode) for each in (entry / "fd").iterdir()):
                return sessions[session]
    return ""


def _is_socket(descriptor: Path, inode: str) -> bool:
    try:
        return os.readlink(descriptor) == f"socket:[{inode}]"
    except OSError:
        return False  # closed meanwhile; the process may have others


def _inode_of(port: int) -> str:
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        # A connection that has ended keeps its port for a while, and has no inode.
        if int(fields[1].rpartition(":")[2], 16) == port and fields[9] != "0":
            return fields[9]
    return ""


async def main() -> None:
    flows = Flows()
    servers: list[asyncio.Server] = []
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        order = msgspec.json.decode(line, type=Order)
        flows.sessions |= order.sessions
        for sender, receiver, rule in order.rules:
            flows.set(sender, receiver, rule)
        for one, other in order.resets:
            flows.reset(frozenset((one, other)))
        servers += [await _listen(flows, route) for route in order.routes]
        sys.stdout.write("done\n")
        sys.stdout.flush()


async def _listen(flows: Flows, route: Route) -> asyncio.Server:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await forward(flows, route, reader, writer)

    return await asyncio.start_server(serve, "127.0.0.1", route.port)


if __name__ == "__main__":
    asyncio.run(main())

"""Follows the processes of a broker while somebody looks, and gives each viewer the changes.

One task asks the broker, ten times a second for differences and twice a second for everything, however many viewers
there are; without a viewer it ends. A viewer that reads slowly holds one merged update, never a queue.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from anyio import to_thread

from ...transport.protocol.errors import PlanariaError
from .broker_link import BrokerLink
from .failures import failure_of
from .pace import Pace
from .tree_view import Node, TreeView, Update

DIFFERENCE_MS = 100
WHOLE_MS = 500
WHOLE_SHARE = 8
"""A whole answer that takes long is asked for less often: this many times its duration lies between two."""
KEEP_ALIVE_S = 10.0
"""A viewer that is gone shows at the next write."""
TREE = "tree"
"""The flow of the questions to the broker: they have turns as the requests of browsers have."""
MAX_VIEWERS = 32
MAX_POINTS = 256
"""Points of the chart that wait for a slow viewer."""


class TooManyViewers(Exception):
    """All streams are in use."""


class Viewer:
    """The updates that one page has not received."""

    def __init__(self) -> None:
        self._news = asyncio.Event()
        self._nodes: dict[str, Node] = {}
        self._removed: dict[str, None] = {}
        self._is_anew = False
        self._head: dict[str, Any] = {}
        self._points: list[Any] = []

    def add(self, update: Update, head: dict[str, Any]) -> None:
        if update.is_anew:
            self._nodes, self._removed, self._is_anew = {}, {}, True
        for node in update.nodes:
            self._removed.pop(node["address"], None)
            self._nodes.setdefault(node["address"], {}).update(node)
        for address in update.removed:
            self._nodes.pop(address, None)
            self._removed[address] = None
        if update.nodes or update.removed or update.is_anew:
            self.say(head)

    def say(self, head: dict[str, Any], point: Any = None) -> None:
        self._head |= head
        if point is not None:
            self._points.append(point)
            del self._points[:-MAX_POINTS]
        self._news.set()

    async def next(self) -> dict[str, Any] | None:
        """Return everything since the last call; None if nothing has happened for a while."""
        try:
            async with asyncio.timeout(KEEP_ALIVE_S):
                await self._news.wait()
        except TimeoutError:
            return None
        self._news.clear()
        found = {
            **self._head,
            "is_anew": self._is_anew,
            "nodes": list(self._nodes.values()),
            "removed": list(self._removed),
            "points": self._points,
        }
        self._nodes, self._removed, self._is_anew, self._head, self._points = {}, {}, False, {}, []
        return found


class Feed:
    """The tree of one broker link, for any number of viewers."""

    def __init__(self, link: BrokerLink) -> None:
        self._link = link
        self._view = TreeView()
        self._viewers: set[Viewer] = set()
        self._task: asyncio.Task[None] | None = None
        self._trouble: dict[str, Any] | None = None

    async def stream(self, pace: Pace) -> AsyncIterator[bytes]:
        """Yield server-sent events until the viewer is gone. Raises TooManyViewers."""
        if len(self._viewers) >= MAX_VIEWERS:
            raise TooManyViewers
        viewer = Viewer()
        self._viewers.add(viewer)
        if self._task is None or self._task.done():
            self._view = TreeView()
            self._task = asyncio.create_task(self._follow(pace))
        else:
            viewer.add(Update(self._view.nodes(), [], True), self._head())
        try:
            while True:
                found = await viewer.next()
                yield b": still here\n\n" if found is None else _event(found)
        finally:
            self._viewers.discard(viewer)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _head(self) -> dict[str, Any]:
        return {"broker": self._view.broker, "trouble": self._trouble}

    async def _follow(self, pace: Pace) -> None:
        whole_at = 0.0
        while self._viewers:
            await pace.turn(TREE)
            began = time.monotonic()
            is_whole = began >= whole_at or self._view.version is None
            await self._ask(None if is_whole else self._view.version)
            took = time.monotonic() - began
            if is_whole:
                whole_at = began + max(WHOLE_MS / 1000, took * WHOLE_SHARE)
            await asyncio.sleep(max(DIFFERENCE_MS / 1000 - took, 0.01))

    async def _ask(self, version: int | None) -> None:
        try:
            found = await to_thread.run_sync(self._link.status, version, abandon_on_cancel=True)
        except (PlanariaError, OSError) as error:
            self._trouble = failure_of(error)
            for viewer in self._viewers:
                viewer.say(self._head())
            await asyncio.sleep(WHOLE_MS / 1000)
            return
        was_in_trouble, self._trouble = self._trouble is not None, None
        now_ms = time.time_ns() // 1_000_000
        update = self._view.take(found, now_ms)
        for viewer in self._viewers:
            viewer.add(update, self._head())
            if found.is_whole:
                viewer.say(self._head(), [now_ms, *msgspec.structs.astuple(self._view.rates())])
            elif was_in_trouble:
                viewer.say(self._head())


def _event(found: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(found) + b"\n\n"

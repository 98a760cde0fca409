"""The kinds of event loops, and how a test runs on each."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

import trio
import uvloop

Run: TypeAlias = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]


def on_asyncio(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    async def main() -> Any:
        found = await work()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert left == set(), "no task is left behind"
        return found

    return asyncio.run(main(), debug=True)


def on_uvloop(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    return uvloop.run(work())


def on_trio(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    return trio.run(work)


LOOPS = {"asyncio": on_asyncio, "uvloop": on_uvloop, "trio": on_trio}

"""The code of the manuals runs, block by block, against one broker. Each block has its scene (manual_scenes.py)."""

import ast
import asyncio
import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import planaria.aio
from documents import Block, blocks_of
from manual_scenes import NOT_RUN, PRELUDE, SCENES
from planaria import Broker
from planaria.supervisor.hosted import Subscription
from source_tree import ROOT

pytestmark = pytest.mark.processes

ELSEWHERE = {"quickstart.md"}
"""Pages whose code runs from top to bottom: test_documents.py."""
PAGES = [
    ROOT / "README.md",
    *(each for each in sorted((ROOT / "docs").glob("*.md")) if each.name not in ELSEWHERE),
]
BLOCKS = [(page, block) for page in PAGES for block in blocks_of(page) if block.kind == "python"]
DEFAULT = "tcp://127.0.0.1:5570"


def named(page: Path, block: Block, names: Any) -> str | None:
    """Return the name under which a block is listed: the longest that its page and its first line begin with."""
    text = f"{page.name}: {block.text.lstrip()}"
    return max((name for name in names if text.startswith(name)), key=len, default=None)


def test_every_block_has_a_scene_or_a_reason_and_none_is_left_over() -> None:
    found = {(named(page, block, SCENES), named(page, block, NOT_RUN)) for page, block in BLOCKS}
    assert [each for each in found if each.count(None) != 1] == []
    used = {name for pair in found for name in pair}
    assert {*SCENES, *NOT_RUN} - used == set()


@pytest.mark.parametrize(
    ("page", "block"),
    [pair for pair in BLOCKS if named(*pair, NOT_RUN) is None],
    ids=lambda value: f"{value.stem}" if isinstance(value, Path) else str(value.line),
)
def test_a_block_runs(
    page: Path, block: Block, served: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = SCENES[named(page, block, SCENES) or ""]
    monkeypatch.chdir(tmp_path)
    for each in served.list_topics():
        served.delete_topic(each.topic)
    for topic in scene.get("topics", ()):  # type: ignore[attr-defined]
        served.create_topic(topic, 1)
    names: dict[str, Any] = {"__name__": page.stem, "broker": served, "client": served.client}
    exec(PRELUDE, names)
    names["broker"], names["client"] = served, served.client
    subscriptions: list[Subscription] = []
    monkeypatch.setattr(served, "subscribe", noted(served.subscribe, subscriptions))
    text = block.text
    if "renamed" in scene:  # hosts that do not exist, or a group that has another type in another block
        text = text.replace(*scene["renamed"])  # type: ignore[misc]
    text = text.replace(DEFAULT, served.endpoint)
    parts = [
        (str(scene.get("before", "")), 0),
        (text, block.line - 1),
    ]
    parts.append((str(scene.get("after", "")), 0))
    codes = [
        compile("\n" * line + text, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        for text, line in parts
    ]
    with fed(served, str(scene.get("feeds", ""))):
        if scene.get("is_async") or any(code.co_flags & inspect.CO_COROUTINE for code in codes):
            asyncio.run(in_a_loop(codes, names, served.endpoint))
        else:
            for code in codes:
                exec(code, names)
    for subscription in subscriptions:
        subscription.stop()


def noted(subscribe: Callable[..., Subscription], made: list[Subscription]) -> Callable[..., Subscription]:
    def wrapped(*given: Any, **options: Any) -> Subscription:
        made.append(subscribe(*given, **options))
        return made[-1]

    return wrapped


async def in_a_loop(codes: list[Any], names: dict[str, Any], endpoint: str) -> None:
    async with planaria.aio.connect(endpoint) as client:
        names["client"] = client
        for code in codes:
            found = eval(code, names)
            if inspect.isawaitable(found):
                await found


@contextmanager
def fed(broker: Broker, topic: str) -> Iterator[None]:
    """Publish to a topic all the time."""
    is_over = threading.Event()

    def feed() -> None:
        number = 0
        while topic and not is_over.wait(0.02):
            broker.publish(topic, f"order-{number}", {"amount": 100, "order": number, "customer": "anna"})
            number += 1

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()

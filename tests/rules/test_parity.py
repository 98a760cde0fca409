"""Rule: the tables of docs/asyncio.md name every public method for threads and for tasks, with its `await`."""

import inspect
import re
from collections.abc import Iterator

import pytest

import planaria
import planaria.aio
from source_tree import ROOT

PAIRS = {
    "Client": "AsyncClient",
    "Producer": "AsyncProducer",
    "Delivery": "PublishHandle",
    "TransactionalProducer": "AsyncTransactionalProducer",
    "Transaction": "AsyncTransaction",
    "Consumer": "AsyncConsumer",
    "Table": "AsyncTable",
    "ShareConsumer": "AsyncShareConsumer",
    "ShareMessage": "AsyncShareMessage",
}
HEAD = re.compile(r"^\| `(\w+)` \| `(\w+)` \| \|\n\|[-|]+\|\n((?:\|.*\n)+)", re.MULTILINE)
SPAN = re.compile(r"`([^`]+)`")


def tables(text: str) -> Iterator[tuple[str, str, list[str], list[str]]]:
    """Yield each table: the two classes, and the names in their columns."""
    for first, second, rows in HEAD.findall(text):
        cells = [row.split("|")[1:3] for row in rows.splitlines()]
        yield (
            first,
            second,
            [name for left, _ in cells for name in SPAN.findall(left)],
            [name for _, right in cells for name in SPAN.findall(right)],
        )


def public(kind: type, *, is_async: bool) -> list[str]:
    names = [name for name in dir(kind) if not name.startswith("_")]
    if not is_async:
        return names
    return [f"await {name}" if inspect.iscoroutinefunction(getattr(kind, name)) else name for name in names]


def test_the_tables_name_every_public_method() -> None:
    found = list(tables((ROOT / "docs" / "asyncio.md").read_text()))
    assert {first: second for first, second, *_ in found} == PAIRS
    for first, second, left, right in found:
        assert sorted(left) == sorted(public(getattr(planaria, first), is_async=False)), first
        assert sorted(right) == sorted(public(getattr(planaria.aio, second), is_async=True)), second


@pytest.mark.parametrize("row", ["| `close` | `close` | |", "| `close` | | |", "| | `await close` | |"])
def test_a_wrong_row_is_found(row: str) -> None:
    text = f"| `Producer` | `AsyncProducer` | |\n|---|---|---|\n{row}\n"
    ((first, second, left, right),) = tables(text)
    assert (first, second) == ("Producer", "AsyncProducer")
    assert (left, right) != (["close"], ["await close"])

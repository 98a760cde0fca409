"""docs/limits.md has the present value of every constant that it names."""

import ast
import re
from collections.abc import Iterator
from functools import cache

from source_tree import ROOT

CONSTANT = re.compile(r"`([A-Z][A-Z_]{3,})`")
MODULE = re.compile(r"`((?:actors|transport|supervisor)/[\w/]+\.py)`")
BYTES = {"MiB": 2**20, "KiB": 2**10}
TIMES = {"ms": 1, "s": 1_000, "min": 60_000, "h": 3_600_000}


def wrong_values(text: str) -> list[str]:
    """Return the constants of the rows whose value is not in the row, or that the named modules do not have."""
    rows = [row.split(" | ") for row in text.splitlines()]
    return [fault for cells in rows if len(cells) >= 4 for fault in faults_of(cells[1], cells[2])]


def faults_of(limit: str, place: str) -> Iterator[str]:
    known: dict[str, int] = {}
    for module in MODULE.findall(place):
        known |= constants(module)
    for name in CONSTANT.findall(place):
        if name not in known or not any(is_said(form, limit) for form in forms(name, known[name])):
            yield f"{name}: {known.get(name)} is not in {limit!r}"


@cache
def constants(module: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for node in ast.parse((ROOT / module).read_text()).body:
        if isinstance(node, ast.Assign) and re.fullmatch(r"[\d_.*+ ]+", ast.unparse(node.value)):
            value = int(eval(compile(ast.Expression(node.value), module, "eval")))
            found |= {ast.unparse(target): value for target in node.targets}
    return found


def forms(name: str, value: int) -> set[str]:
    units = TIMES if name.endswith("_MS") else BYTES
    whole = {f"{value // size:,} {unit}" for unit, size in units.items() if value % size == 0}
    return whole | {f"{value:,}"}


def is_said(form: str, cell: str) -> bool:
    return re.search(rf"(?<![\d,]){re.escape(form)}(?![\d,]*\d)", cell) is not None


def test_every_value_is_that_of_its_constant() -> None:
    assert wrong_values((ROOT / "docs" / "limits.md").read_text()) == []


def test_rule_sees_wrong_values() -> None:
    place = "`MAX_BACKLOG`, `RESERVED_DESCRIPTORS` in `transport/door.py`"
    assert wrong_values(f"| connections | 128 of 4,096 | {place} | waits |") == []
    assert len(wrong_values(f"| connections | 12 of 14,096 | {place} | waits |")) == 2
    assert len(wrong_values("| connections | 128 | `NO_BACKLOG` in `transport/door.py` | waits |")) == 1

"""Every event that a process of the broker logs has a row in docs/operations.md, and every row an event."""

import ast
import re
from collections.abc import Iterator

from source_tree import ROOT, package_sources

LEVELS = {"debug", "info", "warning", "error", "critical"}
ARGUMENT = {"WriteLog": 1, "log_of": 2, "self.log": 1, "self._life.log": 1, "logs.event": 2}
"""Index of the call's argument that is the event."""


def events_of(tree: ast.AST) -> set[str]:
    found: set[str] = set()
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            named = dict(_assigned(function))
            for event in _arguments(function):
                found |= named.get(event.id, set()) if isinstance(event, ast.Name) else _texts(event)
    return found


def _arguments(function: ast.AST) -> Iterator[ast.expr]:
    for call in ast.walk(function):
        if not isinstance(call, ast.Call):
            continue
        if not isinstance(call.func, ast.Name | ast.Attribute):
            continue
        name = ast.unparse(call.func)
        is_event = name.removeprefix("_log.") in LEVELS and any(each.arg == "extra" for each in call.keywords)
        index = 0 if is_event else ARGUMENT.get(name)
        if index is not None and len(call.args) > index:
            yield call.args[index]


def _assigned(function: ast.AST) -> Iterator[tuple[str, set[str]]]:
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, _texts(node.value)


def _texts(node: ast.expr) -> set[str]:
    match node:
        case ast.Constant(value=str(text)):
            return {text}
        case ast.IfExp():
            return _texts(node.body) | _texts(node.orelse)
        case ast.JoinedStr(values=[ast.Constant(value=str(text)), *_]):
            return {f"{text}*"}
    return set()


def documented(page: str) -> set[str]:
    table = page[page.index("\n## The log\n") : page.index("\n## When something is wrong\n")]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return {event for row in rows for event in re.findall(r"`([^`]+)`", row)}


def is_among(event: str, others: set[str]) -> bool:
    if event.endswith("*"):
        return any(other.startswith(event[:-1]) for other in others)
    return event in others or any(other.endswith("*") and event.startswith(other[:-1]) for other in others)


def test_every_event_is_documented() -> None:
    rows = documented((ROOT / "docs/operations.md").read_text())
    events = set[str]().union(*(events_of(source.tree) for source in package_sources()))
    assert len(events) > 20
    assert sorted(event for event in events if not is_among(event, rows)) == []
    assert sorted(row for row in rows if not is_among(row, events)) == []


def test_rule_sees_events() -> None:
    tree = ast.parse(
        "def f(self, is_slow):\n"
        "    _log.warning('one', extra={'fields': {}})\n"
        "    _log.warning('a sentence: %s', self)\n"
        "    kind = 'two' if is_slow else 'three'\n"
        "    log_of(self, ERROR, kind)\n"
        "    self.log('info', 'four', child=1)\n"
        "    self.do(WriteLog(ERROR, f'five {kind}'))\n"
    )
    assert events_of(tree) == {"one", "two", "three", "four", "five *"}
    assert is_among("five apples", {"five *"})
    assert not is_among("six", {"five *"})

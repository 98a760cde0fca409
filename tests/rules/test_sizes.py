"""Rule: a file of the package has at most 500 lines and a function at most 70; past that, cut it."""

import ast

from source_tree import Source, package_sources

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 70


def faults(source: Source) -> list[str]:
    found = []
    lines = len(source.text.splitlines())
    if lines > MAX_FILE_LINES:
        found.append(f"{source.path}: {lines} lines")
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                found.append(f"{source.path}:{node.lineno}: {node.name} has {length} lines")
    return found


def test_files_and_functions_are_short() -> None:
    found = [fault for source in package_sources() for fault in faults(source)]
    assert not found, "\n".join(found)


def test_rule_sees_a_long_file() -> None:
    assert faults(Source("a.py", "x = 1\n" * MAX_FILE_LINES)) == []
    assert faults(Source("a.py", "x = 1\n" * (MAX_FILE_LINES + 1))) == ["a.py: 501 lines"]


def test_rule_sees_a_long_function() -> None:
    method = "class A:\n    async def f(self):\n" + "        x = 1\n" * (MAX_FUNCTION_LINES - 1)
    assert faults(Source("a.py", method)) == []
    assert faults(Source("a.py", method + "        x = 1\n")) == ["a.py:2: f has 71 lines"]

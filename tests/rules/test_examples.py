"""Rule: examples and documentation take every name of the package from its root,
`planaria.aio`, `planaria.otel` or `planaria.testing`, and every name they take exists."""

import ast
import re

import pytest

import planaria
import planaria.aio
import planaria.testing
from source_tree import ROOT

OF_OTEL = ("instrument", "processing", "uninstrument")
"""The names of planaria.otel, which cannot be imported without the extra."""
FENCED = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
IMPORT = re.compile(r"^\s*(?:from|import)\s+planaria\b.*$", re.MULTILINE)


def faults(where: str, statement: ast.stmt) -> list[str]:
    match statement:
        case ast.ImportFrom(module="planaria", names=names):
            return [f"{where}: {each.name}" for each in names if each.name not in planaria.__all__]
        case ast.ImportFrom(module="planaria.aio", names=names):
            return [f"{where}: {each.name}" for each in names if each.name not in planaria.aio.__all__]
        case ast.ImportFrom(module="planaria.testing", names=names):
            return [f"{where}: {each.name}" for each in names if each.name not in planaria.testing.__all__]
        case ast.ImportFrom(module="planaria.otel", names=names):
            return [f"{where}: {each.name}" for each in names if each.name not in OF_OTEL]
        case ast.ImportFrom(module=str(module)) if module.startswith("planaria."):
            return [f"{where}: from {module}"]
        case ast.Import(names=names):
            names_of_modules = [each.name for each in names]
            return [f"{where}: {name}" for name in names_of_modules if _is_inner(name)]
    return []


def _is_inner(module: str) -> bool:
    return module.startswith("planaria.") and module not in (
        "planaria.aio",
        "planaria.otel",
        "planaria.testing",
    )


def test_examples_import_from_the_root() -> None:
    found = [
        fault
        for path in sorted((ROOT / "examples").glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.stmt)
        for fault in faults(path.name, node)
    ]
    assert found == []


def test_documentation_imports_from_the_root() -> None:
    found = [
        fault
        for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
        for block in FENCED.findall(path.read_text())
        for line in IMPORT.findall(block)
        for fault in faults(path.name, ast.parse(line.strip()).body[0])
    ]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "from planaria.transport.client import Client",
        "from planaria import Nothing",
        "from planaria.aio import Nothing",
        "import planaria.transport.aio",
    ],
)
def test_an_import_from_elsewhere_is_a_fault(line: str) -> None:
    assert faults("x", ast.parse(line).body[0])

"""Rules of the modules that PLANARIA_COMPILE=1 compiles: mypyc accepts, and then ignores, some of what Python does."""

import ast
import importlib
import os
import tomllib
from collections.abc import Iterator

import pytest

from source_tree import ROOT, Source, package_sources

MODULES: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["planaria"]["compiled"][
    "modules"
]
SOURCES = {source.module: source for source in package_sources()}


def classes(source: Source) -> list[ast.ClassDef]:
    return [node for node in ast.walk(source.tree) if isinstance(node, ast.ClassDef)]


def recursive(source: Source) -> Iterator[str]:
    """Yield the functions and the methods that call themselves; a method may call a function of the same name."""
    methods = {each for node in classes(source) for each in node.body if isinstance(each, ast.FunctionDef)}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef):
            own = f"self.{node.name}" if node in methods else node.name
            if any(isinstance(each, ast.Call) and ast.unparse(each.func) == own for each in ast.walk(node)):
                yield node.name


def faults(source: Source) -> Iterator[str]:
    """Yield what a compiled module would do in another way."""
    for name in recursive(source):
        yield f"{name}: calls itself, without a limit that ends it before the stack is full"
    for node in classes(source):
        if node.keywords:
            yield f"{node.name}: the options of a class, such as gc=False, have no effect"
        for base in node.bases:
            if ast.unparse(base).rpartition(".")[2] in {"Struct", "NamedTuple", "Generic"}:
                yield f"{node.name}: is no faster, and a {ast.unparse(base)} knows its fields by annotations"
    for node in ast.walk(source.tree):
        if (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).endswith(".__init__")
            and any(isinstance(each, ast.Starred) for each in node.args)
            | any(not each.arg for each in node.keywords)
        ):
            yield f"line {node.lineno}: a base initialised by * or ** is not initialised"
        if isinstance(node, ast.Attribute) and node.attr == "_thread":
            yield f"line {node.lineno}: in C this name is a keyword"


def test_every_compiled_module_exists_and_is_listed_once() -> None:
    assert sorted(set(MODULES)) == MODULES
    assert [name for name in MODULES if name not in SOURCES] == []


@pytest.mark.parametrize("name", MODULES)
def test_compiled_modules_mean_the_same(name: str) -> None:
    assert list(faults(SOURCES[name])) == []


def heirs(source: Source, compiled: set[tuple[str, str | None]]) -> list[str]:
    """Return the classes of a module that inherit from a compiled class of another one."""
    imported = {each.name for each in source.imports if (each.module, each.name) in compiled}
    return [
        f"{source.path}: {node.name}"
        for node in classes(source)
        if imported & {ast.unparse(base) for base in node.bases}
    ]


def test_no_other_module_inherits_from_a_compiled_class() -> None:
    compiled = {(name, node.name) for name in MODULES for node in classes(SOURCES[name])}
    others = [source for source in SOURCES.values() if source.module not in MODULES]
    assert [heir for source in others for heir in heirs(source, compiled)] == []


def test_rule_sees_an_heir_of_a_compiled_class() -> None:
    source = Source("transport/aio/x.py", "from ..client.pace import Pace\nclass Own(Pace): pass")
    assert heirs(source, {("planaria.transport.client.pace", "Pace")}) == ["transport/aio/x.py: Own"]


@pytest.mark.parametrize("name", MODULES)
def test_a_module_has_the_names_of_its_source(name: str) -> None:
    module = importlib.import_module(name)
    if os.environ.get("PLANARIA_COMPILE") == "1":
        assert not str(module.__file__).endswith(".py")
    functions = [node.name for node in SOURCES[name].tree.body if isinstance(node, ast.FunctionDef)]
    assert [each for each in functions if not hasattr(module, each)] == []
    for node in classes(SOURCES[name]):
        methods = [each.name for each in node.body if isinstance(each, ast.FunctionDef)]
        assert [each for each in methods if not hasattr(getattr(module, node.name), each)] == []


@pytest.mark.parametrize(
    "text",
    [
        "class A(Base, gc=False): pass",
        "class A(msgspec.Struct): pass",
        "class A(B):\n    def __init__(self, **others):\n        super().__init__(**others)",
        "class A(B):\n    def __init__(self, *others):\n        super().__init__(*others)",
        "def walk(value): walk(value[0])",
        "class A:\n    def walk(self, value):\n        self.walk(value[0])",
        "self._thread = None",
    ],
)
def test_rule_sees_what_would_mean_something_else(text: str) -> None:
    assert len(list(faults(Source("transport/x.py", text)))) == 1


def test_a_method_may_call_a_function_of_the_same_name() -> None:
    text = "class A:\n    def walk(self, value):\n        walk(value)"
    assert list(faults(Source("transport/x.py", text))) == []

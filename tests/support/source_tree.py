"""The package's source files as seen by the rules: path, text, syntax tree, imports. Used by tests/rules."""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "planaria"
# Folders that are packages; other folders in the root (tests, docs, examples) are not shipped.
FOLDERS = ("transport", "actors", "supervisor")


@dataclass(frozen=True)
class Import:
    """One imported name, resolved: `from ..transport.batch import RecordBatch` in actors/x.py gives
    module planaria.transport.batch, name RecordBatch."""

    module: str
    name: str | None
    line: int
    is_relative: bool
    is_for_types_only: bool

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]

    @property
    def folder(self) -> str | None:
        """Return transport, actors or supervisor; None when the import leads to none of them."""
        full = self.module if self.name is None else f"{self.module}.{self.name}"
        parts = full.split(".")
        return parts[1] if parts[0] == PACKAGE and len(parts) > 1 and parts[1] in FOLDERS else None


@dataclass(frozen=True)
class Source:
    """One Python file; `path` is relative to the root, with forward slashes."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    @property
    def folder(self) -> str:
        return PurePosixPath(self.path).parts[0]

    @property
    def module(self) -> str:
        parts = PurePosixPath(self.path).with_suffix("").parts
        return ".".join((PACKAGE, *(parts[:-1] if parts[-1] == "__init__" else parts)))

    @property
    def package(self) -> str:
        """Return the package that one leading dot means in this file."""
        return ".".join((PACKAGE, *PurePosixPath(self.path).parts[:-1]))

    @cached_property
    def imports(self) -> tuple[Import, ...]:
        return tuple(self._imports())

    def _imports(self) -> Iterator[Import]:
        for_types = {id(node) for block in _type_checking_blocks(self.tree) for node in ast.walk(block)}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(alias.name, None, node.lineno, False, id(node) in for_types)
            elif isinstance(node, ast.ImportFrom):
                module = node.module or ""
                if node.level:
                    start = self.package.split(".")[: len(self.package.split(".")) - node.level + 1]
                    module = ".".join([*start, *filter(None, [node.module])])
                for alias in node.names:
                    yield Import(module, alias.name, node.lineno, node.level > 0, id(node) in for_types)


def _type_checking_blocks(tree: ast.Module) -> Iterator[ast.stmt]:
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            yield from node.body


@cache
def package_sources() -> tuple[Source, ...]:
    """Return every Python file of the wheel."""
    root = (path for path in ROOT.glob("*.py") if path.name != "setup.py")
    paths = [*root, *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))]
    return tuple(read(path) for path in sorted(paths))


@cache
def project_files(*suffixes: str) -> tuple[Path, ...]:
    """Return every file of the project with one of these suffixes, "" for none; generated files are left out."""
    return tuple(sorted(path for path in _walk(ROOT) if path.suffix in suffixes))


def _walk(directory: Path) -> Iterable[Path]:
    for path in directory.iterdir():
        if path.is_dir():
            is_generated = path.name in (
                "build",
                "dist",
                "node_modules",
                "target",
                "planaria-data",
                "__pycache__",
            ) or path.name.endswith(".egg-info")
            if not is_generated and (path.name == ".ci" or not path.name.startswith(".")):
                yield from _walk(path)
        else:
            yield path


def read(path: Path) -> Source:
    return Source(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))

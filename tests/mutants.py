"""A bounded mutation pass: breaks the product in one place at a time, and reports the breaks that no test detects.

    python tests/mutants.py [--seed 1] [--count 20] [GROUP...]          (or `make mutants`)

Works on a copy of the tree. Of each group it samples `count` locations by the seed, makes the change, and runs the
group's fast tests until the first failure. A surviving mutant is printed as file, line and change: either a test is
missing, or the mutant is equivalent (it has no observable effect), and only a reader can decide which.
"""

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
GROUPS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "log": (("actors/log",), ("tests/log",)),
    "partition": (("actors/partition",), ("tests/partition",)),
    "coordinator": (("actors/coordinator", "actors/journal"), ("tests/coordinator", "tests/journal")),
    "share": (("actors/coordinator/share",), ("tests/share", "tests/coordinator/test_progress.py")),
    "reader": (
        ("transport/log_access", "transport/calls/peers.py"),
        (
            "tests/transport/test_partition_reader.py",
            "tests/transport/test_partition_writer.py",
            "tests/transport/test_peer_directory.py",
            "tests/client/test_fetching.py",
        ),
    ),
    "producer": (
        (
            "transport/client/accumulator.py",
            "transport/client/lanes.py",
            "transport/client/producer.py",
            "transport/client/producing.py",
        ),
        ("tests/client",),
    ),
}
"""Name: the changed files, and the tests that should detect it."""

TIMEOUT_FACTOR = 5
NEGATED = {
    ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
SHIFTED = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
SWAPPED = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult}
NAMED = {"min": "max", "max": "min", "any": "all", "all": "any"}


@dataclass(frozen=True)
class Mutant:
    path: str
    line: int
    change: str
    text: str
    """The whole file, changed."""


def changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Yield possible replacements of a node."""
    match node:
        case ast.Compare(ops=[op]):
            for table in (NEGATED, SHIFTED):
                if other := table.get(type(op)):
                    yield "compare", ast.Compare(node.left, [other()], node.comparators)
        case ast.BoolOp(values=values):
            for index in range(len(values)):
                rest = values[:index] + values[index + 1 :]
                yield "operand left out", rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield "not left out", operand
        case ast.BinOp(op=op) if other := SWAPPED.get(type(op)):
            yield "operator", ast.BinOp(node.left, other(), node.right)
        case ast.Constant(value=bool(value)):
            yield "constant", ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield "constant", ast.Constant(value + 1)
        case ast.Call(func=ast.Name(id=name)) if name in NAMED:
            yield name, ast.Call(ast.Name(NAMED[name], ast.Load()), node.args, node.keywords)
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Raise():
            yield "left out", ast.Pass()
        case ast.Assign(targets=[ast.Attribute()]):
            yield "left out", ast.Pass()
        case ast.IfExp():
            yield "other branch", node.orelse
        case ast.Return(value=ast.expr()) if not isinstance(node.value, ast.Constant):
            yield "returns nothing", ast.Return(ast.Constant(None))


def mutants_of(path: Path) -> list[Mutant]:
    source = path.read_text()
    lines = source.encode().splitlines(keepends=True)
    starts = [0]
    for each in lines:
        starts.append(starts[-1] + len(each))
    found = []
    for node in _inside_functions(ast.parse(source)):
        for kind, other in changes(node):
            assert isinstance(node, ast.expr | ast.stmt)
            assert node.end_lineno is not None
            assert node.end_col_offset is not None
            begin = starts[node.lineno - 1] + node.col_offset
            end = starts[node.end_lineno - 1] + node.end_col_offset
            raw = source.encode()
            new = ast.unparse(ast.fix_missing_locations(other))
            if isinstance(node, ast.expr):
                new = f"({new})"
            text = (raw[:begin] + new.encode() + raw[end:]).decode()
            shown = " ".join(raw[begin:end].decode().split())
            found.append(
                Mutant(
                    str(path.relative_to(ROOT)), node.lineno, f"{kind}: {shown[:80]}  ->  {new[:80]}", text
                )
            )
    return found


def _inside_functions(tree: ast.Module) -> Iterator[ast.AST]:
    """Nodes of function bodies, without docstrings and assertions."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            for statement in function.body:
                yield from _walk(statement)


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Assert | ast.FunctionDef | ast.JoinedStr):
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _walk(child)


class Copy:
    """The tree in a directory of its own, where it is the package `planaria`."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "planaria"
        ignored = shutil.ignore_patterns(
            ".git", ".venv", "build", "dist", "*_cache", ".hypothesis", "__pycache__"
        )
        shutil.copytree(ROOT, self.root, ignore=ignored)
        # Bytecode of the original would be taken for that of a mutant of the same length, made in the same second.
        self._environment = os.environ | {"PYTHONPATH": str(directory), "PYTHONPYCACHEPREFIX": os.devnull}

    def passes(self, tests: tuple[str, ...], timeout_s: float | None) -> bool:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not processes and not chaos", *tests]
        silent = subprocess.DEVNULL
        try:
            done = subprocess.run(
                command,
                check=False,
                cwd=self.root,
                env=self._environment,
                stdout=silent,
                stderr=silent,
                timeout=timeout_s,
            )
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0

    def with_mutant(self, mutant: Mutant, tests: tuple[str, ...], timeout_s: float) -> bool:
        file = self.root / mutant.path
        original = file.read_text()
        file.write_text(mutant.text)
        try:
            return self.passes(tests, timeout_s)
        finally:
            file.write_text(original)


def sources(paths: tuple[str, ...]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        tp = ROOT / path
        found += sorted(tp.glob("*.py")) if tp.is_dir() else [tp]
    return found


def run(group: str, copy: Copy, seed: int, count: int) -> tuple[int, list[Mutant]]:
    """Return the number tried, and the survivors."""
    paths, tests = GROUPS[group]
    every = [mutant for path in sources(paths) for mutant in mutants_of(path)]
    chosen = random.Random(f"{seed} {group}").sample(every, min(count, len(every)))
    begun = time.monotonic()
    if not copy.passes(tests, None):
        raise SystemExit(f"{group}: the tests fail without any change")
    timeout_s = TIMEOUT_FACTOR * (time.monotonic() - begun) + 5
    print(f"{group}: {len(chosen)} of {len(every)} mutants, seed {seed}", flush=True)
    lived = []
    for mutant in chosen:
        if copy.with_mutant(mutant, tests, timeout_s):
            lived.append(mutant)
            print(f"  lives  {mutant.path}:{mutant.line}  {mutant.change}", flush=True)
    print(f"{group}: {len(chosen) - len(lived)} killed, {len(lived)} live", flush=True)
    return len(chosen), lived


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("groups", nargs="*", choices=[*GROUPS, []], default=list(GROUPS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=20, help="of each group")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="planaria-mutants-") as directory:
        copy = Copy(Path(directory))
        results = [run(group, copy, options.seed, options.count) for group in options.groups]
    tried, lived = sum(each for each, _ in results), sum(len(each) for _, each in results)
    print(f"{tried} mutants, {tried - lived} killed, {lived} live")


if __name__ == "__main__":
    main()

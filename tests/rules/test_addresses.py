"""Rule: only transport/addresses.py takes an address apart or writes one out. Everywhere else it is made by a function
of that module, or parsed where its text arrives, and asked for its parts."""

import ast
import re
from collections.abc import Iterator

from source_tree import Source, package_sources

OWNER = "transport/addresses.py"
TAKING_APART = {
    "split",
    "rsplit",
    "partition",
    "rpartition",
    "removeprefix",
    "removesuffix",
    "startswith",
    "endswith",
}
WRITTEN = re.compile(r"(partition|coordinator|subscriber|scheduler|transactions|gateway|link)/")


def _faults(source: Source) -> Iterator[str]:
    documentation = {
        id(node.value) for node in ast.walk(source.tree) if isinstance(node, ast.Expr)
    }  # a text that is a statement
    for node in ast.walk(source.tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in TAKING_APART
        ):
            taken = ast.unparse(node.func.value)
            if re.search(r"\b(address|victim|peer_address)$", taken):
                yield f"{source.path}:{node.lineno}: {ast.unparse(node)}"
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and id(node) not in documentation and WRITTEN.match(node.value):
            yield f"{source.path}:{node.lineno}: {node.value!r}"


def test_addresses_are_read_and_written_in_one_module() -> None:
    assert [fault for source in package_sources() if source.path != OWNER for fault in _faults(source)] == []


def test_the_rule_finds_them() -> None:
    text = 'kind = actor.address.partition("/")[0]\nwhere = f"partition/{topic}/{number}"\nx = "gateway/0"\n'
    assert len(list(_faults(Source("actors/x.py", text)))) == 3

"""Rule: the list of casts is closed. `docs/architecture.md` says for each one what follows when it is lost."""

import ast
import re

from source_tree import ROOT, package_sources


def test_every_cast_is_in_the_table_of_messages_without_an_answer() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    table = text.partition("### Messages without an answer")[2].partition("### ")[0]
    listed = set(re.findall(r"`((?:actors|transport)/[\w/]+\.py)`", table))
    casting = {
        source.path
        for source in package_sources()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Cast"
    }
    assert casting == listed

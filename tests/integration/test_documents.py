"""The code of the quick start, of the guides and of the migrations runs, page by page, against one broker."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from documents import blocks_of, file_of
from planaria import Broker
from source_tree import ROOT

pytestmark = pytest.mark.processes

DOCS = ROOT / "docs"
PAGES = [DOCS / "quickstart.md", *sorted(DOCS.glob("guides/*.md")), *sorted(DOCS.glob("migration/*.md"))]
DEFAULT = "tcp://127.0.0.1:5570"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("documents") / "data", endpoint="tcp://127.0.0.1:*") as broker:
        yield broker


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(
    page: Path, served: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In order, with the names of the blocks before; a block with the name of a file is imported."""
    monkeypatch.syspath_prepend(tmp_path)
    names: dict[str, object] = {"__name__": page.stem}
    for block in blocks_of(page):
        if block.kind not in ("python", "run"):
            continue
        text = block.text.replace(DEFAULT, served.endpoint)
        if (name := file_of(block)) is not None:
            (tmp_path / name).write_text(text)
            text = f"import {name.removesuffix('.py')}"
            monkeypatch.delitem(sys.modules, name.removesuffix(".py"), raising=False)
        lines = "\n" * (block.line - 1)
        exec(compile(lines + text, page, "exec"), names)

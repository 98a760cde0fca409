"""The code and the shell commands of the quick start, of the guides and of the migrations run, page by page."""

import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from documents import blocks_of, file_of
from planaria import Broker
from shell_blocks import KINDS, Terminal, steps_of
from shell_scenes import is_run, run_step
from source_tree import ROOT

pytestmark = pytest.mark.processes

DOCS = ROOT / "docs"
PAGES = [DOCS / "quickstart.md", *sorted(DOCS.glob("guides/*.md")), *sorted(DOCS.glob("migration/*.md"))]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("documents") / "data", endpoint="tcp://127.0.0.1:*") as broker:
        yield broker


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run(
    page: Path, served: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In order, with the names of the blocks before; a block with the name of a file is imported."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    with closing(Terminal(tmp_path, served.endpoint)) as terminal:
        run_page(page, terminal, monkeypatch)


def run_page(page: Path, terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, object] = {"__name__": page.stem}
    for block in blocks_of(page):
        if block.kind in KINDS:
            for step in steps_of(block):
                if is_run(page, step, slow=False):
                    run_step(terminal, page, step)
        if block.kind not in ("python", "run"):
            continue
        text = terminal.local(block.text)
        if (name := file_of(block)) is not None:
            (terminal.folder / name).write_text(text)
            text = f"import {name.removesuffix('.py')}"
            monkeypatch.delitem(sys.modules, name.removesuffix(".py"), raising=False)
        lines = "\n" * (block.line - 1)
        exec(compile(lines + text, page, "exec"), names)

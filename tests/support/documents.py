"""The code blocks of the documentation, as tests run them."""

import re
from pathlib import Path
from typing import NamedTuple

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```|^<!-- run\n(.*?)^-->", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (\w+\.py)\n")


class Block(NamedTuple):
    kind: str
    """The language of a block that is shown; "run" for code that only a test sees."""
    text: str
    line: int


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(found[1] or "run", found[2] or found[3], text.count("\n", 0, found.start()) + 2)
        for found in BLOCK.finditer(text)
    ]


def file_of(block: Block) -> str | None:
    """Return the name of the file that a block of Python is, by its first line."""
    found = FILE.match(block.text)
    return found[1] if found is not None else None

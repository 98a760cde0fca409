"""Rule: Python in the documentation is Python, its commands and options exist, and its TOML and JSON can be read.

Shell commands and Python are also run: tests/integration/test_shell_blocks.py, test_documents.py and test_manuals.py.
"""

import ast
import json
import re
import shlex
import textwrap
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from documents import blocks_of
from planaria.supervisor.cli.app import root
from source_tree import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = re.compile(r"^(?:\$ )?(?:sudo )?(planaria .*)$")
READERS: dict[str, Callable[[str], Any]] = {"json": json.loads, "toml": tomllib.loads}
END = re.compile(r"\s(?:#|\||&|>|&&|<).*$")


def python_fault(text: str) -> str | None:
    """Return why a block is no Python. Parts of coroutines and of classes are allowed."""
    lines = text.splitlines()
    for at, line in enumerate(lines):  # a loop without a body is complete enough
        code = line.partition("  #")[0].rstrip()
        following = lines[at + 1] if at + 1 < len(lines) else ""
        is_open = code.endswith(":") and not re.match(r"\s*[)\]]", following)
        if (
            is_open
            and len(following) - len(following.lstrip()) <= len(line) - len(line.lstrip())
            and following.strip()
        ):
            lines[at] = code + " ..."
    wrapped = "async def part():\n" + textwrap.indent("\n".join(lines), "    ") + "\n    pass"
    for each in (text, wrapped):
        try:
            ast.parse(each)
        except SyntaxError as error:
            fault = str(error)
        else:
            return None
    return fault


def commands_in(text: str) -> list[str]:
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [END.sub("", found[1]) for line in lines if (found := COMMAND.match(line.strip())) is not None]


def command_fault(line: str) -> str | None:
    """Return why a command line names no command or an option that the command does not have."""
    words = shlex.split(line)[1:]
    command: Any = root()
    while hasattr(command, "commands"):
        known = {name for each in command.params for name in each.opts}
        while words and words[0].startswith("-"):
            if words[0].partition("=")[0] not in known | {"--help", "--version"}:
                return f"no option {words[0]}"
            words = words[2:] if words[0] in ("--key",) else words[1:]
        if not words or words[0].isupper():
            return None
        found = command.commands.get(words[0])
        if found is None:
            default = command.commands.get("create")  # `planaria deploy GROUP` is `deploy create`
            if default is None or command.name != "deploy":
                return f"no command {words[0]}"
            command = default
        else:
            command, words = found, words[1:]
    known = {name for each in command.params for name in (*each.opts, *each.secondary_opts)} | {"--help"}
    for word in words:
        if word.startswith("--") and word.partition("=")[0] not in known:
            return f"no option {word}"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_are_python_and_commands_that_exist(page: Path) -> None:
    found = []
    for block in blocks_of(page):
        if block.kind in ("python", "run") and (fault := python_fault(block.text)) is not None:
            found.append(f"{page.name}:{block.line}: {fault}")
        assert block.kind != "sh", "the kinds that are run are console and bash"
        if block.kind in READERS:
            READERS[block.kind](block.text)
        if block.kind in ("console", "bash"):
            found += [
                f"{page.name}:{block.line}: {line}: {fault}"
                for line in commands_in(block.text)
                if (fault := command_fault(line)) is not None
            ]
    found += [
        f"{page.name}: {line}: of a block without a kind" for line in unnamed_commands(page.read_text())
    ]
    assert not found, "\n".join(found)


def unnamed_commands(page: str) -> list[str]:
    """Return the commands in blocks without a kind: a block of commands has the kind `console` or `bash`, and is run."""
    parts = re.split(r"^```(\w*)\n", page, flags=re.MULTILINE)
    blocks = (text for kind, text in zip(parts[1::4], parts[2::4], strict=True) if not kind)
    return [line for text in blocks for line in text.splitlines() if COMMAND.match(line)]


def test_the_rule_sees_faults() -> None:
    assert python_fault("def f(:") is not None
    assert python_fault("await f()\nasync with a as b:\n    ...") is None
    page = "```python\nf()\n```\nplanaria a\n```\nplanaria b\n```\n"
    assert unnamed_commands(page) == ["planaria b"]
    [line] = commands_in("$ planaria topic create A \\\n    --partitions 3   # three\n")
    assert line.split() == ["planaria", "topic", "create", "A", "--partitions", "3"]
    assert command_fault("planaria topic create A --partitions 3") is None
    assert command_fault("planaria topic create A --partition 3") is not None
    assert command_fault("planaria topics") is not None
    assert command_fault("planaria deploy billing ORDERS --workers 3") is None

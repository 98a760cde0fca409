"""Rules of the prose: comments, docstrings, help texts and Markdown use the field's English.

The rules count words that read as a translation and docstrings that open with a pronoun. Code spans, fenced blocks and
tests' assertions are not prose. `pytest tests/rules/test_words.py -s` prints the figures.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from source_tree import ROOT, project_files

# Occurrences per 1,000 words of prose.
MAX_QUAINT = 0.1
MAX_WHAT = 0.3

QUAINT = re.compile(r"\b(whoever|nobody|somebody|anew|told|for ever|under way)\b", re.IGNORECASE)
WHAT = re.compile(r"\bwhat\b", re.IGNORECASE)
OPENS_WITH_PRONOUN = re.compile(r"(Of|What|Whether|Who)\b")
SLIPPED = re.compile(r"\n *\n( *) {4}\S.*\n\1(?=\S)")
"""The first line of a paragraph that is further in than the second one. `--help` would print it so."""

FENCED = re.compile(r"^( *)(```|~~~).*?^ *\2`*\s*$", re.MULTILINE | re.DOTALL)
CODE_SPAN = re.compile(r"`[^`\n]*`")
WORD = re.compile(r"[A-Za-z][A-Za-z'-]*")


class Passage(NamedTuple):
    """One comment, docstring, help text or Markdown file."""

    path: str
    line: int
    text: str
    documents_attribute: bool = False


@cache
def passages() -> tuple[Passage, ...]:
    found = [
        passage
        for file in project_files(".py")
        if file.name != Path(__file__).name
        for passage in (*_comments(file), *_docstrings(file))
    ]
    found += [
        Passage(_relative(file), 1, CODE_SPAN.sub("", FENCED.sub("", file.read_text())))
        for file in project_files(".md")
    ]
    return tuple(found)


def _comments(file: Path) -> Iterator[Passage]:
    for token in tokenize.generate_tokens(io.StringIO(file.read_text()).readline):
        if token.type == tokenize.COMMENT:
            yield Passage(_relative(file), token.start[0], CODE_SPAN.sub("", token.string.lstrip("#! ")))


def _docstrings(file: Path) -> Iterator[Passage]:
    """Docstrings of modules, classes, functions and attributes, and the texts of `help=` arguments."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.keyword) and node.arg == "help" and isinstance(node.value, ast.Constant):
            yield Passage(_relative(file), node.value.lineno, str(node.value.value))
        for earlier, statement in _statements(node):
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                text = statement.value.value
                if isinstance(text, str):
                    is_attribute = isinstance(earlier, ast.Assign | ast.AnnAssign)
                    yield Passage(_relative(file), statement.lineno, CODE_SPAN.sub("", text), is_attribute)


def _statements(node: ast.AST) -> Iterator[tuple[ast.stmt | None, ast.stmt]]:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        yield from zip([None, *node.body[:-1]], node.body, strict=True)


def _relative(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


@cache
def number_of_words() -> int:
    return sum(len(WORD.findall(passage.text)) for passage in passages())


def occurrences(pattern: re.Pattern[str]) -> list[str]:
    """`path:line: the words around it` for each match."""
    return [
        f"{passage.path}:{passage.line + passage.text.count(chr(10), 0, match.start())}: "
        + " ".join(passage.text[max(0, match.start() - 40) : match.end() + 40].split())
        for passage in passages()
        for match in pattern.finditer(passage.text)
    ]


@pytest.mark.parametrize(
    ("name", "pattern", "limit"),
    [("quaint words", QUAINT, MAX_QUAINT), ("what", WHAT, MAX_WHAT)],
)
def test_prose_uses_the_words_of_the_field(name: str, pattern: re.Pattern[str], limit: float) -> None:
    found = occurrences(pattern)
    per_thousand = 1000 * len(found) / number_of_words()
    print(
        f"\n{name}: {len(found)} in {number_of_words():,} words, {per_thousand:.2f} per 1,000 (limit {limit})"
    )
    assert per_thousand <= limit, "\n".join(found)


def test_docstrings_of_attributes_open_with_a_noun_or_a_verb() -> None:
    found = [
        f"{passage.path}:{passage.line}: {passage.text.splitlines()[0]}"
        for passage in passages()
        if passage.documents_attribute and OPENS_WITH_PRONOUN.match(passage.text.lstrip())
    ]
    assert not found, "\n".join(found)


def test_paragraphs_begin_where_they_go_on() -> None:
    found = occurrences(SLIPPED)
    assert not found, "\n".join(found)


def test_rule_sees_a_slipped_line() -> None:
    assert SLIPPED.search("Do it.\n\n        A line that slipped\n    and one that did not.\n    ")
    assert not SLIPPED.search("Do it.\n\n    A paragraph\n    goes on.\n\n        code()\n\n    More.\n    ")

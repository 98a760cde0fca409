"""Rule: no meaningless name, no postponed work, no path of a home directory, a docstring per module, and no mention of a
file that does not exist."""

import ast
import re
from collections.abc import Collection
from pathlib import PurePosixPath

import pytest

from source_tree import ROOT, Source, package_sources, project_files

EMPTY_WORDS = {"util", "utils", "helper", "helpers", "common", "base", "manager", "misc"}
POSTPONED = re.compile(r"\b(?:TODO|FIXME|XXX)\b")
HOME = re.compile(r"(?<![\w.])/(?:home|root|Users)/\w")
NAMED_FILE = re.compile(r"(?<![\w./-])[\w/]+\.py\b")
TEXT_SUFFIXES = ("", ".py", ".md", ".toml", ".txt", ".sh", ".json", ".cfg")


def empty_names(source: Source) -> list[str]:
    path = PurePosixPath(source.path)
    found = [
        f"{source.path}: {part} says nothing"
        for part in (*path.parts[:-1], path.stem)
        if is_empty(part.split("_"))
    ]
    found += [
        f"{source.path}:{node.lineno}: {node.name} says nothing"
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ClassDef) and is_empty(re.findall(r"[A-Z][a-z]+", node.name))
    ]
    return found


def is_empty(words: list[str]) -> bool:
    return not EMPTY_WORDS.isdisjoint(word.lower() for word in words)


def text_faults(path: str, text: str) -> list[str]:
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if POSTPONED.search(line):
            found.append(f"{path}:{number}: postponed work belongs into the docs' list of limits")
        if HOME.search(line):
            found.append(f"{path}:{number}: a path that exists on one machine only")
    return found


def test_names_say_something() -> None:
    found = [fault for source in package_sources() for fault in empty_names(source)]
    assert not found, "\n".join(found)


def test_every_module_opens_by_saying_what_it_owns() -> None:
    assert [source.path for source in package_sources() if not ast.get_docstring(source.tree)] == []


def missing_files(source: Source, paths: Collection[str]) -> list[str]:
    """Return the mentions of Python files, with or without their folders, that are none of these."""
    return [
        f"{source.path}: there is no {name}"
        for name in NAMED_FILE.findall(source.text)
        if not any(f"/{path}".endswith(f"/{name}") for path in paths)
    ]


def test_every_file_that_a_module_mentions_exists() -> None:
    paths = [path.relative_to(ROOT).as_posix() for path in project_files(".py")]
    assert [fault for source in package_sources() for fault in missing_files(source, paths)] == []


def test_rule_sees_a_mention_of_a_missing_file() -> None:
    text = '"""Called by gone.py, here.py and client/here.py, not by actors/here.py."""'
    assert missing_files(Source("transport/x.py", text), ["transport/client/here.py"]) == [
        "transport/x.py: there is no gone.py",
        "transport/x.py: there is no actors/here.py",
    ]


def test_no_postponed_work_and_no_home_paths() -> None:
    # This file has to spell the forbidden words.
    files = [path for path in project_files(*TEXT_SUFFIXES) if path.name != "test_names.py"]
    assert len(files) > 10
    faults = [
        fault
        for path in files
        for fault in text_faults(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("transport/utils.py", ""),
        ("transport/socket_helpers.py", ""),
        ("actors/common/log.py", ""),
        ("actors/log.py", "class SegmentManager: ..."),
        ("actors/log.py", "class BaseLog: ..."),
    ],
)
def test_rule_sees_an_empty_name(path: str, text: str) -> None:
    assert len(empty_names(Source(path, text))) == 1


def test_rule_allows_the_words_inside_others() -> None:
    assert empty_names(Source("actors/database.py", "class Managed: ...\nbase_offset = 0")) == []


@pytest.mark.parametrize("line", ["# TODO: later", "x = 1  # FIXME", "see /root/x", "'/home/me/x'"])
def test_rule_sees(line: str) -> None:
    assert len(text_faults("a.py", f"x = 0\n{line}\n")) == 1


def test_rule_allows() -> None:
    assert text_faults("a.md", "the /root of all, ./home/x, docs/home/x, mastodon") == []

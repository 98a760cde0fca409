"""Rule: a relative link in a Markdown file leads to a file that exists and to a heading that exists."""

import re
from collections.abc import Iterator
from pathlib import Path

from source_tree import ROOT, project_files

LINK = re.compile(r"\[[^\]]*\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")
FENCED = re.compile(r"^( *)(```|~~~).*?^ *\2`*\s*$", re.MULTILINE | re.DOTALL)
CODE_SPAN = re.compile(r"`[^`\n]*`")
HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*\s*$", re.MULTILINE)
ELSEWHERE = re.compile(r"^[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def broken_links(file: Path) -> list[str]:
    return [
        f"{file.name}: {target}" for target in links(file.read_text()) if not leads_somewhere(file, target)
    ]


def links(text: str) -> Iterator[str]:
    for match in LINK.finditer(CODE_SPAN.sub("", FENCED.sub("", text))):
        if not ELSEWHERE.match(match[1]):
            yield match[1]


def leads_somewhere(file: Path, target: str) -> bool:
    path, _, anchor = target.partition("#")
    destination = file.parent / path if path else file
    if not destination.exists():
        return False
    return not anchor or destination.suffix != ".md" or anchor in anchors(destination.read_text())


def anchors(text: str) -> set[str]:
    """The names that GitHub gives to headings."""
    found: set[str] = set()
    for heading in HEADING.findall(FENCED.sub("", text)):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", shown).replace(" ", "-")
        name, repeats = slug, 0
        while name in found:
            repeats += 1
            name = f"{slug}-{repeats}"
        found.add(name)
    return found


def test_links_lead_somewhere() -> None:
    files = project_files(".md")
    assert ROOT / "CHANGELOG.md" in files
    found = [fault for file in files for fault in broken_links(file)]
    assert not found, "\n".join(found)


def test_rule_sees_broken_links(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# The log\n\n## `flush`: when it syncs\n\n## The log\n")
    file = tmp_path / "a.md"
    file.write_text(
        "# Here\n"
        "[good](other.md) [good](other.md#the-log) [good](other.md#the-log-1)\n"
        "[good](other.md#flush-when-it-syncs)\n"
        "[good](#here) [good](https://example.org/x) [good](.) `[code](missing.md)`\n"
        "```\n[code](missing.md)\n```\n"
        '[bad](missing.md) [bad](other.md#nothing) [bad](#nowhere) ![bad](missing.png "title")\n'
    )
    assert broken_links(file) == [
        "a.md: missing.md",
        "a.md: other.md#nothing",
        "a.md: #nowhere",
        "a.md: missing.png",
    ]

"""The files that pages load: the vendored library is the published one, and no page refers to another host."""

import hashlib
import re
from pathlib import Path

import pytest

from planaria.supervisor.console import pages

FOLDER: Path = pages.FOLDER
# uPlot 1.6.32, as npm serves it (`npm pack uplot@1.6.32`); its licence lies beside it.
VENDORED = {
    "uPlot.LICENSE": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}
ELSEWHERE = re.compile(r"https?://|[\"'(]//[a-z]|@import")
INLINE = re.compile(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=", re.IGNORECASE)
AA = 4.5
TEXTS = ("ink", "dim")
"""Colours of text that may stand on any ground; those of states stand on cards."""
NAMESPACES = ("http://www.w3.org/2000/svg",)


def own_files() -> list[Path]:
    return [
        path
        for path in sorted(FOLDER.rglob("*"))
        if path.suffix in {".html", ".css", ".js", ".svg"} and path.parent.name != "vendor"
    ]


def test_the_vendored_library_is_the_published_one() -> None:
    vendor = FOLDER / "static" / "vendor"
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in vendor.iterdir()}
    assert found == VENDORED
    assert "MIT License" in (vendor / "uPlot.LICENSE").read_text()


def test_no_file_refers_to_another_host() -> None:
    found = [
        f"{path.name}: {match}"
        for path in own_files()
        for match in ELSEWHERE.findall(_without_namespaces(path.read_text()))
    ]
    assert found == []
    assert len(own_files()) > 8


def test_no_page_has_code_or_style_that_the_policy_forbids() -> None:
    found = [
        f"{path.name}: {match}"
        for path in own_files()
        if path.suffix == ".html"
        for match in INLINE.findall(path.read_text())
    ]
    assert found == []


def test_every_page_has_its_template_and_its_script() -> None:
    for page in pages.PAGES:
        assert (FOLDER / "templates" / f"{page.name}.html").is_file()
        assert (FOLDER / "static" / f"{page.name}.js").is_file()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_has_the_contrast_of_level_aa(theme: str) -> None:
    colours = _colours(theme)
    pairs = [(text, ground) for text in TEXTS for ground in ("card", "ground", "hover", "tint")]
    pairs += [("accent", "tint"), ("accent", "card"), ("on-accent", "accent")]
    pairs += [(state, "card") for state in ("wait", "dead", "quar", "cold")]
    poor = {
        pair: round(ratio, 2)
        for pair in pairs
        if (ratio := _contrast(*(colours[name] for name in pair))) < AA
    }
    assert poor == {}


def _colours(theme: str) -> dict[str, str]:
    """Return the colours of a theme by their names in frame.css."""
    text = (FOLDER / "static" / "frame.css").read_text()
    begin = text.index(":root {" if theme == "light" else ':root[data-theme="dark"] {')
    return dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", text[begin : text.index("}", begin)]))


def _contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours, as WCAG 2.2 defines it."""
    dark, light = sorted(map(_luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    parts = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _without_namespaces(text: str) -> str:
    for name in NAMESPACES:
        text = text.replace(name, "")
    return text

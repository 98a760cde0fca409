"""The files that pages load: the vendored library is the published one, and no page refers to another host."""

import hashlib
import re
from pathlib import Path

from planaria.supervisor.console import pages

FOLDER: Path = pages.FOLDER
# uPlot 1.6.32, as npm serves it (`npm pack uplot@1.6.32`); its licence lies beside it.
VENDORED = {
    "uPlot.LICENSE": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}
ELSEWHERE = re.compile(r"https?:|[\"'(]//[a-z]|@import")
INLINE = re.compile(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=", re.IGNORECASE)
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


def _without_namespaces(text: str) -> str:
    for name in NAMESPACES:
        text = text.replace(name, "")
    return text

"""`planaria demo` on a real broker: its counts balance, and its screen can be written as a picture."""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from command_line import planaria

pytestmark = pytest.mark.processes


def test_the_demo_loses_nothing_and_its_screen_is_written_as_svg(tmp_path: Path) -> None:
    picture = tmp_path / "demo.svg"
    done = planaria("demo", "--duration", "3", "--record", str(picture))
    assert (done.returncode, done.stderr) == (0, "")
    shown = "".join(ET.parse(picture).getroot().itertext()).replace("\xa0", " ")
    assert shown.count("killed ") >= 4
    assert "nothing lost, nothing out of order" in shown
    assert "nothing lost, nothing out of order" in done.stdout


@pytest.mark.chaos
def test_a_lost_site_is_replaced_and_comes_back(tmp_path: Path) -> None:
    done = planaria("demo", "--mirror", "--duration", "8", "--no-color", TMPDIR=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "nothing lost, nothing out of order, both sites the same" in done.stdout


def test_a_picture_that_cannot_be_written_is_refused_before_the_demo_runs(tmp_path: Path) -> None:
    done = planaria("demo", "--record", str(tmp_path / "missing" / "demo.svg"))
    assert done.returncode == 1
    assert "No such file or directory" in done.stderr
    assert done.stdout == ""

"""Rule: the service files of the documentation are valid, and start the command with options that it has."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from command_line import planaria
from source_tree import ROOT

WORKERS = (ROOT / "docs" / "workers.md").read_text()
UNIT = re.compile(r"```ini\n# \S+/(\S+\.service)\n(.*?)```", re.DOTALL)


def unknown_options(words: list[str]) -> list[str]:
    told = planaria("worker", "--help").stdout
    return [word for word in words if word.startswith("--") and word not in told]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze (package systemd)")
def test_the_unit_is_valid(tmp_path: Path) -> None:
    """The user, the folder and the command of this machine stand for those of the example."""
    found = UNIT.search(WORKERS)
    assert found is not None
    text = found[2].replace("/srv/shop/.venv/bin/planaria", "/bin/true").replace("User=shop", "User=root")
    unit = tmp_path / found[1]
    unit.write_text(text.replace("/srv/shop", str(tmp_path)))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        env={**os.environ, "SYSTEMD_LOG_LEVEL": "warning"},
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_and_the_image_give_options_that_the_command_has() -> None:
    found = UNIT.search(WORKERS)
    assert found is not None
    command = found[2].partition("ExecStart=")[2].partition("\nExecReload")[0]
    words = command.replace("\\\n", " ").split()
    assert words[0].endswith("/planaria")
    for instruction in ("ENTRYPOINT", "CMD"):
        listed = re.search(rf"^{instruction} (\[.*\])$", WORKERS, re.MULTILINE)
        assert listed is not None
        words += json.loads(listed[1])
    assert unknown_options(words) == []
    assert unknown_options(["--nothing"]) == ["--nothing"]

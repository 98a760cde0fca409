"""One holder per directory, for as long as it lives."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from planaria.actors.log.errors import LogLocked
from planaria.actors.log.lock import DirectoryLock

_HOLD = """
import sys
from pathlib import Path
from planaria.actors.log.lock import DirectoryLock
lock = DirectoryLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_the_second_is_told_who_the_first_is(tmp_path: Path) -> None:
    path = tmp_path / "new" / "partition.lock"
    with DirectoryLock(path), pytest.raises(LogLocked, match=f"in use by process {os.getpid()}"):
        DirectoryLock(path, wait_ms=0)
    with DirectoryLock(path, wait_ms=0):
        pass


def test_a_killed_holder_lets_go_while_the_next_one_waits(tmp_path: Path) -> None:
    path = tmp_path / "partition.lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(LogLocked, match=f"process {holder.pid}"):
            DirectoryLock(path, wait_ms=20)
        holder.kill()
        DirectoryLock(path, wait_ms=5000).release()

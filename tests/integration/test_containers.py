"""The command of the image is process 1 of its own namespaces: no rights, a read-only root, tmpfs, a small /dev/shm."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_line import environment, planaria
from live_trees import actor, pid_of, until, until_reborn
from patience import TIMEOUT_S
from planaria import Client
from planaria.supervisor.config import BrokerConfig
from planaria.supervisor.freezing import descendants, processes
from source_tree import ROOT

pytestmark = pytest.mark.processes

DOCKERFILE = (ROOT / "examples/container/Dockerfile").read_text()
STATEFUL_SET = (ROOT / "examples/container/planaria.yaml").read_text()
INSIDE = """
set -e
mount --make-rprivate /
mount -t tmpfs -o size=64m,mode=1777 tmpfs "$1"
mount -t tmpfs -o size=1m,mode=1777 tmpfs "$2"
mount -t tmpfs -o size=4k tmpfs /dev/shm
mount -o remount,bind,ro /
mount -t proc proc /proc
shift 2
exec unshare --user --map-user=1000 --map-group=1000 "$@"
"""
UNSHARE = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount", "--kill-child"]


def can_unshare() -> bool:
    try:
        done = subprocess.run(
            [*UNSHARE, "sh", "-c", "mount -t tmpfs tmpfs /dev/shm && unshare --user --map-user=1000 true"],
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        return False
    return done.returncode == 0


@pytest.fixture
def container(endpoint: str) -> Iterator[subprocess.Popen[bytes]]:
    if not can_unshare():
        pytest.skip("this system allows no namespaces to this user")
    mounts = Path(tempfile.mkdtemp(prefix="pl-c-", dir="/tmp"))  # a socket's path is short
    volume, run = mounts / "volume", mounts / "run"
    volume.mkdir()
    run.mkdir()
    variables = {
        "PLANARIA_DATA": str(volume / "data"),
        "PLANARIA_ENDPOINT": endpoint,
        "XDG_RUNTIME_DIR": str(run),
    }
    assert variables.keys() <= set(re.findall(r"(\w+)=", DOCKERFILE))
    words = [
        word
        for line in re.findall(r"^(?:ENTRYPOINT|CMD) \[(.*)\]$", DOCKERFILE, re.MULTILINE)
        for word in shlex.split(line.replace(",", " "))
    ]
    assert words == ["planaria", "serve"]
    command = [sys.executable, "-P", "-m", *words]
    held = subprocess.Popen(
        [*UNSHARE, "sh", "-c", INSIDE, "sh", str(volume), str(run), *command],
        env=environment(**variables, PLANARIA_DISK_RESERVE_BYTES="0"),
        cwd=volume,
    )
    yield held
    held.kill()
    held.wait()
    shutil.rmtree(mounts)


def supervisor_of(container: subprocess.Popen[bytes]) -> int:
    (child,) = [pid for pid, each in processes().items() if each.parent == container.pid]
    return child


def test_the_broker_serves_heals_and_stops_in_order_as_process_1(
    container: subprocess.Popen[bytes], endpoint: str
) -> None:
    with Client(endpoint) as client:
        client.wait_for_broker(60)
        probes = re.findall(r"command: \[planaria, (health, --\w+)\]", STATEFUL_SET)
        assert len(probes) == 3
        for probe in sorted(set(probes)):
            done = planaria(*probe.split(", "), "--connect", endpoint)
            assert done.returncode == 0, done.stderr
        assert client.status().supervisor_pid == 1
        client.create_topic("T", 1)
        client.publish("T", b"before")
        before = actor(client, "partition/T/0")
        client.kill("partition/T/0")
        until_reborn(client, before)
        client.publish("T", b"after")
        assert pid_of(client, "partition/T/0") > 1
        supervisor = supervisor_of(container)
        status = Path(f"/proc/{supervisor}/status").read_text()
        assert re.search(r"^NSpid:.*\s1$", status, re.MULTILINE)
        until(
            lambda: (
                not any(
                    processes()[pid].state.startswith("Z") for pid in descendants(processes(), supervisor)
                )
            ),
            "no zombies below process 1",
        )
        os.kill(supervisor, signal.SIGTERM)
        assert container.wait(TIMEOUT_S) == 0


def test_the_image_runs_without_rights_and_sets_known_keys() -> None:
    (user,) = re.findall(r"^USER (\d+):(\d+)$", DOCKERFILE, re.MULTILINE)
    assert user == ("1000", "1000")
    assert "readOnlyRootFilesystem: true" in STATEFUL_SET
    keys = {name.lower() for name in re.findall(r"PLANARIA_([A-Z_]+)\b", DOCKERFILE + STATEFUL_SET)}
    assert keys - {"key"} <= set(BrokerConfig.__struct_fields__)


def test_the_document_shows_the_files() -> None:
    text = (ROOT / "docs/containers.md").read_text()
    assert DOCKERFILE in text
    assert STATEFUL_SET in text

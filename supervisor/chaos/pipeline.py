"""`planaria chaos --exactly-once`: two stages that consume, transform and publish in transactions under faults.

Each stage is a group of workers, which are programs of their own, and of hosted members, or instead of these members in
a `planaria worker`. Actors of the broker, its supervisor and the workers are killed and frozen, workers until they have a
successor, so that they return as zombies.
At the end the output must be the input, exactly once, in order by key.
"""

import itertools
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import msgspec
from rich.console import Console

from ...transport.addresses import TopicPartition
from ...transport.client.client import Client
from ...transport.endpoints import Endpoints
from ..broker import EMBEDDED_ENDPOINT, Broker
from .clocks import Clocks, rehearsed
from .history import History, LogEntry
from .hosted_stage import HOSTED, read_calls, transforming
from .nemesis import WEIGHTS, Nemesis
from .outside_stage import OutsideStage, OutsideWorker
from .probes import Probes
from .run import ENOUGH_RESTARTS, RunOptions, Say, in_scratch, run_and_report, strike_until_over
from .stage import Stage, read_journals
from .transaction_history import Findings, check_stage, origin
from .workload import TOPIC

TOPICS = ("CHAOS-SOURCE", "CHAOS-MIDDLE", "CHAOS-OUTPUT")
WORKERS = 2
"""Programs per stage; there are as many hosted members."""
HANG_TIMEOUT_MS = 1_000
KEYS = 20
CLIENT_SHARE = 0.25
"""Share of the faults that strike a worker instead of an actor."""
OUTSIDE_SHARE = 0.6
"""Share of these that strike the processes of a `planaria worker`, if there is one."""
ZOMBIE_S = 1.0
SETTLE_S = 120.0
SETTLE_POLL_S = 0.5


class PipelineOptions(RunOptions, frozen=True, kw_only=True):
    interval_ms: int = 300
    """Mean time between faults."""
    messages_per_second: int = 200
    is_outside: bool = False
    """The handlers are in the processes of a `planaria worker`, and the broker hosts none."""


class PipelineReport(msgspec.Struct, frozen=True, kw_only=True):
    seed: int
    duration_s: float
    faults: dict[str, int]
    input: int
    output: int
    transactions: dict[str, int]
    """Transactions of the workers."""
    hosted: dict[str, int]
    """Calls of the hosted members' handlers that returned, calls that failed, and their outputs."""
    stages: list[Findings]

    @property
    def is_clean(self) -> bool:
        return self.input == self.output and all(findings.is_clean for findings in self.stages)


class Workers:
    """The processes of the stages; one that ends is restarted under the same transactional id."""

    def __init__(
        self, stages: list[Stage], chance: random.Random, outside: OutsideWorker | None = None
    ) -> None:
        self._stages = stages
        self._outside = outside
        self._chance = chance
        self._processes = [self._start(stage) for stage in stages]
        self._zombies: list[tuple[float, subprocess.Popen[bytes]]] = []

    def strike(self) -> tuple[str, str]:
        """Strike a worker; return the kind of fault and its description."""
        if self._outside is not None and self._chance.random() < OUTSIDE_SHARE:
            return self._outside.strike(self._chance)
        number = self._chance.randrange(len(self._stages))
        process = self._processes[number]
        kind = self._chance.choice(("kill", "kill", "zombie"))
        if kind == "kill":
            process.kill()
            process.wait()
        else:
            process.send_signal(signal.SIGSTOP)
            self._zombies.append((time.monotonic() + ZOMBIE_S, process))
        self._processes[number] = self._start(self._stages[number])
        return f"{kind} client", f"{kind} client {self._stages[number].transactional_id}"

    def tend(self) -> None:
        """Restart workers that ended; resume workers frozen for long enough."""
        if self._outside is not None:
            self._outside.tend()
        for number, process in enumerate(self._processes):
            if process.poll() is not None:
                self._processes[number] = self._start(self._stages[number])
        for due, process in list(self._zombies):
            if time.monotonic() > due:
                process.send_signal(signal.SIGCONT)
            if time.monotonic() > due + ZOMBIE_S or process.poll() is not None:
                process.kill()
                process.wait()
                self._zombies.remove((due, process))

    def close(self) -> None:
        if self._outside is not None:
            self._outside.close()
        for process in [*self._processes, *(process for _, process in self._zombies)]:
            process.kill()
            process.wait()

    def _start(self, stage: Stage) -> subprocess.Popen[bytes]:
        package = __name__.rpartition(".")[0]
        with open(f"{stage.journal}.log", "ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", f"{package}.stage", msgspec.json.encode(stage).decode()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )


def run_pipeline(options: PipelineOptions, console: Console) -> int:
    """Run, print the report, return the exit code."""
    return run_and_report("exactly-once chaos", options, console, pipeline_run, _print)


def pipeline_run(options: PipelineOptions, say: Say) -> PipelineReport:
    """Run once on a fresh data directory, which is kept after a violation."""
    return in_scratch(lambda scratch: _run_in(scratch, options, say), say)


def _run_in(scratch: Path, options: PipelineOptions, say: Say) -> PipelineReport:
    chance = random.Random(options.seed)
    struck: Counter[str] = Counter()
    started = time.monotonic()
    with (
        rehearsed(scratch, options.seed) as clocks,
        Broker(
            scratch / "data",
            endpoint=EMBEDDED_ENDPOINT,
            restart_intensity=ENOUGH_RESTARTS,
            backoff_reset_ms=1,
            hang_timeout_ms=HANG_TIMEOUT_MS,
            heartbeat_interval_ms=HANG_TIMEOUT_MS // 4,
        ) as broker,
    ):
        for topic in TOPICS:
            broker.create_topic(topic, options.partitions)
        broker.create_topic(TOPIC, 1)  # for the probes
        stages = _stages(broker.endpoint, scratch)
        outside = _host(broker, stages, scratch, is_outside=options.is_outside)
        probes = Probes(broker.client, History())
        nemesis = _nemesis(broker, probes, clocks, options)
        source = Source(broker.endpoint, options.messages_per_second)
        workers = Workers(stages, chance, outside)

        def strike() -> str:
            workers.tend()
            if chance.random() < CLIENT_SHARE:
                kind, what = workers.strike()
            else:
                what = nemesis.strike()
                kind = what.partition("/")[0] if "/" in what else what.partition(" ")[0]
            struck[kind] += 1
            return what

        try:
            strike_until_over(options, nemesis.pause_s, strike, say)
            nemesis.finish()
            _await_everybody(scratch, workers)
            count = source.stop()
            say(f"faults are over: waiting until {count} messages have come through")
            settle(broker.client, TOPICS[2], options.partitions, count, workers, say)
        finally:
            workers.close()
            probes.close()
            source.close()
        logs = [read_committed(broker.client, topic, options.partitions) for topic in TOPICS]
        committed = [
            committed_offsets(
                broker.client, stages[number * WORKERS].group, TOPICS[number], options.partitions
            )
            for number in range(2)
        ]
    findings, outcomes, hosted = [], Counter[str](), Counter[str]()
    for number in range(2):
        attempts, sessions = read_journals(scratch / f"stage{number}")
        calls = read_calls(scratch / f"hosted{number}")
        outcomes.update(attempt.outcome for attempt in attempts)
        hosted.update("failed" if call.outcome == "fail" else "returned" for call in calls)
        hosted["outputs"] += sum(f"|{HOSTED}" in entry.value for entry in logs[number + 1])
        attempts += calls
        findings.append(check_stage(attempts, sessions, logs[number], committed[number], logs[number + 1]))
    return PipelineReport(
        seed=options.seed,
        duration_s=round(time.monotonic() - started, 1),
        faults=dict(sorted(struck.items())),
        input=count,
        output=len({origin(entry.value) for entry in logs[2]}),
        transactions=dict(sorted(outcomes.items())),
        hosted=dict(sorted(hosted.items())),
        stages=findings,
    )


def _nemesis(broker: Broker, probes: Probes, clocks: Clocks, options: PipelineOptions) -> Nemesis:
    interval_s = options.interval_ms / 1000
    return Nemesis(broker, probes, clocks, seed=options.seed, interval_s=interval_s, kinds=tuple(WEIGHTS))


def _stages(endpoint: str, scratch: Path) -> list[Stage]:
    found = []
    for number in range(2):
        journal = scratch / f"stage{number}"
        journal.mkdir()
        found += [
            Stage(
                endpoint=endpoint,
                group=f"chaos-stage{number}",
                source=TOPICS[number],
                target=TOPICS[number + 1],
                transactional_id=f"stage{number}-{worker}",
                journal=str(journal),
            )
            for worker in range(WORKERS)
        ]
    return found


def _host(broker: Broker, stages: list[Stage], scratch: Path, *, is_outside: bool) -> OutsideWorker | None:
    """Add members with handlers to each stage's group."""
    folders = [scratch / f"hosted{number}" for number in range(2)]
    for folder in folders:
        folder.mkdir()
    if is_outside:
        each = enumerate(zip(stages[::WORKERS], folders, strict=True))
        outside = [OutsideStage(stage, str(folder), number + 1) for number, (stage, folder) in each]
        return OutsideWorker(outside, scratch, WORKERS)
    for number, stage in enumerate(stages[::WORKERS]):
        broker.subscribe(
            stage.group,
            stage.source,
            handler=transforming(stage.target, folders[number]),
            delivery="exactly-once",
            workers=WORKERS,
            concurrency=number + 1,
            backoff_ms=[10],
        )
    return None


class Source:
    """Publishes numbered values until stopped; every one of them must be acknowledged."""

    def __init__(self, endpoint: Endpoints, messages_per_second: int) -> None:
        self._client = Client(endpoint, client_id="chaos-source")
        self._producer = self._client.producer(delivery_timeout_ms=120_000)
        self._pause_s = 10 / messages_per_second
        self._is_over = threading.Event()
        self._count = 0
        self._thread = threading.Thread(target=self._publish, name="chaos-source", daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """Stop, and return the number of published values. Raises the first error of a message."""
        self._is_over.set()
        self._thread.join()
        self._producer.flush()
        return self._count

    def close(self) -> None:
        self._is_over.set()
        self._thread.join()
        self._producer.close()
        self._client.close()

    def _publish(self) -> None:
        numbers = itertools.count()
        while not self._is_over.wait(self._pause_s):
            for number in itertools.islice(numbers, 10):
                key = f"k{number % KEYS}"
                self._producer.publish(TOPICS[0], f"{key}:{number}".encode(), key=key)
                self._count += 1


def _await_everybody(scratch: Path, workers: Workers) -> None:
    """Wait until programs and hosted members have done work in each stage, however short the run; with a time limit."""

    def has_everybody(number: int) -> bool:
        attempts, _ = read_journals(scratch / f"stage{number}")
        calls = read_calls(scratch / f"hosted{number}")
        return any(each.outcome == "ok" for each in attempts) and any(c.outcome != "fail" for c in calls)

    give_up_at = time.monotonic() + SETTLE_S
    while not all(map(has_everybody, range(2))) and time.monotonic() < give_up_at:
        workers.tend()
        time.sleep(SETTLE_POLL_S)


def settle(client: Client, topic: str, partitions: int, count: int, workers: Workers, say: Say) -> None:
    """Wait until as many outputs can be read as there was input, or long enough to count the rest as lost."""
    started = time.monotonic()
    tps = [(topic, partition) for partition in range(partitions)]
    seen: set[str] = set()
    with client.consumer(partitions=tps, auto_offset_reset="earliest") as consumer:
        while (waited_s := time.monotonic() - started) < SETTLE_S:
            workers.tend()
            found = consumer.poll(SETTLE_POLL_S, max_messages=10_000)
            seen.update(origin((message.value or b"").decode()) for message in found)
            if len(seen) >= count:
                say(f"everything had come through {waited_s:.1f} s after the last fault")
                return
    say(f"after {waited_s:.0f} s {len(seen)} of {count} had come through")


def read_committed(client: Client, topic: str, partitions: int) -> list[LogEntry]:
    """Return all committed values, partition by partition; transactions of killed workers end by their timeout."""
    entries: list[LogEntry] = []
    for partition in range(partitions):
        end = client.list_offsets(topic, partition, "latest").offset
        with client.consumer(partitions=[(topic, partition)], auto_offset_reset="earliest") as consumer:
            while consumer.position(topic, partition) < end:
                found = consumer.poll(0.1, max_messages=10_000)
                entries += [LogEntry(partition, m.offset, (m.value or b"").decode()) for m in found]
    return entries


def committed_offsets(client: Client, group: str, topic: str, partitions: int) -> dict[int, int]:
    """Return the group's offsets once no transaction is between its decision and its markers."""
    tps = [TopicPartition(topic, partition) for partition in range(partitions)]
    with client.consumer(group, partitions=tps, auto_commit=False) as consumer:
        return {tp.partition: at for tp, at in consumer.committed(tps).items()}


def _print(report: PipelineReport, console: Console) -> None:
    for name, count in {
        **{f"faults: {kind}": count for kind, count in report.faults.items()},
        **{f"transactions: {outcome}": count for outcome, count in report.transactions.items()},
        **{f"hosted: {what}": count for what, count in report.hosted.items()},
        "input": report.input,
        "output": report.output,
    }.items():
        console.print(f"{name:40} {count:>10,}", highlight=False)
    for number, findings in enumerate(report.stages, 1):
        for kind, count in findings.counts.items():
            console.print(f"{f'stage {number}: {kind}':40} {count:>10,}", highlight=False)
        for line in findings.examples:
            console.print(f"[red]{line}[/red]")

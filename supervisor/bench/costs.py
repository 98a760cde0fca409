"""Processor time of single operations, by process and thread: `python -m planaria.supervisor.bench.costs [ROW ...]`.

Prints microseconds and sleeps for each message, of this program, of the actors on the way, and of their ZeroMQ threads
(`io`): the least of many short blocks, which other work on the machine changes far less than a rate. Each row has a fresh
broker, or a fresh cluster of three nodes whose processes have the node's name in front. Linux only. To compare two
versions, run them in turns.
"""

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import zmq

from ...transport.client.client import Client
from ..broker import Broker
from .cluster_stage import Stage, running_stage
from .hops import produce_request, publish_request
from .replication import two_topics
from .rows import TOPIC, VALUE, fresh_broker
from .shapes import PLAIN, SELDOM, SHAPES, Shape, publish_each
from .singles import fill

BLOCK = 200
"""Calls of a row's work in a block."""
BULK_BYTES = 100_000
"""Values that a call of the work of a bulk row publishes."""
WARM_UP = 100
LEAST_US = 1.0
"""Threads that take less for an operation are not printed."""


class Thread(NamedTuple):
    process: str
    name: str


class Spent(NamedTuple):
    run_us: float
    sleeps: float


def spent_by(pid: int) -> Iterator[tuple[str, Spent]]:
    """Return the processor time and the voluntary switches of each thread so far, with its name."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            status = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines())
            run_ns = int((task / "schedstat").read_text().split()[0])
        except OSError:  # the thread has ended
            continue
        name = "io" if status["Name"].startswith("ZMQ") else "" if task.name == str(pid) else "other"
        yield name, Spent(run_ns / 1_000, int(status["voluntary_ctxt_switches"]))


def spent(pids: dict[str, int]) -> dict[Thread, Spent]:
    found: dict[Thread, Spent] = {}
    for process, pid in pids.items():
        for name, each in spent_by(pid):
            before = found.get(Thread(process, name), Spent(0, 0))
            found[Thread(process, name)] = Spent(before.run_us + each.run_us, before.sleeps + each.sleeps)
    return found


class Measured(NamedTuple):
    """A row that is ready to be measured."""

    work: Callable[[], int]
    """Returns the number of messages that it has handled."""
    processes: Callable[[], dict[str, int]]
    """Returns the ids of the processes of the broker, or of all nodes, by their names."""


def measure(row: Measured, blocks: int) -> dict[Thread, list[Spent]]:
    """Return the cost of one message in each block."""
    work = row.work
    for _ in range(WARM_UP):
        work()
    pids = row.processes() | {"program": os.getpid()}
    own_first = dict(reversed(pids.items()))
    costs: dict[Thread, list[Spent]] = {}
    for _ in range(blocks):
        before = spent(pids)
        messages = sum(work() for _ in range(BLOCK))
        # This program is read last before the block and first after it, so its reading does not count.
        for thread, now in spent(own_first).items():
            then = before.get(thread, now)
            cost = Spent((now.run_us - then.run_us) / messages, (now.sleeps - then.sleeps) / messages)
            costs.setdefault(thread, []).append(cost)
    return costs


Row: TypeAlias = Callable[[int], AbstractContextManager[Measured]]
"""Takes the number of times that the work will be done."""
Work: TypeAlias = Iterator[Callable[[], int]]
BrokerRow: TypeAlias = Callable[[Broker, int], Work]
"""Fills the topic as far as it needs, and yields the work."""


def on_broker(row: BrokerRow, **settings: Any) -> Row:
    @contextmanager
    def measured(works: int) -> Iterator[Measured]:
        with fresh_broker(**settings) as broker, contextmanager(row)(broker, works) as work:
            yield Measured(
                work, lambda: {each.address: each.pid for each in broker.status().actors if each.pid}
            )

    return measured


def publish(broker: Broker, _: int) -> Work:
    with broker.producer(linger_ms=0) as producer:
        yield lambda: producer.publish(TOPIC, VALUE).result(10.0) is not None


def bulk(shape: Shape) -> BrokerRow:
    """Publish without waiting for acknowledgements, as far as the producer's buffer allows."""

    def row(broker: Broker, _: int) -> Work:
        messages = BULK_BYTES // shape.size_bytes
        with broker.producer() as producer:

            def work() -> int:
                publish_each(producer.publish, shape, messages)
                return messages

            yield work

    return row


def commit(broker: Broker, works: int) -> Work:
    fill(broker, works)
    with broker.consumer("bench", [TOPIC], auto_offset_reset="earliest", auto_commit=False) as consumer:

        def work() -> int:
            found = consumer.poll(10.0, max_messages=1)
            consumer.commit(found[0])
            return len(found)

        yield work


def queue(at_once: int, *, is_flushed: bool = True) -> BrokerRow:
    def row(broker: Broker, works: int) -> Work:
        fill(broker, works * at_once)
        with broker.share_consumer("bench", [TOPIC]) as consumer:

            def work() -> int:
                found = consumer.poll(10.0, max_messages=at_once)
                for message in found:
                    message.accept()
                if is_flushed:
                    consumer.flush()
                return len(found)

            yield work

    return row


def hop(request: Callable[[], list[bytes]]) -> BrokerRow:
    def row(broker: Broker, _: int) -> Work:
        with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
            socket.connect(broker.endpoint)
            frames = request()

            def work() -> int:
                socket.send_multipart(frames)
                socket.recv_multipart()
                return 1

            yield work

    return row


def replicated(replicas: int) -> Row:
    """Publish to a topic of a cluster of three nodes, which the client's node leads."""

    @contextmanager
    def measured(_: int) -> Iterator[Measured]:
        with (
            running_stage() as stage,
            two_topics(stage) as (client, *topics),
            client.producer(linger_ms=0) as producer,
        ):
            topic = topics[0] if replicas == 1 else topics[1]
            yield Measured(
                lambda: producer.publish(topic, VALUE).result(30.0) is not None, lambda: processes_of(stage)
            )

    return measured


def processes_of(stage: Stage) -> dict[str, int]:
    pids: dict[str, int] = {}
    for node, endpoint in zip(stage.cluster.nodes, stage.cluster.endpoints, strict=True):
        with Client(endpoint) as client:
            pids |= {f"{node.name} {each.address}": each.pid for each in client.status().actors if each.pid}
    return pids


ROWS: dict[str, Row] = {
    "publish": on_broker(publish),
    "commit": on_broker(commit),
    "queue-one": on_broker(queue(1)),
    "queue-next": on_broker(queue(1, is_flushed=False)),
    "queue-each": on_broker(queue(100)),
    "hop": on_broker(hop(produce_request), topic_defaults={"flush": "os"}),
    "hop-json": on_broker(hop(publish_request), topic_defaults={"flush": "os"}),
    **{
        f"bulk-{name}": on_broker(bulk(shape), partitions=shape.partitions)
        for name, shape in {"plain": PLAIN, **SHAPES, **SELDOM}.items()
    },
    "replicated-one": replicated(1),
    "replicated": replicated(3),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="planaria.supervisor.bench.costs")
    parser.add_argument("rows", nargs="*", default=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--blocks", type=int, default=30, help=f"{BLOCK} operations each")
    arguments = parser.parse_args()
    if unknown := set(arguments.rows) - ROWS.keys():
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    for name in arguments.rows:
        with ROWS[name](WARM_UP + arguments.blocks * BLOCK) as row:
            show(name, measure(row, arguments.blocks))


def show(name: str, costs: dict[Thread, list[Spent]]) -> None:
    all_us = [
        sum(each) for each in zip(*([one.run_us for one in spent] for spent in costs.values()), strict=False)
    ]
    print(f"{name:34} {min(all_us):9.2f} us")
    for thread, spent_in in costs.items():
        least_us = min(each.run_us for each in spent_in)
        if least_us >= min(LEAST_US, min(all_us) / 50):
            sleeps = sorted(each.sleeps for each in spent_in)[len(spent_in) // 2]
            print(f"  {thread.process:24} {thread.name:7} {least_us:9.2f} us {sleeps:8.2f} sleeps")


if __name__ == "__main__":
    main()

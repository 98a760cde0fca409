"""Cost of sleeping partitions: `python -m planaria.supervisor.bench.sleeping [--topics N] [--active N]`.

Creates topics of one partition with `partition_idle_ms` set, waits until all sleep, and restarts the broker. Prints
the time of the restart, the memory of the processes, and the time to wake some of them by one message each. Not a row of
`planaria bench`: creating 5,000 topics takes minutes.
"""

import argparse
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ...transport.addresses import CONTROLLER, Address
from ...transport.processes import own_memory_bytes
from ..broker import EMBEDDED_ENDPOINT, Broker
from ..broker_tree import GATEWAY

IDLE_MS = 3_000
CREATED_AT_ONCE = 8
MEGABYTE = 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(prog="planaria.supervisor.bench.sleeping")
    parser.add_argument("--topics", type=int, default=5_000)
    parser.add_argument("--active", type=int, default=50)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="planaria-bench-") as directory:
        data = Path(directory) / "data"
        started = time.perf_counter()
        with _broker(data) as broker:
            _create(broker, arguments.topics)
            print(f"{arguments.topics} topics created in {time.perf_counter() - started:.0f} s")
            while any(_is_awake_partition(actor) for actor in broker.status().actors):
                time.sleep(1)
            print(f"all asleep: {_memory(broker)}")
        started = time.perf_counter()
        with _broker(data) as broker:
            print(f"started again in {time.perf_counter() - started:.1f} s: {_memory(broker)}")
            _wake(broker, arguments.topics, arguments.active)


def _broker(data: Path) -> Broker:
    return Broker(
        data,
        endpoint=EMBEDDED_ENDPOINT,
        log_level="error",
        partition_idle_ms=IDLE_MS,
        coordinator_idle_ms=IDLE_MS,
    )


def _create(broker: Broker, topics: int) -> None:
    with ThreadPoolExecutor(CREATED_AT_ONCE) as pool:
        for _ in pool.map(lambda number: broker.client.create_topic(f"T{number}", 1), range(topics)):
            pass


def _wake(broker: Broker, topics: int, active: int) -> None:
    started = time.perf_counter()
    with broker.producer() as producer:
        step = max(1, topics // active)
        deliveries = [producer.publish(f"T{number * step}", {"n": number}) for number in range(active)]
        for delivery in deliveries:
            delivery.result()
        print(f"{active} woken by a message each in {time.perf_counter() - started:.1f} s: {_memory(broker)}")
        started = time.perf_counter()
        producer.publish(f"T{topics - 1}", {"n": 0}).result()
        print(f"one more by a message in {1000 * (time.perf_counter() - started):.0f} ms")


def _is_awake_partition(actor: Any) -> bool:
    return actor.pid is not None and Address.parse(actor.address).topic is not None


def _memory(broker: Broker) -> str:
    """Format the private memory; pages shared with the fork server are not counted."""
    found = broker.status()
    awake = [actor for actor in found.actors if actor.pid is not None]
    partitions = [actor.memory_bytes for actor in awake if _is_awake_partition(actor)]
    others = [
        f"{each.address} {each.memory_bytes / MEGABYTE:.1f} MB"
        for each in awake
        if each.address in (CONTROLLER, GATEWAY)
    ]
    supervisor = own_memory_bytes(found.supervisor_pid) / MEGABYTE
    return ", ".join(
        [
            f"supervisor {supervisor:.1f} MB",
            *others,
            f"{len(partitions)} partitions awake {sum(partitions) / MEGABYTE:.0f} MB of {len(found.actors)} actors",
        ]
    )


if __name__ == "__main__":
    main()

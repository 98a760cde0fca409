"""Broadcast between groups, work sharing inside one.

Run it:      python examples/order_pipeline.py
You will see twelve orders go to two groups. `billing` has two members, which share the partitions: each order is billed
once. `shipping` has one, which gets every order: groups consume independently of each other.
"""

import tempfile
import threading
from collections import Counter

from planaria import Broker, Consumer

ORDERS = 12
PARTITIONS = 4


def work(consumer: Consumer, name: str, done: Counter[str], everything_seen: threading.Event) -> None:
    """Consume until all orders have reached both groups."""
    with consumer:
        while not everything_seen.is_set():
            for message in consumer.poll(timeout=0.2):
                line = f"{name:<12} order {message.data['order']:>2} of {message.key.decode()}"
                print(f"{line}\n", end="")  # one write: the lines of two threads stay whole
                done[name] += 1
                if done["billing-1"] + done["billing-2"] == done["shipping-1"] == ORDERS:
                    everything_seen.set()


def main() -> None:
    with tempfile.TemporaryDirectory() as directory, Broker(directory) as broker:
        broker.create_topic("ORDERS", PARTITIONS)
        done: Counter[str] = Counter()
        everything_seen = threading.Event()
        members = [
            threading.Thread(
                target=work,
                args=(
                    broker.consumer(name.split("-")[0], ["ORDERS"], auto_offset_reset="earliest"),
                    name,
                    done,
                    everything_seen,
                ),
            )
            for name in ("billing-1", "billing-2", "shipping-1")
        ]
        for member in members:
            member.start()
        with broker.producer() as producer:
            for number in range(ORDERS):
                producer.publish("ORDERS", {"order": number}, key=f"customer-{number % 5}")
        everything_seen.wait(timeout=30)
        everything_seen.set()
        for member in members:
            member.join()
    print(dict(sorted(done.items())))


if __name__ == "__main__":
    main()

"""Exactly once from topic to topic: what is read and what is made of it count together, whoever is killed.

Run it:      python examples/exactly_once.py
You will see a program that turns orders into payments end in the middle of a transaction, twice, each time with an actor
of the broker killed; and at the end as many payments as orders, one for each.
"""

import random
import tempfile

from planaria import Broker, Consumer, PlanariaError

ORDERS = 200
KILLED = ("partition/PAYMENTS/0", "transactions/0", "coordinator/payments", "gateway/0")


class Crash(Exception):
    """The program ends here, with a transaction half done."""


def work(broker: Broker, crash_after: int) -> int:
    """One life of the program: reads orders, publishes payments; how many orders it finished."""
    finished = 0
    with (
        broker.producer(transactional_id="orders-to-payments") as producer,
        broker.consumer("payments", ["ORDERS"], auto_commit=False, auto_offset_reset="earliest") as consumer,
    ):
        while orders := poll(consumer):
            with producer.transaction() as tx:
                for order in orders:
                    tx.publish(
                        "PAYMENTS",
                        {"order": order.data["order"], "paid": order.data["amount"]},
                        key=order.key,
                    )
                tx.commit_offsets(consumer)
                if finished >= crash_after:
                    raise Crash  # nothing of this transaction will be read, and its orders come again
            finished += len(orders)
    return finished


def poll(consumer: Consumer) -> list:
    return consumer.poll(2, max_messages=20)


def main() -> None:
    with tempfile.TemporaryDirectory() as directory, Broker(directory) as broker:
        broker.create_topic("ORDERS", 2)
        broker.create_topic("PAYMENTS", 2)
        for number in range(ORDERS):
            broker.publish(
                "ORDERS", f"customer-{number % 7}", {"order": number, "amount": random.randrange(100)}
            )
        lives = 0
        while True:
            lives += 1
            try:
                work(broker, crash_after=60 * lives)
                break
            except Crash:
                victim = KILLED[lives % len(KILLED)]
                broker.kill(victim)
                print(f"life {lives} ended in the middle of a transaction, and {victim} was killed")
        paid = []
        with broker.consumer(
            partitions=[("PAYMENTS", 0), ("PAYMENTS", 1)], auto_offset_reset="earliest"
        ) as reader:
            while found := reader.poll(1):
                paid += [message.data["order"] for message in found]
        print(f"{ORDERS} orders, {len(paid)} payments, {len(set(paid))} different ones")
        if sorted(paid) != list(range(ORDERS)):
            raise SystemExit("not exactly once")


if __name__ == "__main__":
    try:
        main()
    except PlanariaError as error:
        raise SystemExit(f"planaria: {error}") from error

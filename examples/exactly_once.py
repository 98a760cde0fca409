"""Exactly once from topic to topic: reading, processing and publishing are one transaction, whichever process is killed.

Run it:      python examples/exactly_once.py
You will see a program that turns orders into payments end in the middle of a transaction, twice, each time with an actor
of the broker killed, as is the hosted handler that turns payments into receipts; and at the end as many payments and
receipts as orders, one for each.
"""

import random
import tempfile

from planaria import Broker, Consumer, Context, Message, PlanariaError, TransactionAborted

ORDERS = 200
KILLED = ("partition/PAYMENTS/0", "transactions/0", "subscriber/receipts/1", "coordinator/payments")


class Crash(Exception):
    """The program ends here, in the middle of a transaction."""


def work(broker: Broker, crash_after: int) -> int:
    """Run the program once: read orders, publish payments; return the number of finished orders."""
    finished = 0
    with (
        broker.producer(transactional_id="orders-to-payments") as producer,
        broker.consumer("payments", ["ORDERS"], auto_commit=False, auto_offset_reset="earliest") as consumer,
    ):
        producer.claim()  # aborts the transaction left open by the last run
        while orders := poll(consumer):
            try:
                with producer.transaction() as tx:
                    for order in orders:
                        payment = {"order": order.data["order"], "paid": order.data["amount"]}
                        tx.publish("PAYMENTS", payment, key=order.key)
                    tx.commit_offsets(consumer)
                    if finished >= crash_after:
                        raise Crash  # this transaction will not be read, and its orders are read again
                finished += len(orders)
            except TransactionAborted:
                consumer.seek_to_committed()  # the transaction was aborted: read the orders again
    return finished


def poll(consumer: Consumer) -> list:
    return consumer.poll(2, max_messages=20)


def acknowledge(payment: Message, context: Context) -> None:
    """Runs in a process of the broker's: its output and the offset of the payment are committed atomically."""
    context.publish("RECEIPTS", {"order": payment.data["order"]}, key=payment.key)


def read(broker: Broker, topic: str) -> list[int]:
    """Return the orders of all messages in the topic, once no new one arrives."""
    found = []
    tps = [(topic, 0), (topic, 1)]
    with broker.consumer(partitions=tps, auto_offset_reset="earliest") as reader:
        while messages := reader.poll(1):
            found += [message.data["order"] for message in messages]
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as directory, Broker(directory) as broker:
        broker.create_topic("ORDERS", 2)
        broker.create_topic("PAYMENTS", 2)
        broker.create_topic("RECEIPTS", 2)
        broker.subscribe("receipts", "PAYMENTS", handler=acknowledge, delivery="exactly-once", workers=2)
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
        paid, receipts = read(broker, "PAYMENTS"), read(broker, "RECEIPTS")
        print(f"{ORDERS} orders, {len(paid)} payments, {len(receipts)} receipts")
        if sorted(paid) != list(range(ORDERS)) or sorted(receipts) != list(range(ORDERS)):
            raise SystemExit("not exactly once")


if __name__ == "__main__":
    try:
        main()
    except PlanariaError as error:
        raise SystemExit(f"planaria: {error}") from error

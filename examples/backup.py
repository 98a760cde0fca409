"""A backup of a running broker, and a restore after the disk is lost: nothing acknowledged before the backup is missing.

Run it:      python examples/backup.py
You will see orders published without a pause while a partition is killed and a backup is made; then the broker's
directory is deleted, and one restored from the backup continues: with every order that was acknowledged before the
backup began, and with the group's offsets as of then.
"""

import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from planaria import Broker, Consumer

BEFORE = 1_000
HANDLED = 400


def planaria(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "planaria", *arguments], check=True, stdout=subprocess.PIPE)


def take(consumer: Consumer, count: int) -> list[int]:
    """Handle so many orders, and commit them."""
    numbers: list[int] = []
    while len(numbers) < count:
        numbers += [message.data for message in consumer.poll(1.0, max_messages=count - len(numbers))]
    consumer.commit()
    return numbers


def publish_on(broker: Broker, is_over: threading.Event) -> None:
    """Publish further orders until the backup is made, each when the one before is acknowledged."""
    number = BEFORE
    while not is_over.is_set():
        broker.publish("ORDERS", None, number)
        number += 1


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        data, backups, other = (str(Path(directory) / name) for name in ("data", "backups", "other"))
        with Broker(data) as broker:
            broker.create_topic("ORDERS", 1)
            with broker.producer() as producer:
                for number in range(BEFORE):
                    producer.publish("ORDERS", number)
            with broker.consumer("billing", "ORDERS", auto_offset_reset="earliest") as consumer:
                first = take(consumer, HANDLED)
            is_over = threading.Event()
            publisher = threading.Thread(target=publish_on, args=(broker, is_over))
            publisher.start()
            broker.kill("partition/ORDERS/0")
            print("killed partition/ORDERS/0")
            planaria("backup", backups, "--connect", broker.endpoint)
            is_over.set()
            publisher.join()
        shutil.rmtree(data)
        print("the broker's directory is lost")
        planaria("restore", backups, other)
        with Broker(other) as broker:
            kept = [message.data for message in broker.read("ORDERS")]
            print(f"all {BEFORE} orders are there, in order: {kept[:BEFORE] == list(range(BEFORE))}")
            with broker.consumer("billing", "ORDERS", auto_offset_reset="earliest") as consumer:
                rest = take(consumer, len(kept) - HANDLED)
            print(f"the group continues where it was: {first + rest == kept}")


if __name__ == "__main__":
    main()

"""Copy a topic to a second broker, lose the first one, and go on at the second.

Run it:      python examples/mirror.py
You will see a mirror whose process is killed while a producer publishes, the first broker ended, and the second one
promoted. The producer has the endpoints of both, and goes on by itself; no acknowledged message is missing.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from planaria import Broker, Client, Producer

MESSAGES = 1_000


def planaria(*arguments: str) -> None:
    """Run a command, as in a terminal."""
    subprocess.run([sys.executable, "-m", "planaria", *arguments], check=True, capture_output=True)


def end_of(broker: Broker) -> int | None:
    found = broker.describe_topic("ORDERS").partitions if broker.list_topics() else []
    return found[0].high_watermark if found else None


def publish(producer: Producer, first: int) -> None:
    for number in range(first, first + MESSAGES):
        producer.publish("ORDERS", {"n": number})


def main() -> None:
    with tempfile.TemporaryDirectory() as directory, Broker(Path(directory) / "rome") as rome:
        with Broker(Path(directory) / "paris") as paris:
            paris.create_topic("ORDERS", 1)
            planaria(
                "mirror", "create", "paris", "ORDERS", "--from", paris.endpoint, "--connect", rome.endpoint
            )
            client = Client([paris.endpoint, rome.endpoint])
            producer = client.producer(delivery_timeout_ms=60_000)
            publish(producer, 0)
            rome.kill("mirror/paris")
            print("killed the mirror's process")
            publish(producer, MESSAGES)
            producer.flush()
            while end_of(rome) != 2 * MESSAGES:
                time.sleep(0.05)
            print(f"the copy has all {2 * MESSAGES} messages")
        print("the first broker is gone")
        publish(producer, 2 * MESSAGES)
        planaria("mirror", "promote", "paris", "--connect", rome.endpoint)
        producer.flush()
        client.close()
        found = [message.data["n"] for message in rome.client.read("ORDERS")]
        print(f"{len(found)} messages, in order: {found == list(range(3 * MESSAGES))}")


if __name__ == "__main__":
    main()

"""A handler that the broker keeps and runs by itself, over SIGKILL of a worker and of the controller that starts it.

Run it:      python examples/deployment.py
You will see a broker with a deployment of two workers that count words, while one of them and the controller are killed
with SIGKILL, and then the broker stopped and started again. It is deployed once. All texts are counted, each once.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from planaria import Broker, Context

TEXTS = 200


def count(text: str, context: Context) -> None:
    """Runs in the processes of the deployment."""
    context.publish("COUNTS", {"text": text, "words": len(text.split())}, key=context.message.key)


def deploy(broker: Broker) -> None:
    here = Path(__file__).resolve()
    command = ["deploy", "counting", "TEXTS", "--handler", f"{here.stem}:count", "--workers", "2"]
    options = ["--set", "delivery=exactly-once", "--app-dir", str(here.parent), "--connect", broker.endpoint]
    subprocess.run([sys.executable, "-m", "planaria", *command, *options], check=True, stderr=subprocess.PIPE)


def publish(broker: Broker, numbers: range) -> None:
    with broker.producer() as producer:
        for number in numbers:
            producer.publish("TEXTS", f"text {number}", key=f"k{number % 9}")


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        with Broker(directory) as broker:
            for topic in ("TEXTS", "COUNTS"):
                broker.create_topic(topic, 2)
            deploy(broker)
            publish(broker, range(TEXTS // 2))
            while (worker := pid_of_worker(broker)) is None:
                time.sleep(0.05)
            os.kill(worker, signal.SIGKILL)
            broker.kill("controller")
            print("killed a worker and the controller")
        with Broker(directory) as broker:
            print("started the broker again")
            publish(broker, range(TEXTS // 2, TEXTS))
            counted: list[str] = []
            with broker.consumer(None, ["COUNTS"], auto_offset_reset="earliest") as counts:
                while len(counted) < TEXTS:
                    counted += [message.data["text"] for message in counts.poll(1)]
                counted += [message.data["text"] for message in counts.poll(0.3)]  # any that is counted twice
            print(f"{len(counted)} counts of {len(set(counted))} texts")


def pid_of_worker(broker: Broker) -> int | None:
    return next((each.pid for each in broker.status().actors if each.address == "deployed/counting/1"), None)


if __name__ == "__main__":
    main()

"""An application whose handlers run outside the broker, in the processes of `planaria worker`.

Run it:      python examples/worker.py
You will see 300 orders charged by two processes of a worker while one of them, and then the whole worker, is killed with
SIGKILL: every order is charged once, and an order without an amount is a dead letter with the reason.

In production the two halves are two machines: the module with `app` on the worker's, started by
`planaria worker worker:app --connect tcp://broker:5570 --processes 2`.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import planaria

app = planaria.App("shop")
ORDERS = 300


@dataclass
class Order:
    customer: str
    amount: int


@app.subscribe("ORDERS", group="billing", delivery="exactly-once", retries=2, dead_letter="ORDERS.dlq")
def charge(order: Order, context: planaria.Context) -> None:
    time.sleep(0.005)
    context.publish("PAYMENTS", {"paid": order.amount, "pid": os.getpid()}, key=order.customer)


def start_worker(endpoint: str, directory: Path) -> "subprocess.Popen[bytes]":
    here = Path(__file__).resolve()
    command = ["worker", f"{here.stem}:app", "--connect", endpoint, "--processes", "2"]
    folders = ["--app-dir", str(here.parent), "--data", str(directory / "worker")]
    with (directory / "worker.log").open("ab") as log:
        return subprocess.Popen([sys.executable, "-m", "planaria", *command, *folders], stderr=log)


def pid_of_a_process(directory: Path) -> int:
    """Return the process id of the worker's first process, from its log."""
    ready = re.compile(r'"child ready" child=subscriber/billing/1 .*pid=(\d+)')
    while (found := ready.search((directory / "worker.log").read_text())) is None:
        time.sleep(0.05)
    return int(found[1])


def main() -> None:
    with tempfile.TemporaryDirectory() as name, planaria.Broker(f"{name}/broker") as broker:
        directory = Path(name)
        for topic in ("ORDERS", "PAYMENTS", "ORDERS.dlq"):
            broker.create_topic(topic, 2)
        worker = start_worker(broker.endpoint, directory)
        with broker.producer() as producer:
            for number in range(ORDERS):
                producer.publish(
                    "ORDERS", {"customer": f"c{number % 9}", "amount": number}, key=f"c{number % 9}"
                )
            producer.publish("ORDERS", {"customer": "c1"}, key="c1")
        paid: list[int] = []
        with broker.consumer(None, ["PAYMENTS"], auto_offset_reset="earliest") as payments:
            while len(paid) < ORDERS:
                assert worker.poll() is None, "the worker has ended; its log says why"
                before = len(paid)
                paid += [message.data["paid"] for message in payments.poll(1)]
                if before == 0 and paid:
                    os.kill(pid_of_a_process(directory), signal.SIGKILL)
                    print("killed a process of the worker")
                if before < ORDERS // 2 <= len(paid) < ORDERS:
                    worker.kill()
                    worker.wait()
                    print("killed the worker, and started it again")
                    worker = start_worker(broker.endpoint, directory)
        with broker.consumer(None, ["ORDERS.dlq"], auto_offset_reset="earliest") as letters:
            letter = next(iter(letters))
        print(f"dead letter {letter.data}: {letter.headers['dead-letter-reason']}")
        worker.send_signal(signal.SIGTERM)
        worker.wait()
        print(f"{len(paid)} payments for {len(set(paid))} orders")


if __name__ == "__main__":
    main()

"""One order is stuck: an operator pauses the group, finds the order and its way, and lets the group continue.

Run it:      python examples/stuck_order.py
You will see a group paused by an operator, which stays paused although its coordinator and its handler are killed; an
order found by its key among a hundred; its trace before and after the group continues, to the payment that came of it.
"""

import json
import subprocess
import sys
import tempfile
import time
from typing import Any

from planaria import Broker, Context, Message

ORDERS = 100


def charge(message: Message, context: Context) -> None:
    """Runs in a subscriber's process."""
    context.publish("PAYMENTS", {"paid": message.data}, key=message.key)


def planaria(broker: Broker, *arguments: str) -> Any:
    """Run a command as an operator does, and return the JSON that it prints."""
    command = [sys.executable, "-m", "planaria", *arguments, "--connect", broker.endpoint]
    done = subprocess.run(command, check=True, capture_output=True)
    return json.loads(done.stdout)


def trace(broker: Broker) -> list[tuple[str, list[str]]]:
    """Return the places of order 17, and how far the groups are with them."""
    found = planaria(broker, "trace", "order-17", "--json")["messages"]
    return [(each["topic"], [group["state"] for group in each["groups"]]) for each in found]


def main() -> None:
    with tempfile.TemporaryDirectory() as directory, Broker(directory) as broker:
        broker.create_topic("ORDERS", 1)
        broker.create_topic("PAYMENTS", 1)
        broker.subscribe("billing", "ORDERS", handler=charge, correlation_header="correlation-id")
        broker.publish("ORDERS", "customer-0", 0)
        while broker.group_offsets("billing").get(("ORDERS", 0)) != 1:
            time.sleep(0.05)
        broker.pause_group("billing", reason="the bank is down")
        with broker.producer() as producer:
            for number in range(1, ORDERS):
                headers = {"correlation-id": f"order-{number}"}
                producer.publish("ORDERS", number, key=f"customer-{number}", headers=headers)
        for address in ("coordinator/billing", "subscriber/billing/1"):
            broker.kill(address)
            print(f"killed {address}")
        paused = broker.describe_group("billing").paused
        assert paused is not None
        print(f"the group is paused: {paused.reason}; {sum(lag(broker))} orders wait")

        found = planaria(broker, "find", "ORDERS", "--key", "customer-17", "--format", "json")
        print(f"found order {found['value']} at offset {found['offset']}")
        print(f"its trace: {trace(broker)}")
        broker.resume_group("billing")
        while sum(lag(broker)):
            time.sleep(0.05)
        print(f"its trace: {trace(broker)}")
        payments = [message.data["paid"] for message in broker.read("PAYMENTS", until="now")]
        print(f"{len(payments)} payments of {len(set(payments))} orders")


def lag(broker: Broker) -> list[int]:
    return [each for each in broker.group_lag("billing").values() if each is not None]


if __name__ == "__main__":
    main()

"""A handler that the broker runs for you, in supervised processes of their own.

Run it:      python examples/hosted_subscriber.py
You will see which process handled which payment, a payment that fails twice and is retried, and one that can never
succeed go to the dead-letter topic with its traceback in the headers.
"""

import os
import tempfile
import time

from planaria import Broker, Message

AMOUNTS = [20, 35, -1, 50, 75]

attempts: dict[int, int] = {}


def charge(message: Message) -> None:
    """Runs in a subscriber's process; any exception counts as a failure of this record alone."""
    payment = message.data
    attempts[payment["id"]] = attempts.get(payment["id"], 0) + 1
    if payment["amount"] < 0:
        raise ValueError(f"cannot charge {payment['amount']}")
    if payment["id"] == 3 and attempts[3] < 3:
        raise ConnectionError("the bank does not answer")
    # The newline is part of the text: it would be a write of its own, and the lines of two processes would mix.
    line = f"process {os.getpid()} charged payment {payment['id']} (attempt {attempts[payment['id']]})\n"
    print(line, end="", flush=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as directory, Broker(directory) as broker:
        broker.create_topic("PAYMENTS", 2)
        broker.create_topic("PAYMENTS.dlq", 1)
        broker.subscribe(
            "charging",
            "PAYMENTS",
            handler=charge,
            workers=2,
            retries=3,
            backoff_ms=50,
            dead_letter="PAYMENTS.dlq",
        )
        for number, amount in enumerate(AMOUNTS):
            broker.publish("PAYMENTS", f"customer-{number}", {"id": number, "amount": amount})
        with broker.consumer(None, ["PAYMENTS.dlq"], auto_offset_reset="earliest") as dead_letters:
            letter = next(iter(dead_letters))
        # An offset is committed when its payment is charged or dead-lettered.
        while sum(broker.group_offsets("charging").values()) < len(AMOUNTS):
            time.sleep(0.05)
        print(f"dead letter: {letter.data}")
        for name, text in sorted((letter.headers or {}).items()):
            print(f"    {name}: {text.splitlines()[-1] if text else ''}")


if __name__ == "__main__":
    main()

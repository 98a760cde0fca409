"""A record fails in every attempt and becomes a dead letter; the handler is fixed; the redriven letter is handled once.

Run it:      python examples/dead_letters.py
You will see the reasons of the letters, that the fixed handler accepts them, that two redrives send each one only once,
and every payment charged exactly once. The same from a shell: planaria dlq list, redrive --dry-run --handler, redrive.
"""

import os
import tempfile
import time
from pathlib import Path

from planaria import Broker, LetterFilter, Message, Redrive, Reject, histogram, rehearse

AMOUNTS = ["20 EUR", "35 EUR", "thirty", "50 EUR", "2x"]

MENDED = """
def charge(message):
    digits = "".join(letter for letter in message.data["amount"] if letter.isdigit())
    return int(digits or 30)
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as directory, Broker(Path(directory) / "data") as broker:
        charged = Path(directory) / "charged"
        mended = Path(directory) / "mended_shop.py"

        def charge(message: Message) -> None:
            """Runs in a subscriber's process, pickled from here; a file shows whether it is fixed."""
            amount = message.data["amount"]
            if not mended.exists():
                if " " not in amount:
                    raise Reject(f"no currency in {amount!r}")  # a retry cannot succeed
                int(amount.split()[0])
            with charged.open("a") as file:
                file.write(f"{message.data['id']}\n")

        broker.create_topic("PAYMENTS", 2)
        broker.create_topic("PAYMENTS.dlq", 1)
        broker.subscribe("charging", "PAYMENTS", handler=charge, dead_letter="PAYMENTS.dlq")
        for number, amount in enumerate(AMOUNTS):
            broker.publish("PAYMENTS", f"customer-{number}", {"id": number, "amount": amount})
        wait_until(broker, 5)

        job = Redrive(broker.client, "PAYMENTS.dlq", actor="the example")
        letters = job.pending(LetterFilter())
        for reason, count in histogram(letters):
            print(f"{count} dead: {reason}")

        mended.write_text(MENDED)
        messages = [letter.message for letter in letters]
        for trial in rehearse("mended_shop:charge", messages, timeout_s=10, paths=[os.fspath(mended.parent)]):
            print(f"letter {trial.message.offset} {'passes' if trial.passed else trial.reason}")

        print(f"sent back: {job.run(LetterFilter()).moved}")
        print(f"and again: {job.run(LetterFilter()).moved}")
        wait_until(broker, 7)
        print(f"charged: {sorted(map(int, charged.read_text().split()))}")


def wait_until(broker: Broker, done: int) -> None:
    """An offset is committed when its payment is charged or dead-lettered."""
    while sum(broker.group_offsets("charging").values()) < done:
        time.sleep(0.05)


if __name__ == "__main__":
    main()

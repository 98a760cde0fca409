"""A record that nobody can handle becomes a dead letter; the handler is mended; the letter goes back and is handled once.

Run it:      python examples/dead_letters.py
You will see why the letters are there, that today's handler would take them, that sending them back twice does it once,
and every payment charged exactly once. The same from a shell: planaria dlq list, redrive --dry-run --handler, redrive.
"""

import os
import tempfile
import time
from pathlib import Path

from planaria import Broker, Message, Reject
from planaria.supervisor.rehearsal import rehearse
from planaria.transport.client.dead_letters import LetterFilter, histogram
from planaria.transport.client.redrive import Redrive

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
            """Runs in a subscriber's process, as it was sent there; whether it is mended shows in a file."""
            amount = message.data["amount"]
            if not mended.exists():
                if " " not in amount:
                    raise Reject(f"no currency in {amount!r}")  # no use in trying again
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
    """An offset is committed when its payment is done with, charged or buried."""
    while sum(broker.client.group_offsets("charging").values()) < done:
        time.sleep(0.05)


if __name__ == "__main__":
    main()

"""A materialised view: a table of balances follows its topic, and a program reads its own writes in it.

Run it:      python examples/balances_table.py
You will see transfers between accounts while the partitions' processes are killed. Each is published as the two new
balances, and the next one waits until the table has them. At the end the table, one that is opened then, and the sum of
all money agree.
"""

import random
import tempfile

from planaria import Broker

ACCOUNTS = ("anna", "bert", "clea", "dora")
TRANSFERS = 60


def main() -> None:
    with tempfile.TemporaryDirectory() as directory, Broker(directory) as broker:
        broker.create_topic("BALANCES", 2, cleanup="compact")
        for account in ACCOUNTS:
            broker.publish("BALANCES", account, 100)
        with broker.table("BALANCES") as balances:
            for number in range(TRANSFERS):
                if number in (20, 40):
                    broker.kill(f"partition/BALANCES/{number // 20 - 1}")
                giver, taker = random.sample(ACCOUNTS, 2)
                amount = random.randint(0, balances[giver])
                with broker.producer() as producer:
                    receipts = [
                        producer.publish("BALANCES", balances[giver] - amount, key=giver),
                        producer.publish("BALANCES", balances[taker] + amount, key=taker),
                    ]
                for receipt in receipts:
                    balances.wait_for(receipt.result())
            with broker.table("BALANCES") as opened_later:
                print(
                    f"{TRANSFERS} transfers, the same in both tables: {dict(balances) == dict(opened_later)}"
                )
            print(f"sum of {len(balances)} balances: {sum(balances.values())}")


if __name__ == "__main__":
    main()

"""Event sourcing: a balance is the sum of an account's events, and an event is stored only if its writer knew them all.

Run it:      python examples/event_sourcing.py
You will see four writers withdraw from the same accounts while the partitions' processes are killed. Each reads the
account's events, decides, and expects that none has been added since; otherwise it reads again. No account is overdrawn
and no withdrawal is stored twice.
"""

import tempfile
import threading
import time
from collections import defaultdict

from planaria import Broker, Client, Conflict

ACCOUNTS = ("anna", "bert", "clea")
DEPOSIT = 100
AMOUNT = 7
WRITERS = 4


class Overdrawn(Exception):
    """The account has too little."""


class Accounts:
    """The events of all accounts, as far as they were read."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._next: dict[int, int] = {}
        self.events: dict[str, list[dict]] = defaultdict(list)
        self.versions: dict[str, int] = defaultdict(lambda: -1)
        self.conflicts = 0

    def refresh(self) -> None:
        """Read the events that were added since the last call."""
        for message in self._client.read("ACCOUNTS", since=self._next):
            account = message.key.decode()
            self.events[account].append(message.data)
            self.versions[account] = message.offset
            self._next[message.partition] = message.offset + 1

    def balance(self, account: str) -> int:
        return sum(event["amount"] for event in self.events[account])

    def add(self, account: str, amount: int) -> None:
        """Add an event that leaves no negative balance. Raises Overdrawn."""
        while True:
            if self.balance(account) + amount < 0:
                raise Overdrawn(account)
            try:
                event = {"amount": amount}
                version = self.versions[account]
                self._client.publish("ACCOUNTS", event, key=account, expected_key_version=version)
                return
            except Conflict:
                self.conflicts += 1
                self.refresh()


def withdraw_all(endpoint: str, totals: list[tuple[int, int]]) -> None:
    """Withdraw until every account is empty."""
    with Client(endpoint) as client:
        accounts = Accounts(client)
        accounts.refresh()
        stored = 0
        for account in ACCOUNTS:
            try:
                while True:
                    accounts.add(account, -AMOUNT)
                    stored += 1
            except Overdrawn:
                continue
        totals.append((stored, accounts.conflicts))


def main() -> None:
    with tempfile.TemporaryDirectory() as directory, Broker(directory) as broker:
        broker.create_topic("ACCOUNTS", 2, key_versions=True, retention_ms=-1)
        opening = Accounts(broker.client)
        for account in ACCOUNTS:
            opening.add(account, DEPOSIT)
        totals: list[tuple[int, int]] = []
        writers = [
            threading.Thread(target=withdraw_all, args=(broker.endpoint, totals)) for _ in range(WRITERS)
        ]
        for writer in writers:
            writer.start()
        while any(writer.is_alive() for writer in writers):
            for actor in broker.status().actors:
                if actor.address.startswith("partition/ACCOUNTS/") and actor.state == "ready":
                    broker.kill(actor.address)
            time.sleep(0.5)
        for writer in writers:
            writer.join()
        opening.refresh()
        events = sum(len(opening.events[account]) for account in ACCOUNTS)
        stored = sum(count for count, _ in totals) + len(ACCOUNTS)
        print(f"{stored} events acknowledged, {events} stored, {sum(count for _, count in totals)} conflicts")
        print("balances:", {account: opening.balance(account) for account in ACCOUNTS})


if __name__ == "__main__":
    main()

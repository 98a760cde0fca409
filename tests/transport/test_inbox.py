"""Messages read ahead, handled in turn: by host, then by connection, each in its own order."""

import random
from collections import Counter

from planaria.transport.inbox import Inbox

HOSTS = {b"a%d" % number: "a" for number in range(50)} | {b"b": "b"}


def filled(**messages: int) -> Inbox:
    inbox = Inbox(HOSTS)
    for connection, count in messages.items():
        for number in range(count):
            inbox.put([connection.encode(), b"%d" % number])
    return inbox


def test_a_newcomer_waits_for_one_message_of_each_other_host() -> None:
    inbox = filled(**{f"a{number}": 100 for number in range(50)})
    inbox.take()
    inbox.put([b"b", b"x"])
    assert b"b" in {inbox.take()[0] for _ in range(2)}


def test_the_connections_of_a_host_share_its_turns() -> None:
    inbox = filled(a1=100, a2=100, a3=100, b=100)
    assert Counter(inbox.take()[0] for _ in range(60)) == {b"b": 30, b"a1": 10, b"a2": 10, b"a3": 10}


def test_a_connection_that_is_gone_leaves_nothing() -> None:
    inbox = filled(a1=3, b=1)
    inbox.forget(b"a1")
    inbox.forget(b"a1")
    assert len(inbox) == 1
    assert inbox.take() == [b"b", b"0"]
    assert len(inbox) == 0
    assert not inbox._waiting
    assert not inbox._host_of


def test_it_is_full_by_number_and_by_bytes() -> None:
    inbox = Inbox({}, max_messages=2, max_bytes=1_000)
    inbox.put([b"a", b"x"])
    assert not inbox.is_full
    inbox.put([b"a", bytes(1_000)])
    assert inbox.is_full
    inbox.take()
    assert inbox.is_full, "of bytes"
    inbox.take()
    assert not inbox.is_full


def test_random_histories_keep_each_connections_order() -> None:
    for seed in range(20):
        chance = random.Random(seed)
        hosts = {b"%d" % number: str(number % 3) for number in range(9)}
        inbox = Inbox(hosts)
        sent: Counter[bytes] = Counter()
        taken: Counter[bytes] = Counter()
        for _ in range(3_000):
            if not len(inbox) or chance.random() < 0.5:
                connection = b"%d" % chance.randrange(9)
                inbox.put([connection, b"%d" % sent[connection]])
                sent[connection] += 1
            elif chance.random() < 0.05:
                connection = b"%d" % chance.randrange(9)
                inbox.forget(connection)
                taken[connection] = sent[connection]
            else:
                connection, number = inbox.take()
                assert int(number) == taken[connection], seed
                taken[connection] += 1
        while len(inbox):
            taken[inbox.take()[0]] += 1
        assert taken == sent, seed
        assert inbox._bytes == 0, seed

"""Large replies count from their creation until they have left, by connection and in total."""

from planaria.transport.untaken import Untaken

SLOW, OTHER = b"slow", b"other"


class Departing:
    """A message that leaves on the test's command."""

    def __init__(self) -> None:
        self.done = False


def send(untaken: Untaken, connection: bytes, size_bytes: int) -> Departing:
    assert untaken.take_room(connection, size_bytes)
    departure = Departing()
    untaken.on_sent(connection, size_bytes, departure)
    return departure


def test_a_connection_that_does_not_read_is_refused_and_no_other() -> None:
    untaken = Untaken(max_bytes=100, max_bytes_per_connection=30)
    first = send(untaken, SLOW, 20)
    assert not untaken.take_room(SLOW, 11)
    assert untaken.take_room(OTHER, 30)
    first.done = True
    assert untaken.take_room(SLOW, 30)
    assert untaken.bytes == 60


def test_what_has_been_gathered_counts_before_it_is_sent() -> None:
    untaken = Untaken(max_bytes=100, max_bytes_per_connection=30)
    assert untaken.take_room(SLOW, 30)
    assert not untaken.take_room(SLOW, 1)
    untaken.give_back(SLOW, 30)
    assert untaken.take_room(SLOW, 1)


def test_all_together_are_bounded() -> None:
    untaken = Untaken(max_bytes=100, max_bytes_per_connection=30)
    sent = [send(untaken, b"%d" % number, 30) for number in range(3)]
    assert not untaken.take_room(OTHER, 11)
    sent[1].done = True
    assert untaken.take_room(OTHER, 11), "what has left elsewhere is found out when room is short"


def test_one_large_reply_passes_to_whoever_has_nothing_untaken() -> None:
    untaken = Untaken(max_bytes=100, max_bytes_per_connection=30)
    send(untaken, SLOW, 50)
    assert not untaken.take_room(SLOW, 1)


def test_connections_that_are_gone_are_forgotten() -> None:
    untaken = Untaken()
    for number in range(1_000):
        send(untaken, b"%d" % number, 1).done = True
    untaken.settle_all()
    assert untaken.bytes == 0
    assert not untaken._bytes
    assert not untaken._leaving

"""Parked fetches: woken by bytes, ended by time, bounded."""

from planaria.actors.partition.parked import ParkedFetches
from planaria.transport.machine import Received, Sender
from planaria.transport.protocol.data import Fetch


def asked(number: int) -> Received:
    return Received(Sender((b"peer",), number), Fetch(topic="T", partition=0, offset=0))


def ids(taken: list[Received]) -> list[object]:
    return [each.sender.id for each in taken]


def test_wake_and_expire_take_each_once() -> None:
    parked = ParkedFetches()
    for number, (deadline, wake_at_bytes) in enumerate([(30, 10), (10, 20), (20, 10)]):
        assert parked.park(asked(number), deadline, wake_at_bytes) is None
    assert parked.next_deadline() == 10
    assert ids(parked.wake(9)) == []
    assert ids(parked.wake(10)) == [0, 2]
    assert ids(parked.expire(9)) == []
    assert ids(parked.expire(40)) == [1]
    assert parked.wake(100) == []
    assert (len(parked), parked.next_deadline()) == (0, None)


def test_full_evicts_the_one_that_waited_longest() -> None:
    parked = ParkedFetches(limit=2)
    taken = [parked.park(asked(number), 10, 10) for number in range(4)]
    assert [each and each.sender.id for each in taken] == [None, None, 0, 1]
    assert ids(parked.drain()) == [2, 3]
    assert parked.next_deadline() is None


def test_what_is_gone_takes_no_room() -> None:
    parked = ParkedFetches()
    parked.park(asked(0), 1_000_000, 1_000_000)
    for number in range(1, 5_000):
        parked.park(asked(number), 500_000 + number, number)
        parked.wake(number)
    assert len(parked) == 1
    assert parked.next_deadline() == 1_000_000
    assert len(parked._by_deadline) < 100
    assert len(parked._by_bytes) < 100

"""Parked fetches: woken by bytes, ended by time, bounded."""

from planaria.actors.partition.parked import ParkedFetches
from planaria.transport.machine import Received, Sender
from planaria.transport.protocol.data import Fetch
from planaria.transport.protocol.session import Cancel


def asked(number: int, *route: bytes) -> Received:
    return Received(Sender(route or (b"peer",), number), Fetch(topic="T", partition=0, offset=0))


def cancel(number: int | None, *route: bytes) -> Received:
    return Received(Sender(route or (b"peer",), None), Cancel(request_id=number))


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


def test_who_has_most_waiting_makes_room() -> None:
    parked = ParkedFetches(limit=10)
    for number in range(3):
        parked.park(asked(number, b"modest"), 10, 10)
    evicted = [parked.park(asked(100 + number, b"greedy"), 10, 10) for number in range(50)]
    assert {each.sender.route for each in evicted if each is not None} == {(b"greedy",)}
    for number in range(2):
        newcomer = parked.park(asked(200 + number, b"newcomer"), 10, 10)
        assert newcomer is not None
        assert newcomer.sender.route == (b"greedy",)
    assert sorted(ids(parked.drain())) == [0, 1, 2, 145, 146, 147, 148, 149, 200, 201]


def test_cancels_take_out_what_they_name_and_no_more() -> None:
    parked = ParkedFetches()
    for number in range(4):
        parked.park(asked(number, b"client"), 10, 10)
        parked.park(asked(number, b"gateway", b"%d" % number, b""), 10, 10)
    parked.cancel(cancel(2, b"client"))
    parked.cancel(cancel(None, b"gateway", b"1", b""))
    parked.cancel(cancel(None, b"gateway", b"9", b""))
    parked.cancel(cancel(7, b"client"))
    parked.cancel(cancel(None, b"nobody"))
    left = [(each.sender.route[0], each.sender.id) for each in parked.drain()]
    assert sorted(left, key=str) == sorted(
        [(b"client", 0), (b"client", 1), (b"client", 3), (b"gateway", 0), (b"gateway", 2), (b"gateway", 3)],
        key=str,
    )


def test_a_connection_that_is_gone_leaves_nothing() -> None:
    parked = ParkedFetches()
    for number in range(5):
        parked.park(asked(number, b"gone", b"%d" % number, b""), 10, 10)
        parked.park(asked(number, b"there"), 10, 10)
    parked.forget_connection(b"gone")
    parked.forget_connection(b"gone")
    assert len(parked) == 5
    parked.forget_connection(b"there")
    assert (len(parked), parked._of_connection, dict(parked._counts)) == (0, {}, {})
    assert parked.next_deadline() is None


def test_ten_thousand_cancels_cost_no_more_than_themselves() -> None:
    parked = ParkedFetches()
    for number in range(10_000):
        parked.park(asked(number, b"gateway", b"%d" % number, b""), 10, 10)
    looked_at = 0

    class Counted(dict[int, Received]):
        def __getitem__(self, serial: int) -> Received:
            nonlocal looked_at
            looked_at += 1
            return super().__getitem__(serial)

    parked._waiting = Counted(parked._waiting)
    for number in range(10_000):
        parked.cancel(cancel(None, b"gateway", b"%d" % number, b""))
    assert len(parked) == 0
    assert looked_at <= 20_000


def test_fetches_that_were_drained_are_not_taken_again() -> None:
    parked = ParkedFetches()
    for number in range(3):
        parked.park(asked(number), deadline=10, wake_at_bytes=10)
    assert ids(parked.drain()) == [0, 1, 2]
    assert (len(parked), parked.next_deadline()) == (0, None)
    assert (parked.wake(1_000), parked.expire(1_000), parked.drain()) == ([], [], [])


def test_fetches_that_time_out_leave_no_entry_behind() -> None:
    """At an idle partition, where nothing ever wakes one by bytes; one fetch waits for longer than all others."""
    parked = ParkedFetches()
    parked.park(asked(-1), deadline=1_000_000, wake_at_bytes=1_000)
    for now in range(500):
        parked.park(asked(now), deadline=now, wake_at_bytes=10)
        assert ids(parked.expire(now)) == [now]
    assert (len(parked._by_bytes), len(parked._by_deadline)) == (1, 1)

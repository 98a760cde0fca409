"""No client takes the capacity of others: shares of the gateway's capacity, by connection and by host."""

import random
from collections import Counter

import pytest

from gateway_driver import GatewayDriver
from planaria.actors.gateway.shares import Shares
from planaria.transport.machine import Connected, Disconnected
from planaria.transport.protocol.data import Fetch, Produce
from planaria.transport.protocol.errors import ProtocolError
from planaria.transport.protocol.groups import GroupHeartbeat
from planaria.transport.protocol.session import Metadata

POLLS = [
    Fetch(topic="ORDERS", partition=0, offset=0, max_wait_ms=60_000),
    Metadata(),
    GroupHeartbeat(group="g", member_id="m", max_wait_ms=60_000),
]
WORK = Produce(topic="ORDERS", partition=0)


def started(**limits: int) -> GatewayDriver:
    driver = GatewayDriver(limits=limits).start(ORDERS=1)
    driver.up("coordinator/g")
    return driver


def refusal_of(driver: GatewayDriver, number: int) -> str | None:
    return getattr(driver.replies.get(number), "code", None)


class Room:
    """The gateway's capacity and its users."""

    def __init__(self, capacity: int, per_connection: int, hosts: dict[bytes, str] | None = None) -> None:
        self.shares = Shares("places", capacity, per_connection, hosts or {})
        self.owners: dict[int, tuple[bytes, int]] = {}
        self._last = 0

    def enter(self, connection: bytes, size: int = 1) -> bool:
        try:
            evicted = self.shares.room_for(connection, size)
        except ProtocolError:
            return False
        for number in evicted:
            self.leave(number)
        self._last += 1
        self.shares.take(connection, self._last, size)
        self.owners[self._last] = (connection, size)
        return True

    def leave(self, number: int) -> None:
        connection, _ = self.owners.pop(number)
        self.shares.give_back(connection, number)

    def held(self) -> Counter[bytes]:
        return Counter(connection for connection, _ in self.owners.values())


@pytest.mark.parametrize("greedy", [1, 3, 11, 50, 400])
def test_a_newcomer_gets_what_it_needs_up_to_an_even_share(greedy: int) -> None:
    room = Room(1_000, 640)
    for connection in range(greedy):
        while len(room.owners) < 1_000 and room.enter(b"%d" % connection):
            pass
    for _ in range(1_000 // (greedy + 1)):
        assert room.enter(b"newcomer")
    assert room.held()[b"newcomer"] == 1_000 // (greedy + 1)
    assert len(room.shares) <= 1_000


def test_those_who_want_all_end_with_the_same() -> None:
    room = Room(100, 100)
    for _ in range(200):
        for connection in (b"a", b"b", b"c", b"d"):
            room.enter(connection)
    assert set(room.held().values()) == {25}


def test_equals_do_not_take_turns_in_evicting_each_other() -> None:
    room = Room(99, 99)
    for connection, count in ((b"a", 50), (b"b", 49)):
        for _ in range(count):
            room.enter(connection)
    assert not room.enter(b"b")
    assert room.enter(b"c"), "who has nothing gets something"


def test_a_host_cannot_take_it_all_by_many_connections() -> None:
    hosts = {b"%d" % number: "one" for number in range(1_000)} | {b"x": "another"}
    room = Room(100, 64, hosts)
    for connection in hosts:
        room.enter(connection)
    for _ in range(64):
        room.enter(b"x")
    assert room.held()[b"x"] == 50


def test_of_one_hosts_connections_the_largest_makes_room() -> None:
    room = Room(100, 90)
    for _ in range(90):
        room.enter(b"large")
    for number in range(40):
        assert room.enter(b"%d" % number)
    assert room.held()[b"large"] == 60


def test_sizes_count_and_not_numbers() -> None:
    room = Room(1_000, 900)
    for _ in range(9):
        room.enter(b"large", 100)
    for _ in range(99):
        room.enter(b"small", 1)
    assert room.enter(b"small", 150)
    assert room.held() == {b"large": 7, b"small": 100}
    assert not room.enter(b"small", 700)
    assert room.held() == {b"large": 7, b"small": 100}, "nobody went for one that is refused"


def test_no_room_for_a_newcomer_that_would_hold_most() -> None:
    room = Room(64, 64)
    for number in range(63):
        room.enter(b"%d" % number)
    with pytest.raises(ProtocolError, match="OVERLOADED"):
        room.shares.room_for(b"newcomer", 2)
    room.enter(b"1")
    with pytest.raises(ProtocolError, match="THROTTLED"):
        room.shares.room_for(b"1")


def test_random_histories() -> None:
    for seed in range(20):
        chance = random.Random(seed)
        hosts: dict[bytes, str] = {}
        room = Room(100, 60, hosts)
        for _ in range(2_000):
            connection = b"%d" % chance.randrange(9)
            hosts[connection] = str(chance.randrange(3))
            if room.owners and chance.random() < 0.4:
                room.leave(chance.choice(list(room.owners)))
            else:
                room.enter(connection, chance.randrange(1, 10))
            assert len(room.shares) == sum(size for _, size in room.owners.values()) <= 100, seed
        for number in list(room.owners):
            room.leave(number)
        assert not room.shares._of_connection, seed
        assert not room.shares._of_host, seed


@pytest.mark.parametrize("poll", POLLS)
def test_waiting_polls_take_no_room_from_work(poll: Fetch) -> None:
    driver = started(max_work=100, max_polls=100)
    driver.give(Connected(b"newcomer", "elsewhere"))
    if isinstance(poll, Metadata):
        poll = Metadata(topics=["ORDERS"], after_version=driver.reply(Metadata()).version, max_wait_ms=9_000)
    parked = [driver.ask(poll, client=b"%d" % (number % 11)) for number in range(200)]
    assert {refusal_of(driver, number) for number in parked} == {None, "THROTTLED"}
    assert all(driver.replies[number].retriable for number in parked if number in driver.replies)
    assert refusal_of(driver, driver.ask(WORK)) is None
    assert refusal_of(driver, driver.ask(poll, client=b"newcomer")) is None


def test_the_evicted_are_told_and_the_actors_they_wait_at_as_well() -> None:
    driver = started(max_polls=20, max_per_connection=20)
    parked = [driver.ask(POLLS[0], client=b"greedy") for _ in range(20)]
    assert refusal_of(driver, driver.ask(POLLS[0], client=b"newcomer")) is None
    assert refusal_of(driver, parked[-1]) == "THROTTLED"
    assert driver.cancelled == [parked[-1]]
    assert not set(parked[:-1]) & set(driver.replies)


def test_work_that_was_passed_on_may_have_taken_effect() -> None:
    driver = started(max_work=100, max_per_connection=100)
    sent = [driver.ask(WORK, client=b"greedy") for _ in range(100)]
    for number in range(50):
        driver.ask(WORK, client=b"%d" % number)
    told = [refusal_of(driver, number) for number in sent]
    assert (told.count("THROTTLED"), told.count("TIMED_OUT")) == (36, 14)
    assert told[:50] == [None] * 50


def test_a_disconnect_frees_everything_at_once() -> None:
    driver = started(max_polls=20, max_per_connection=20)
    for number in range(40):
        driver.ask(POLLS[0], client=b"%d" % (number % 4))
    for number in range(4):
        driver.give(Disconnected(b"%d" % number))
    after = [driver.ask(POLLS[0], client=b"newcomer") for _ in range(20)]
    assert {refusal_of(driver, number) for number in after} == {None}


def test_one_connection_cannot_take_it_all() -> None:
    driver = started(max_work=5, max_per_connection=3)
    own = [driver.ask(WORK) for _ in range(4)]
    assert [refusal_of(driver, number) for number in own] == [None, None, None, "THROTTLED"]
    assert driver.replies[own[-1]].retriable
    assert refusal_of(driver, driver.ask(WORK, client=b"other")) is None
    driver.answer(b"{}")
    assert refusal_of(driver, driver.ask(WORK)) is None


def test_requests_in_flight_are_bounded_by_bytes() -> None:
    driver = started(max_bytes=5_000, max_bytes_per_connection=3_000)
    assert refusal_of(driver, driver.ask(WORK, bytes(3_000))) == "MESSAGE_TOO_LARGE"
    driver.ask(WORK, bytes(2_000))
    refusal = driver.replies[driver.ask(WORK, bytes(2_000))]
    assert (refusal.code, refusal.retriable) == ("THROTTLED", True)
    driver.ask(WORK, bytes(2_000), client=b"other")
    assert refusal_of(driver, driver.ask(WORK, bytes(2_500), client=b"third")) == "OVERLOADED"
    driver.answer(b"{}")
    driver.ask(WORK, bytes(2_000))
    assert len(driver.calls) == 2


@pytest.mark.parametrize(
    "waiting", [Produce(topic="ORDERS", partition=2), Fetch(topic="NO", partition=0, offset=0)]
)
def test_what_waits_elsewhere_can_be_made_to_go(waiting: Produce) -> None:
    driver = started(max_work=30, max_per_connection=25)
    driver.set_topics(ORDERS=3)
    driver.controller_answers = False
    for number in range(200):
        driver.ask(waiting, client=b"%d" % (number % 3))
    assert refusal_of(driver, driver.ask(waiting, client=b"newcomer")) is None
    driver.stop()
    driver.advance(10_000)
    assert driver.stopped
    assert len(driver.replies) == 201

"""The rate of copies to replicas that are not in sync, shared by all leaders of a node."""

from planaria.actors.link.catch_up import CatchUp
from planaria.transport.machine import Effect, Reply, Sender, SetTimer
from planaria.transport.protocol.links import AdmitCatchUp
from planaria.transport.token_bucket import BURST_S

RATE = 1_000_000
SIZE = 100_000


def admitted(effects: list[Effect]) -> list[int]:
    return [int(effect.to.route[0]) for effect in effects if isinstance(effect, Reply)]


class Link:
    def __init__(self, rate: int = RATE) -> None:
        self.catch_up = CatchUp(rate)
        self.now = 0
        self.due: int | None = None
        self.order: list[int] = []

    def take(self, effects: list[Effect]) -> None:
        self.order += admitted(effects)
        self.due = next((effect.at for effect in effects if isinstance(effect, SetTimer)), self.due)

    def ask(self, leader: int, size_bytes: int = SIZE) -> None:
        request = AdmitCatchUp(size_bytes=size_bytes)
        self.take(self.catch_up.on_request(Sender((b"%d" % leader,), 1), request, self.now))

    def run(self) -> None:
        while self.due is not None:
            self.now, self.due = self.due, None
            self.take(self.catch_up.on_timer(self.now))


def test_copies_of_all_leaders_are_sent_in_turn_at_the_rate() -> None:
    link = Link()
    for leader in range(50):
        link.ask(leader)
    link.run()
    assert link.order == list(range(50))
    # The burst is free, and the last one is not waited for.
    assert 49 * SIZE / RATE - BURST_S - 0.01 <= link.now / 1_000 <= 50 * SIZE / RATE


def test_without_a_rate_nothing_waits() -> None:
    link = Link(0)
    for leader in range(5):
        link.ask(leader, 10 * RATE)
    assert (link.order, link.due) == (list(range(5)), None)


def test_a_leader_that_has_ended_is_not_waited_for() -> None:
    link = Link()
    for leader in range(10):
        link.ask(leader)
    present = len(link.order)
    link.take(link.catch_up.on_closed(b"%d" % present, link.now))
    link.run()
    assert link.order == [leader for leader in range(10) if leader != present]

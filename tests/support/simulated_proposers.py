"""Proposers that share a simulated etcd under faults, and the checks of the port's promises against its history.

Every proposal writes a value of its own, so the history of etcd shows whether, when and how often it took effect.
"""

import random
from collections import Counter

from planaria.actors.metadata.entries import Entries
from planaria.actors.metadata.store import (
    ABSENT,
    Applied,
    Change,
    Delete,
    Guard,
    NotApplied,
    Propose,
    Put,
    Rejected,
    Session,
    SessionLost,
    State,
    Unknown,
)
from simulated_etcd import STORM, SimulatedEtcd, SimulatedStore, SimulatedTime

PREFIX = b"/planaria/c/"
KEYS = ("topics/a", "topics/b", "groups/c", "nodes/d")
SETTLED_MS = 15_000
"""The time after which all is well again, once the faults have stopped."""


class Proposer:
    """One process after the other, under one name."""

    def __init__(self, run: "Run", name: str) -> None:
        self.name = name
        self._run = run
        self._life = 0
        self.mirror: Entries | None = None
        self.begun: dict[int, tuple[Propose, bytes]] = {}
        """Proposals of all lives that have no outcome yet, with the values that they write."""
        self._number = 0
        self._numbers_before = 0
        self.start()

    def start(self) -> None:
        self._life += 1
        self._numbers_before = self._number
        self.mirror = None
        self.session: Session | None = None
        run = self._run
        self.store = SimulatedStore(run.world, run.time.step, self.name, f"{self.name}.{self._life}")
        self.store.open()

    def die(self) -> None:
        self.store.die()
        for proposal, value in self.begun.values():
            self._run.outcomes[value] = Unknown(proposal.number)
        self.begun.clear()

    def propose(self, draw: random.Random) -> None:
        if self.mirror is None:
            return
        self._number += 1
        value = b'"%s-%d"' % (self.name.encode(), self._number)
        keys = draw.sample(KEYS, draw.randint(1, 3))
        is_in_session = draw.random() < 0.2
        changes: list[Change] = [Put(keys[0], value, is_in_session)]
        changes += [Put(key, value) if draw.random() < 0.7 else Delete(key) for key in keys[1:]]
        guards = [Guard(key, self._revision_of(key)) for key in keys if draw.random() < 0.8]
        proposal = Propose(self._number, tuple(changes), tuple(guards))
        self.begun[self._number] = (proposal, value)
        self._run.proposals[value] = proposal
        self.store.propose(proposal)

    def _revision_of(self, key: str) -> int:
        assert self.mirror is not None
        entry = self.mirror.by_key.get(key)
        return ABSENT if entry is None else entry.modified

    def settle(self) -> None:
        for event in self.store.settle():
            match event:
                case State():
                    self.mirror = Entries(event.revision, dict(event.entries))
                    self._run.check_mirror(self)
                case Session():
                    self.session = event
                case SessionLost(session_id=session_id):
                    assert session_id not in self._run.world.etcd.leases, (
                        "a session that lives was called lost"
                    )
                    self.session = None
                case Applied() | Rejected() | NotApplied() | Unknown():
                    _, value = self.begun.pop(event.number)
                    if isinstance(event, Applied):
                        assert self.mirror is not None
                        assert self.mirror.revision >= event.revision, "applied, and not shown"
                    self._run.outcomes[value] = event
                case _:
                    assert self.mirror is not None
                    self.mirror.apply(event.revision, event.changes)
                    self._run.check_mirror(self)


class Run:
    def __init__(self, seed: int, proposers: int = 3) -> None:
        self.draw = random.Random(seed)
        self.time = SimulatedTime()
        self.world = SimulatedEtcd(self.time.schedule, lambda: self.time.now, self.draw)
        self.proposals: dict[bytes, Propose] = {}
        self.outcomes: dict[bytes, object] = {}
        self.is_restored = False
        self.proposers = [Proposer(self, f"n{number}") for number in range(proposers)]

    def storm(self, steps: int, restores: bool = False) -> None:
        """Propose under faults; members, proposers and watches come and go."""
        self.world.faults = STORM
        snapshot = self.world.etcd.snapshot()
        for _ in range(steps):
            chance = self.draw.random()
            member = self.draw.randrange(3)
            if chance < 0.6:
                self.draw.choice(self.proposers).propose(self.draw)
            elif chance < 0.63:
                self.world.freeze(member)
            elif chance < 0.68:
                self.world.thaw(member)
            elif chance < 0.70:
                self.world.kill(member)
            elif chance < 0.75:
                self.world.restart(member)
            elif chance < 0.77:
                self.world.compact()
            elif chance < 0.79:
                proposer = self.draw.choice(self.proposers)
                proposer.die()
                proposer.start()
            elif chance < 0.81 and restores:
                snapshot = self.world.etcd.snapshot()
            elif chance < 0.83 and restores:
                self.world.restore(snapshot)
                self.is_restored = True
            self.advance(self.draw.choice((1, 5, 50, 400)))

    def calm(self) -> None:
        """End the faults, and check that everything is well within a bounded time."""
        self.world.heal()
        for _ in range(SETTLED_MS // 50):
            self.advance(50)
        for proposer in self.proposers:
            assert not proposer.begun, "a proposal without an outcome"
            assert proposer.session is not None, "no session"
            self.check_mirror(proposer, is_final=True)
        self._check_outcomes()

    def advance(self, milliseconds: int) -> None:
        self.time.advance(milliseconds)
        for proposer in self.proposers:
            proposer.settle()

    def check_mirror(self, proposer: Proposer, is_final: bool = False) -> None:
        """Compare a mirror with etcd at the mirror's revision, unless a restore has replaced that."""
        assert proposer.mirror is not None
        if self.is_restored and not is_final:
            return
        etcd = self.world.etcd
        pairs = etcd.pairs if is_final else etcd.at(proposer.mirror.revision)
        expected = {
            pair.key[len(PREFIX) :].decode(): (pair.value, pair.created, pair.modified)
            for pair in pairs.values()
            if not pair.key.startswith(PREFIX + b"writers/")
        }
        found = {
            key: (each.value, each.created, each.modified) for key, each in proposer.mirror.by_key.items()
        }
        assert found == expected, (proposer.name, proposer.mirror.revision)

    def _check_outcomes(self) -> None:
        took_effect = Counter[bytes]()
        at: dict[bytes, int] = {}
        for revision, events in self.world.etcd.history:
            values = {event.value for event in events if event.value in self.proposals}
            for value in values:
                assert value is not None
                took_effect[value] += 1
                at[value] = revision
        for value, outcome in self.outcomes.items():
            assert took_effect[value] <= 1, f"{value!r} took effect twice"
            if isinstance(outcome, Applied) and not self.is_restored:
                assert at.get(value) == outcome.revision, f"{value!r} was applied"
            if isinstance(outcome, Rejected | NotApplied):
                assert took_effect[value] == 0, f"{value!r} took effect after {outcome}"

"""The client of etcd under faults, in simulation; and the simulation finds the bugs that it is there for."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from planaria.actors.metadata.etcd import following
from planaria.actors.metadata.etcd.audit import Audit, Verdict
from planaria.actors.metadata.etcd.effects import Deliver
from planaria.actors.metadata.etcd.following import Following
from planaria.actors.metadata.etcd.proposals import Proposals
from planaria.actors.metadata.etcd.requests import Silence, Transact
from planaria.actors.metadata.etcd.session import Sessions
from planaria.actors.metadata.etcd.wire import Wire
from planaria.actors.metadata.store import Applied
from simulated_proposers import Run

SCHEDULES = 30


def survive(seed: int, restores: bool = False) -> Run:
    run = Run(seed)
    run.advance(1_000)
    run.storm(150, restores)
    run.calm()
    return run


@pytest.mark.parametrize("number", range(SCHEDULES))
def test_promises_hold_under_faults(seed: int, number: int) -> None:
    run = survive(seed + number)
    assert any(isinstance(outcome, Applied) for outcome in run.outcomes.values())


@pytest.mark.parametrize("number", range(SCHEDULES // 2))
def test_a_restored_store_is_noticed_and_followed(seed: int, number: int) -> None:
    survive(seed + number, restores=True)


def test_a_store_that_is_away_is_an_alarm_until_it_answers(seed: int) -> None:
    run = Run(seed, proposers=1)
    store = run.proposers[0].store
    run.advance(5_000)
    assert store.alarms() == ()
    for member in range(3):
        run.world.kill(member)
    run.advance(2_000)
    assert store.alarms() == (), "an election is no alarm"
    run.advance(8_000)
    (alarm,) = store.alarms()
    assert alarm.startswith("etcd has not answered for ")
    assert "refused" in alarm
    run.world.heal()
    run.advance(3_000)
    assert store.alarms() == ()


def repeated_without_the_own_guard(patch: pytest.MonkeyPatch) -> None:
    request = Proposals._request

    def unguarded(self: Proposals, current: Any) -> Transact:
        whole = request(self, current)
        return Transact(whole.compares[1:], whole.writes, whole.otherwise)

    patch.setattr(Proposals, "_request", unguarded)


def silence_taken_for_a_refusal(patch: pytest.MonkeyPatch) -> None:
    arrived = Wire.arrived

    def denied(self: Wire, number: int, outcome: Any, now: int) -> Any:
        if isinstance(outcome, Silence):
            outcome = Silence(outcome.reason, was_sent=False)
        return arrived(self, number, outcome, now)

    patch.setattr(Wire, "arrived", denied)


def a_watch_that_goes_on_at_the_newest_revision(patch: pytest.MonkeyPatch) -> None:
    on_events = Following._on_events

    def skipping(self: Following, events: Any, now: int) -> Any:
        return on_events(self, [event for event in events if event.revision % 7], now)

    patch.setattr(Following, "_on_events", skipping)


def no_audits(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Audit, "of_writers", lambda *_: Verdict.AGREES)
    patch.setattr(Audit, "of_count", lambda *_: Verdict.AGREES)


def chains_not_followed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(following, "continues", lambda *_: True)
    no_audits(patch)


def rejected_without_a_fence(patch: pytest.MonkeyPatch) -> None:
    arrival = Proposals.on_arrival

    def careless(self: Proposals, arrived: Any, now: int) -> Any:
        if self._asked is not None:
            self._asked.may_be_on_its_way = False
        return arrival(self, arrived, now)

    patch.setattr(Proposals, "on_arrival", careless)


def applied_before_it_is_shown(patch: pytest.MonkeyPatch) -> None:
    proceed = Proposals.proceed

    def eager(self: Proposals, now: int) -> Any:
        early = [Deliver(applied) for applied in self._applied]
        self._applied.clear()
        return [*early, *proceed(self, now)]

    patch.setattr(Proposals, "proceed", eager)


def a_session_called_lost_after_a_silence(patch: pytest.MonkeyPatch) -> None:
    original = Sessions.on_arrival

    def hasty(self: Sessions, arrival: Any, now: int) -> Any:
        if isinstance(arrival.outcome, Silence) and self.lease:
            self._is_asking = False
            return self.lost(self.lease, now)
        return original(self, arrival, now)

    patch.setattr(Sessions, "on_arrival", hasty)


@pytest.mark.parametrize(
    ("plant", "restores"),
    [
        (repeated_without_the_own_guard, False),
        (silence_taken_for_a_refusal, False),
        (a_watch_that_goes_on_at_the_newest_revision, False),
        (no_audits, True),
        (chains_not_followed, True),
        (rejected_without_a_fence, False),
        (applied_before_it_is_shown, False),
        (a_session_called_lost_after_a_silence, False),
    ],
)
def test_the_simulation_finds(
    plant: Callable[[pytest.MonkeyPatch], None], restores: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        survive_all(range(60), restores)


def survive_all(seeds: Iterable[int], restores: bool) -> None:
    for seed in seeds:
        survive(seed, restores)

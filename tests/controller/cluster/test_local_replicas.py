"""A node runs its replicas and gives each its role; no process leads before its claim is in the store."""

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from planaria.actors.controller.cluster.deciding import Versioned
from planaria.actors.controller.cluster.local_replicas import (
    AssignRole,
    LocalReplicas,
    StartReplica,
    Step,
    StopReplica,
    Write,
)
from planaria.actors.controller.cluster.records import Member, PartitionRecord
from planaria.transport.addresses import TopicPartition

PARTITION = TopicPartition("T", 0)
LIVE = {node: f"disk-{node}" for node in "abc"}


def record(leader: str = "a", replicas: str = "abc", **changes: object) -> PartitionRecord:
    members = tuple(Member(node, f"disk-{node}") for node in replicas)
    made = PartitionRecord(replicas=tuple(replicas), leader=leader, leader_epoch=5, in_sync=members)
    return msgspec.structs.replace(made, **changes)


class Node:
    """The node `a`, its processes, and a store that applies its writes."""

    def __init__(self, start_id: str = "s1", *, is_loaded: bool = True) -> None:
        self.replicas = LocalReplicas(Member("a", "disk-a"), start_id, lambda: LIVE, lambda _: 2)
        if is_loaded:
            self.replicas.load({})
        self.steps: list[Step] = []
        self.stored: Versioned | None = None

    def take(self, steps: list[Step]) -> list[Step]:
        self.steps += steps
        return steps

    def record(self, changed: PartitionRecord | None) -> list[Step]:
        revision = 1 if self.stored is None else self.stored.revision + 1
        self.stored = None if changed is None else Versioned(changed, revision)
        return self.take(self.replicas.on_record(PARTITION, self.stored))

    def up(self, incarnation: int) -> list[Step]:
        return self.take(self.replicas.on_up(PARTITION, incarnation))

    def down(self, incarnation: int, *, is_quarantined: bool = False) -> list[Step]:
        return self.take(self.replicas.on_down(PARTITION, incarnation, is_quarantined=is_quarantined))

    def apply(self, write: Step) -> list[Step]:
        assert isinstance(write, Write)
        assert self.stored is not None
        assert write.revision == self.stored.revision
        return self.record(write.record) + self.take(self.replicas.on_written(write))


def test_a_leader_claims_its_epoch_before_it_leads() -> None:
    node = Node()
    assert node.record(record("a")) == [StartReplica(PARTITION)]
    [write] = node.up(1)
    assert isinstance(write, Write)
    assert (write.record.leader_epoch, write.record.claim) == (6, "s1/1")
    [role] = node.apply(write)
    assert isinstance(role, AssignRole)
    assert (role.is_leader, role.incarnation, role.record.leader_epoch) == (True, 1, 6)
    assert node.replicas.is_leading(PARTITION, 6)
    assert not node.replicas.is_leading(PARTITION, 5)


def test_a_leader_with_a_slow_disk_hands_over_to_one_of_the_named_and_the_record_says_so() -> None:
    node = Node()
    node.record(record("a"))
    node.apply(node.up(1)[0])
    assert node.replicas.relieve(PARTITION, 5, ["b", "c"], 77) == [], "of an earlier epoch"
    assert node.replicas.relieve(PARTITION, 6, ["d"], 77) == []
    [write] = node.replicas.relieve(PARTITION, 6, ["c"], 77)
    assert isinstance(write, Write)
    after = write.record
    assert (after.leader, after.leader_epoch, after.relieved, after.relieved_ms) == ("c", 7, "a", 77)
    assert len(after.in_sync) == 3, "it follows, as it has everything"


def test_a_lost_folder_is_made_again_once_no_set_counts_on_it() -> None:
    node = Node()
    node.record(record("b"))
    node.up(1)
    assert node.down(1, is_quarantined=True) == []
    [write] = node.take(node.replicas.on_lost(PARTITION))
    assert isinstance(write, Write)
    assert [member.node for member in write.record.in_sync] == ["b", "c"]
    assert node.apply(write) == [StopReplica(PARTITION, keeps_files=True), StartReplica(PARTITION)]
    [role] = node.up(2)
    assert isinstance(role, AssignRole)
    assert not role.is_leader


def test_a_node_does_not_lead_by_what_a_disk_had_that_is_gone() -> None:
    """Whether it leads again at once, or after a stop of all nodes in which no other node could take over."""
    node = Node()
    others = tuple(Member(each, f"disk-{each}") for each in "bc")
    assert node.record(record("a", in_sync=(Member("a", "older disk"), *others))) == [StartReplica(PARTITION)]
    assert node.up(1) == []
    assert node.down(1, is_quarantined=True) == []
    assert node.up(2) == []
    [role] = node.record(record("b", in_sync=others))
    assert isinstance(role, AssignRole)
    assert not role.is_leader


def test_a_leader_that_lost_its_folder_hands_over_first_and_a_member_that_was_eligible_is_none_any_more() -> (
    None
):
    node = Node()
    node.record(record("a"))
    node.apply(node.up(1)[0])
    [handed_over] = node.down(1, is_quarantined=True)
    assert node.take(node.replicas.on_lost(PARTITION)) == []
    assert isinstance(handed_over, Write)
    [write] = node.apply(handed_over)
    assert isinstance(write, Write)
    assert [member.node for member in write.record.in_sync] == ["b", "c"]
    alone = Node()
    alone.record(record("b", eligible=(Member("a", "disk-a"),), in_sync=(Member("b", "disk-b"),)))
    alone.up(1)
    alone.down(1, is_quarantined=True)
    [write] = alone.replicas.on_lost(PARTITION)
    assert isinstance(write, Write)
    assert (write.record.eligible, write.record.in_sync) == ((), (Member("b", "disk-b"),))


def test_each_process_of_a_leader_claims_an_epoch_of_its_own() -> None:
    node = Node()
    node.record(record("a"))
    node.apply(node.up(1)[0])
    assert node.down(1) == []
    [write] = node.up(2)
    [role] = node.apply(write)
    assert isinstance(role, AssignRole)
    assert (role.record.leader_epoch, role.record.claim) == (7, "s1/2")


def test_a_controller_that_starts_again_claims_nothing_twice() -> None:
    before = Node()
    before.record(record("a"))
    before.apply(before.up(1)[0])
    after = Node(is_loaded=False)
    assert before.stored is not None
    after.stored = before.stored
    assert after.up(1) == [], "it does not know yet what should run"
    [role] = after.take(after.replicas.load({PARTITION: before.stored}))
    assert isinstance(role, AssignRole)
    assert role.is_leader


def test_the_same_incarnation_of_another_start_is_another_process() -> None:
    before = Node("s1")
    before.record(record("a"))
    before.apply(before.up(1)[0])
    after = Node("s2")
    assert before.stored is not None
    after.record(before.stored.record)
    [write] = after.up(1)
    assert isinstance(write, Write)
    assert write.record.claim == "s2/1"


def test_a_claim_without_an_answer_is_repeated_by_what_the_store_says() -> None:
    node = Node()
    node.record(record("a"))
    [lost] = node.up(1)
    assert isinstance(lost, Write)
    [again] = node.take(node.replicas.on_written(lost))
    assert again == lost
    [role] = node.record(lost.record)
    assert isinstance(role, AssignRole)
    assert node.take(node.replicas.on_written(lost)) == []


def test_a_follower_gets_each_new_record_once() -> None:
    node = Node()
    node.record(record("b"))
    [role] = node.up(1)
    assert isinstance(role, AssignRole)
    assert not role.is_leader
    assert node.take(node.replicas.on_up(PARTITION, 1)) == []
    [role] = node.record(record("c"))
    assert isinstance(role, AssignRole)
    assert role.record.leader == "c"


def test_a_quarantined_leader_hands_over_and_a_quarantined_follower_does_not() -> None:
    node = Node()
    node.record(record("a"))
    node.apply(node.up(1)[0])
    [write] = node.down(1, is_quarantined=True)
    assert isinstance(write, Write)
    assert write.record.leader == "b"
    assert node.apply(write) == []
    follower = Node()
    follower.record(record("b"))
    follower.up(1)
    assert follower.down(1, is_quarantined=True) == []


def test_a_quarantined_leader_without_another_member_stays() -> None:
    node = Node()
    node.record(record("a", in_sync=(Member("a", "disk-a"),)))
    node.apply(node.up(1)[0])
    assert node.down(1, is_quarantined=True) == []


def test_a_replica_that_was_moved_away_or_deleted_is_stopped() -> None:
    for gone in (record("b", replicas="bc"), None):
        node = Node()
        node.record(record("b"))
        node.up(1)
        assert node.record(gone) == [StopReplica(PARTITION)]
        assert node.record(gone) == []
        assert node.record(record("b")) == [StartReplica(PARTITION)]


class Claims(RuleBasedStateMachine):
    """Elections, restarts of processes and of the controller, lost answers: an epoch has one process at most."""

    def __init__(self) -> None:
        super().__init__()
        self.start_id = 1
        self.incarnation = 0
        self.is_up = False
        self.stored = Versioned(record("a"), 1)
        self.open: list[Write] = []
        self.leaders: dict[int, tuple[int, int]] = {}
        self.replicas = self._controller()
        self._perform(self.replicas.load({PARTITION: self.stored}))

    def _controller(self) -> LocalReplicas:
        return LocalReplicas(Member("a", "disk-a"), f"s{self.start_id}", lambda: LIVE, lambda _: 2)

    def _perform(self, steps: list[Step]) -> None:
        for step in steps:
            if isinstance(step, Write):
                self.open.append(step)
            elif isinstance(step, AssignRole) and step.is_leader:
                process = (self.start_id, step.incarnation)
                assert self.leaders.setdefault(step.record.leader_epoch, process) == process

    @rule(leader=st.sampled_from("abc"))
    def elect(self, leader: str) -> None:
        epoch = self.stored.record.leader_epoch + 1
        changed = msgspec.structs.replace(self.stored.record, leader=leader, leader_epoch=epoch, claim="")
        self._store(changed)

    @rule(is_answered=st.booleans(), is_late=st.booleans())
    def answer(self, is_answered: bool, is_late: bool) -> None:
        if not self.open:
            return
        write = self.open.pop(0)
        if write.revision == self.stored.revision:
            if is_late:
                self._perform(self.replicas.on_written(write))
            self._store(write.record)
        if is_answered:
            self._perform(self.replicas.on_written(write))

    @rule()
    def process_starts(self) -> None:
        self.incarnation += 1
        self.is_up = True
        self._perform(self.replicas.on_up(PARTITION, self.incarnation))

    @rule(is_quarantined=st.booleans())
    def process_dies(self, is_quarantined: bool) -> None:
        if self.is_up:
            self.is_up = False
            self._perform(self.replicas.on_down(PARTITION, self.incarnation, is_quarantined=is_quarantined))

    @rule()
    def controller_restarts(self) -> None:
        self.replicas = self._controller()
        self._perform(self.replicas.load({PARTITION: self.stored}))
        if self.is_up:
            self._perform(self.replicas.on_up(PARTITION, self.incarnation))

    @rule()
    def node_restarts(self) -> None:
        self.start_id += 1
        self.incarnation, self.is_up = 0, False
        self.open.clear()
        self.replicas = self._controller()
        self._perform(self.replicas.load({PARTITION: self.stored}))

    @invariant()
    def a_leader_has_claimed(self) -> None:
        epoch = self.stored.record.leader_epoch
        if self.replicas.is_leading(PARTITION, epoch):
            assert self.stored.record.claim == f"s{self.start_id}/{self.incarnation}"

    def _store(self, changed: PartitionRecord) -> None:
        self.stored = Versioned(changed, self.stored.revision + 1)
        self._perform(self.replicas.on_record(PARTITION, self.stored))


TestClaims = Claims.TestCase
TestClaims.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def restored(node: Node, older: PartitionRecord) -> list[Step]:
    """Return the steps after a restore of the store from an old copy."""
    node.stored = Versioned(older, 0)
    return node.take(node.replicas.load({PARTITION: node.stored}))


def test_a_leader_claims_an_epoch_above_its_own_in_a_restored_store() -> None:
    node = Node()
    node.record(record("a"))
    node.apply(node.up(1)[0])
    assert node.stored is not None
    claimed_before = node.stored.record
    [write] = restored(node, claimed_before)
    assert isinstance(write, Write)
    assert (write.record.leader_epoch, write.record.claim) == (7, "s1/1")
    [role] = node.apply(write)
    assert isinstance(role, AssignRole)
    assert role.is_leader


def test_a_follower_raises_the_epoch_of_a_restored_store_once() -> None:
    node = Node()
    node.record(record("b", leader_epoch=9))
    node.up(1)
    [write] = restored(node, record("c", leader_epoch=5, claim="other/1"))
    assert isinstance(write, Write)
    assert (write.record.leader, write.record.leader_epoch, write.record.claim) == ("c", 9, "")
    [role] = node.apply(write)
    assert isinstance(role, AssignRole)
    assert not role.is_leader

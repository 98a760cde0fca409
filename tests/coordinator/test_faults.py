"""Any order of joins, rebalances, commits, freezes, lost answers and crashes: never two owners, at the end exactly one.

Hypothesis plays up to eight members against one coordinator whose process dies at any moment, with its append durable or
not. After each step the invariants hold; at the end faults stop, and the group must come to rest.
"""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from example_counts import examples
from planaria.transport.protocol.data import Produce
from planaria.transport.protocol.errors import ErrorBody, ErrorCode
from planaria.transport.protocol.groups import LeaveGroup, PauseGroup, ResumeGroup
from simulated_group import GROUP, SimulatedGroup, SimulatedMember, converge

SESSION_MS = 3_000
seats = st.integers(0, 7)


class GroupUnderFaults(RuleBasedStateMachine):
    @initialize(partitions=st.integers(1, 9), static=st.sets(seats), first=st.integers(1, 8))
    def begin(self, partitions: int, static: set[int], first: int) -> None:
        self.group = SimulatedGroup({"ORDERS": partitions}).run()
        self.static = static
        self.members: dict[int, SimulatedMember] = {}
        self.names = 0
        self.next_offset = 0
        self.acknowledged: dict[int, int] = {}
        self.issued: list[tuple[str, int, int, int]] = []
        """Unanswered commits: client, request id, partition, offset."""
        for seat in range(first):
            self.start_member(seat)
        self.round()

    def seated(self, pick: int) -> int:
        """Return an occupied seat, so that few steps have no effect."""
        taken = sorted(self.members)
        return taken[pick % len(taken)] if taken else pick

    def awake(self, pick: int) -> SimulatedMember | None:
        member = self.members.get(self.seated(pick))
        return None if member is None or member.is_frozen else member

    # -- members

    @rule(seat=seats)
    def start_member(self, seat: int) -> None:
        """Start a seat's process; a previous one died without leaving, and a static one is replaced."""
        self.names += 1
        instance = f"instance-{seat}" if seat in self.static else None
        member = SimulatedMember(
            self.group, f"member-{self.names}", instance_id=instance, session_timeout_ms=SESSION_MS
        )
        self.members[seat] = member
        member.heartbeat()

    @rule(seat=seats)
    def kill_member(self, seat: int) -> None:
        self.members.pop(self.seated(seat), None)

    @rule(seat=seats)
    def freeze_member(self, seat: int) -> None:
        if (member := self.awake(seat)) is not None:
            member.is_frozen = True

    @rule(seat=seats)
    def thaw_member(self, seat: int) -> None:
        """Resume a member with its old partitions; it finds the answers that arrived meanwhile."""
        if (member := self.members.get(self.seated(seat))) is not None:
            member.is_frozen = False

    @rule(seat=seats, max_wait_ms=st.sampled_from([0, 500, 60_000]))
    def heartbeat(self, seat: int, max_wait_ms: int) -> None:
        if (member := self.awake(seat)) is not None and not member.is_fenced:
            member.heartbeat(max_wait_ms)

    @rule(seat=seats)
    def receive(self, seat: int) -> None:
        if (member := self.awake(seat)) is not None:
            member.receive()

    @rule(seat=seats)
    def let_go(self, seat: int) -> None:
        if (member := self.awake(seat)) is not None:
            member.let_go()

    @rule(seat=seats)
    def leave(self, seat: int) -> None:
        """Leave the group; whether the request arrives or not, the process is gone."""
        member = self.awake(seat)
        if member is not None and member.member_id is not None:
            self.group.ask(member.name, LeaveGroup(group=GROUP, member_id=member.member_id))
            del self.members[self.seated(seat)]

    @rule(seat=seats, pick=st.integers(0, 8))
    def commit(self, seat: int, pick: int) -> None:
        """Commit a partition it believes to own. Offsets rise over the whole run, so a decrease would show."""
        member = self.awake(seat)
        if member is None or not member.owned:
            return
        topic, partition = sorted(member.owned)[pick % len(member.owned)]
        self.next_offset += 1
        request_id = member.commit(topic, partition, self.next_offset)
        self.issued.append((member.name, request_id, partition, self.next_offset))

    @rule(seat=seats)
    def commit_of_a_former_owner_is_refused(self, seat: int) -> None:
        """A member that owns nothing by the records may commit nothing, whatever it believes."""
        member = self.awake(seat)
        if member is None or member.member_id is None or not self.group.is_ready:
            return
        decided = self.group.service.decisions.state.members.get(member.member_id)
        held = decided.held if decided is not None else {}
        for topic, partition in sorted(member.owned - held.keys()):
            request_id = member.commit(topic, partition, 10**9)
            body = self.group.answer_of(request_id)
            assert isinstance(body, ErrorBody)
            assert body.code in (ErrorCode.UNKNOWN_MEMBER, ErrorCode.FENCED_MEMBER, ErrorCode.NOT_ASSIGNED)

    @rule()
    def round(self) -> None:
        """Let every live member take a turn, so that runs get past their first rebalance."""
        for member in self.members.values():
            if not member.is_frozen and not member.is_fenced:
                member.receive()
                member.turn()

    # -- the world

    @rule(count=st.integers(1, 4))
    def answer_calls(self, count: int) -> None:
        for call in self.group.answerable()[:count]:
            if call in self.group.calls:
                self.group.answer(call)

    @rule()
    def drain(self) -> None:
        self.group.drain()

    @rule()
    def lose_an_answer(self) -> None:
        for call in self.group.calls:
            if isinstance(call.request, Produce) and self.group.is_partition_up:
                self.group.lose_answer(call)
                return

    @rule(milliseconds=st.sampled_from([50, 400, 1_100, 3_100]))
    def advance(self, milliseconds: int) -> None:
        self.group.advance(milliseconds)

    @rule(milliseconds=st.sampled_from([600, 10_000]))
    def freeze_coordinator(self, milliseconds: int) -> None:
        self.group.freeze(milliseconds)

    @rule(is_append_durable=st.booleans())
    def crash_coordinator(self, is_append_durable: bool) -> None:
        self.note_answers()
        self.group.crash(is_append_durable=is_append_durable)

    @rule()
    def partition_down(self) -> None:
        self.group.is_partition_up = False

    @rule()
    @precondition(lambda self: not self.group.is_partition_up)
    def partition_up(self) -> None:
        self.group.partition_up()

    @rule(more=st.integers(1, 3))
    def grow_topic(self, more: int) -> None:
        self.group.set_topics({"ORDERS": min(12, self.group.topics["ORDERS"] + more)})

    @rule(for_ms=st.sampled_from([None, 300, 2_000]))
    def pause(self, for_ms: int | None) -> None:
        self.group.ask("operator", PauseGroup(group=GROUP, for_ms=for_ms))

    @rule()
    def resume(self) -> None:
        self.group.ask("operator", ResumeGroup(group=GROUP))

    # -- invariants

    def note_answers(self) -> None:
        open_commits = []
        for client, request_id, partition, offset in self.issued:
            body = self.group.answer_of(request_id)
            if body is None:
                open_commits.append((client, request_id, partition, offset))
            elif not isinstance(body, ErrorBody):
                self.acknowledged[partition] = max(offset, self.acknowledged.get(partition, 0))
        self.issued = open_commits

    @invariant()
    def nobody_shares_a_partition(self) -> None:
        """Compare owners by their own belief, except those that the group has removed: expired, left, replaced."""
        if not self.group.is_ready:
            return
        owners: dict[tuple[str, int], str] = {}
        for member in self.members.values():
            if member.member_id not in self.group.state.members:
                continue
            for item in member.owned:
                assert owners.setdefault(item, member.name) == member.name, item
                assert self.group.state.holders[item] == member.member_id, item

    @invariant()
    def committed_offsets_never_go_back(self) -> None:
        self.note_answers()
        if not self.group.is_ready:
            return
        for partition, offset in self.acknowledged.items():
            committed = self.group.state.offsets["ORDERS", partition].offset
            assert offset <= committed <= self.next_offset

    @invariant()
    def the_decided_state_is_ahead_by_what_is_on_its_way(self) -> None:
        if self.group.is_ready and self.group.machine._recorder.is_idle:
            decided = self.group.service.decisions.state
            assert decided.members == self.group.state.members
            assert decided.offsets == self.group.state.offsets
            assert decided.generation == self.group.state.generation

    def teardown(self) -> None:
        if not hasattr(self, "group"):
            return
        group = self.group
        if not group.is_partition_up:
            group.partition_up()
        group.drain()
        group.request("operator", ResumeGroup(group=GROUP))
        alive = [member for member in self.members.values() if not member.is_fenced]
        for member in alive:
            member.is_frozen = False
        self.let_time_pass(alive)
        if not alive:
            assert not group.state.members
            return
        self.check_rest(alive)
        last = alive.pop()
        if last.member_id is not None and alive:
            before = {member.name: set(member.owned) for member in alive}
            last.leave()
            converge(alive)
            self.check_rest(alive)
            assert all(before[member.name] <= member.owned for member in alive), "only the orphans move"

    def let_time_pass(self, alive: list[SimulatedMember]) -> None:
        """Let enough time pass for the dead to expire, with heartbeats of the living in time."""
        for _ in range(2 * SESSION_MS // 500):
            for member in alive:
                member.receive()
                member.turn()
            self.group.advance(500)
            self.group.drain()
        converge(alive)
        assert self.group.is_ready

    def check_rest(self, alive: list[SimulatedMember]) -> None:
        owned = sorted(item for member in alive for item in member.owned)
        assert owned == [("ORDERS", number) for number in range(self.group.topics["ORDERS"])]
        loads = [len(member.owned) for member in alive]
        assert max(loads) - min(loads) <= 1
        assert {member.member_id for member in alive} == set(self.group.state.members)
        assert self.group.state.is_settled


TestGroupUnderFaults = GroupUnderFaults.TestCase
TestGroupUnderFaults.settings = examples(150, steps=50)

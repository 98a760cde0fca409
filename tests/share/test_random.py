"""Random members, faults and restarts: each record is accepted once or dead, and never held by two members."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from example_counts import examples
from planaria.transport.batch import decode_records, parse_header
from planaria.transport.protocol.errors import ErrorBody
from planaria.transport.protocol.shares import Acknowledgement, Acquire, AcquiredRange, ConfigureShareGroup
from simulated_group import GROUP
from simulated_share import SimulatedShare

MEMBERS = st.sampled_from(["a", "b", "c"])
LOCK_MS = 1_000
MAX_DELIVERIES = 3


class ShareGroupMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.group = SimulatedShare()
        self.group.run()
        self.group.request(
            "x",
            ConfigureShareGroup(
                group=GROUP, lock_ms=LOCK_MS, max_deliveries=MAX_DELIVERIES, dead_letter="DLQ"
            ),
        )
        self.published = 0
        self.held: dict[int, tuple[str, int]] = {}
        """Holder of each record, and the end of its lock."""
        self.accepted: set[int] = set()
        self.deliveries: dict[int, int] = {}
        self.restarts = 0

    @rule(count=st.integers(1, 20))
    def publish(self, count: int) -> None:
        self.group.publish(count)
        self.published += count

    @rule(member=MEMBERS, count=st.integers(1, 10))
    def acquire(self, member: str, count: int) -> None:
        self.note(member, self.group.acquire(member, count))

    @precondition(lambda self: self.published)
    @rule(member=MEMBERS, count=st.integers(1, 10), data=st.data(), is_lost=st.booleans())
    def accept_and_acquire(self, member: str, count: int, data: st.DataObject, is_lost: bool) -> None:
        """One request for both; with `is_lost` it is sent again, as after a lost reply."""
        first = data.draw(st.integers(0, self.published - 1))
        holds = self._holds(member, first)
        said = Acknowledgement(topic="ORDERS", partition=0, first_offset=first, verdict="accept")
        request = Acquire(
            group=GROUP, topics=["ORDERS"], member_id=member, max_records=count, acknowledgements=[said]
        )
        reply = self.group.request(member, request)
        assert (reply.results[0].error is None) == holds
        if holds:
            self.accepted.add(first)
            del self.held[first]
        self.note(member, reply.ranges)
        if is_lost:
            again = self.group.request(member, request)
            assert (again.results[0].error is None) == self._holds(member, first)
            if again.results[0].error is None:
                self.accepted.add(first)
                del self.held[first]
            self.note(member, again.ranges)

    def note(self, member: str, ranges: list[AcquiredRange]) -> None:
        """Note the records that a member has got."""
        for each in ranges:
            for offset in range(each.first_offset, each.last_offset + 1):
                assert offset not in self.accepted
                assert offset not in self.dead()
                holder, until = self.held.get(offset, ("", 0))
                assert until <= self.group.now, f"{offset} is {holder}'s"
                self.held[offset] = (member, self.group.now + LOCK_MS)
                # A lock that ends with its coordinator counts as an attempt, and dead-letters nothing.
                assert each.delivery_count <= MAX_DELIVERIES + self.restarts
                assert each.delivery_count <= self.deliveries.get(offset, 0) + 1
                self.deliveries[offset] = each.delivery_count

    @precondition(lambda self: self.published)
    @rule(
        member=MEMBERS,
        data=st.data(),
        length=st.integers(1, 5),
        verdict=st.sampled_from(["accept", "accept", "release", "fail", "reject", "renew"]),
        delay_ms=st.sampled_from([0, 300]),
    )
    def acknowledge(self, member: str, data: st.DataObject, length: int, verdict: str, delay_ms: int) -> None:
        first = data.draw(st.integers(0, self.published - 1))
        offsets = range(first, first + length)
        code = self.group.acknowledge(member, first, first + length - 1, verdict, delay_ms=delay_ms)
        holds = all(self._holds(member, offset) for offset in offsets)
        assert code == (None if holds else "NOT_ACQUIRED")
        if not holds:
            return
        for offset in offsets:
            if verdict == "renew":
                self.held[offset] = (member, self.group.now + LOCK_MS)
                continue
            del self.held[offset]
            if verdict == "accept":
                self.accepted.add(offset)
            elif verdict == "release":
                self.deliveries[offset] -= 1

    def _holds(self, member: str, offset: int) -> bool:
        holder, until = self.held.get(offset, ("", 0))
        return holder == member and until > self.group.now

    @rule(milliseconds=st.sampled_from([100, 400, 1_100]))
    def wait(self, milliseconds: int) -> None:
        self.group.advance(milliseconds, self.group.drain)
        self.group.drain()

    @rule(with_snapshot=st.booleans())
    def restart(self, with_snapshot: bool) -> None:
        self.restarts += 1
        self.group.start(with_snapshot=with_snapshot)
        self.group.drain()
        self.held.clear()

    def dead(self) -> list[int]:
        return [
            int((headers or {})["dead-letter-offset"])
            for batch in self.group.log_of("DLQ").batches
            for _, _, _, headers in decode_records(batch, parse_header(batch))
        ]

    @invariant()
    def a_record_is_accepted_or_dead_and_never_both(self) -> None:
        dead = self.dead()
        assert len(set(dead)) == len(dead)
        assert self.accepted.isdisjoint(dead)

    def teardown(self) -> None:
        """Faults end: every record is accepted by some member."""
        self.wait(1_100)
        for _ in range(200):
            for each in self.group.acquire("last", 1_000):
                code = self.group.acknowledge("last", each.first_offset, each.last_offset, "accept")
                assert not isinstance(code, ErrorBody)
                self.accepted.update(range(each.first_offset, each.last_offset + 1))
            if len(self.accepted) + len(self.dead()) == self.published:
                break
            self.group.advance(300, self.group.drain)
        assert self.accepted | set(self.dead()) == set(range(self.published))
        self.a_record_is_accepted_or_dead_and_never_both()


ShareGroupMachine.TestCase.settings = examples(40, steps=40)
test_random_histories = ShareGroupMachine.TestCase

"""Any order of schedules, cancels, lost answers, crashes, deleted topics and forgetful partitions: nothing twice,
nothing lost.

Hypothesis plays the scheduler's surroundings: each call is answered, lost or failed at random, the scheduler dies
with its sent batches arriving or not, its log is compacted, partitions forget producers and go down, topics grow, vanish
and come back. After each step no message is in a topic twice; at the end faults stop, and every acknowledged and not
cancelled message has arrived.
"""

from collections import Counter

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from example_counts import examples
from planaria.actors.scheduler.pending_messages import ENDED_KEPT_MS
from planaria.transport.protocol.delayed import CancelScheduled, Schedule, ScheduleRecord
from planaria.transport.protocol.errors import ErrorBody, ErrorCode
from planaria.transport.protocol.message import Done
from simulated_actor import LOST
from simulated_schedule import OWN, SimulatedSchedule

TOPICS = ("ORDERS", "PAYMENTS")
FULL = ErrorBody(ErrorCode.STORAGE_FULL, "no room", True)
HOURS_MS = 3_600_000

picks = st.integers(0, 1_000)
steps = st.sampled_from([-30, -2, 0, 2, 30])
delays = st.sampled_from([0, 0, 10, 50, 300, 2_000])


class ScheduleUnderFaults(RuleBasedStateMachine):
    @initialize(partitions=st.integers(1, 3))
    def begin(self, partitions: int) -> None:
        self.world = SimulatedSchedule(ORDERS=partitions, PAYMENTS=1).run()
        self.topic_of: dict[str, str] = {}
        self.first_asked_ms: dict[str, int] = {}
        self.not_before_ms: dict[str, int] = {}
        """End of the delay of a message, by the clock of delays; 0 for times of day."""
        self.latest_ms = 0
        """Latest time of day for which anything was scheduled."""
        self.asked: dict[int, str] = {}
        """Requests to schedule, by number."""
        self.asked_to_cancel: dict[int, str] = {}

    # Requests

    @rule(
        topic=st.sampled_from(TOPICS),
        after_ms=delays,
        count=st.integers(1, 4),
        has_key=st.booleans(),
        is_delay=st.booleans(),
    )
    def schedule(self, topic: str, after_ms: int, count: int, has_key: bool, is_delay: bool) -> None:
        for _ in range(count):
            name = f"m{len(self.topic_of)}"
            self.topic_of[name] = topic
            self.first_asked_ms[name] = self.world.now
            self.ask_for(name, after_ms, has_key, is_delay)

    @precondition(lambda self: self.topic_of)
    @rule(pick=picks)
    def schedule_again(self, pick: int) -> None:
        name = f"m{pick % len(self.topic_of)}"
        if self.world.now - self.first_asked_ms[name] < ENDED_KEPT_MS:
            self.ask_for(name, 0, has_key=True)

    def ask_for(self, name: str, after_ms: int, has_key: bool, is_delay: bool = False) -> None:
        if is_delay:
            elapsed_ms = self.world.now + self.world.ahead.slept_ms
            self.not_before_ms.setdefault(name, elapsed_ms + after_ms)
        else:
            self.not_before_ms[name] = 0
        self.latest_ms = max(self.latest_ms, self.world.now + self.world.ahead.offset_ms + after_ms)
        record = ScheduleRecord(
            scheduled_id=name,
            topic=self.topic_of[name],
            deliver_at_ms=None if is_delay else self.world.now + self.world.ahead.offset_ms + after_ms,
            delay_ms=after_ms if is_delay else None,
            key=name.encode() if has_key else None,
            value=name.encode(),
        )
        self.asked[self.world.ask(Schedule(records=[record]))] = name

    @precondition(lambda self: self.topic_of)
    @rule(pick=picks)
    def cancel(self, pick: int) -> None:
        name = f"m{pick % len(self.topic_of)}"
        self.asked_to_cancel[self.world.ask(CancelScheduled(scheduled_id=name))] = name

    # Faults

    @rule(pick=picks, count=st.integers(1, 8))
    def answer(self, pick: int, count: int) -> None:
        for _ in range(count):
            calls = self.world.answerable()
            if calls:
                self.world.answer(calls[pick % len(calls)])

    @rule()
    def answer_all(self) -> None:
        self.world.drain()

    @rule(pick=picks)
    def lose_answer(self, pick: int) -> None:
        calls = self.world.answerable()
        if calls:
            self.world.lose_answer(calls[pick % len(calls)])

    @rule(pick=picks)
    def lose_call(self, pick: int) -> None:
        calls = self.world.answerable()
        if calls:
            self.world.fail(calls[pick % len(calls)], LOST)

    @rule(arriving=st.integers(0, 3), with_snapshot=st.booleans())
    def crash(self, arriving: int, with_snapshot: bool) -> None:
        self.world.crash(arriving=arriving, with_snapshot=with_snapshot)

    @rule()
    def stop(self) -> None:
        """Stop in order, so with a snapshot; then start."""
        self.world.drain()
        self.world.machine._unsaved_records += 1
        data = self.world.machine._snapshot(self.world.now, least=1) if self.world.is_ready else []
        for effect in data:
            self.world.actor.perform(effect)
        self.world.start()

    @rule(milliseconds=st.sampled_from([1, 10, 100, 500, 13 * HOURS_MS]))
    def wait(self, milliseconds: int) -> None:
        self.world.now += milliseconds
        self.world.fire()

    @rule(hours=steps, slept_ms=st.sampled_from([0, 0, 400, 2 * HOURS_MS]))
    def step_the_clock(self, hours: int, slept_ms: int) -> None:
        self.world.step(hours * HOURS_MS, slept_ms)

    @rule(hours=steps)
    def boot(self, hours: int) -> None:
        """Cut the power of the machine; it returns with another time of day."""
        self.world.boot(hours * HOURS_MS)
        self.not_before_ms = dict.fromkeys(self.not_before_ms, 0)
        # The time since a name's last use is measured by the wrong clock: it may count as a new name.
        self.first_asked_ms = dict.fromkeys(self.first_asked_ms, -ENDED_KEPT_MS)

    @rule()
    def compact(self) -> None:
        self.world.compact()

    @rule(pick=picks)
    def forget_producers(self, pick: int) -> None:
        """Forget producers, as a partition does after a day of silence: older intents are expired."""
        self.world.now += 25 * HOURS_MS
        tps = [tp for tp in sorted(self.world.logs) if tp != OWN]
        self.world.forget_producers(tps[pick % len(tps)])

    @rule(pick=picks)
    def go_down(self, pick: int) -> None:
        tps = sorted(self.world.logs)
        self.world.down[tps[pick % len(tps)]] = FULL

    @rule()
    def come_up(self) -> None:
        for tp in list(self.world.down):
            self.world.up(tp)

    @precondition(lambda self: "PAYMENTS" in self.world.topics)
    @rule()
    def delete_topic(self) -> None:
        self.world.delete("PAYMENTS")
        self.world.down.pop(("PAYMENTS", 0), None)
        # Calls to a dead process have no effect.
        for call in [each for each in self.world.calls if each.address == "partition/PAYMENTS/0"]:
            self.world.fail(call, ErrorBody(ErrorCode.PARTITION_OFFLINE, "died", True))

    @precondition(lambda self: "PAYMENTS" not in self.world.topics)
    @rule()
    def create_topic(self) -> None:
        self.world.create("PAYMENTS", 1)

    @precondition(lambda self: self.world.topics["ORDERS"].partitions < 5)
    @rule()
    def grow_topic(self) -> None:
        self.world.grow("ORDERS", self.world.topics["ORDERS"].partitions + 1)

    # Invariants

    @invariant()
    def nothing_is_there_twice(self) -> None:
        if not hasattr(self, "world"):
            return
        for topic in TOPICS:
            doubled = [name for name, count in Counter(self.world.delivered(topic)).items() if count > 1]
            assert not doubled, f"{topic} has {doubled} twice"

    @invariant()
    def no_delay_ends_early(self) -> None:
        if not hasattr(self, "world"):
            return
        elapsed_ms = self.world.now + self.world.ahead.slept_ms
        for topic in TOPICS:
            early = [name for name in self.world.delivered(topic) if elapsed_ms < self.not_before_ms[name]]
            assert not early, f"{early} came early"

    def _is_asked_again(self, name: str, after: int) -> bool:
        """Return True if the name was reused after its cancel: then it was free, and its new message may arrive."""
        return any(number > after and asked == name for number, asked in self.asked.items())

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        if "PAYMENTS" not in world.topics:
            world.create("PAYMENTS", 1)
        for tp in list(world.down):
            world.up(tp)
        if self.latest_ms > world.now + world.ahead.offset_ms:
            world.step(self.latest_ms - world.now - world.ahead.offset_ms)  # times of day have come again
        world.advance(60_000)
        self.nothing_is_there_twice()
        arrived = {*world.delivered("ORDERS"), *world.delivered("PAYMENTS"), *world.delivered_before()}
        cancelled = {
            name
            for number, name in self.asked_to_cancel.items()
            if isinstance(world.replies.get(number), Done) and not self._is_asked_again(name, after=number)
        }
        acknowledged = {
            name for number, name in self.asked.items() if getattr(world.replies.get(number), "results", None)
        }
        assert not cancelled & arrived
        tried = set(self.asked_to_cancel.values())
        assert acknowledged - tried <= arrived, f"lost: {sorted(acknowledged - tried - arrived)}"
        assert world.listed() == []


ScheduleUnderFaults.TestCase.settings = examples(60, steps=60)
TestScheduleUnderFaults = ScheduleUnderFaults.TestCase

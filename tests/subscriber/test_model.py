"""The machine under random faults: kills, failures, rebalances, refused commits. One seed, one history.

Each delivery's guarantees are checked at every step, and at the end that every published record was handled.
"""

import random
from collections.abc import Callable

import pytest
from msgspec import structs

from example_counts import is_exploring
from planaria.actors.subscriber.bisection import Spot
from planaria.actors.subscriber.effects import (
    Cause,
    Commit,
    CommitRefused,
    Committed,
    Crash,
    DeadLetterPublished,
    Failure,
    Forget,
    HandlerReturned,
    HandlerTimedOut,
    HandOver,
    Leave,
    PausePartition,
    Poll,
    PriorAttempt,
    PublishDeadLetter,
    Recall,
    Recalled,
    RecordsPolled,
    ResumePartition,
    Rewind,
    Run,
    SoFar,
    Verdict,
)
from planaria.actors.subscriber.progress import Ahead, from_metadata
from planaria.actors.subscriber.recovered_state import Finished, Suspect
from planaria.transport.addresses import TopicPartition
from planaria.transport.lineage import lineage_of
from planaria.transport.machine import Stop
from planaria.transport.publication import Publication
from subscriber_script import FakeMessage, Script, made_of

PARTITIONS = 3
RECORDS = 60
RETRIES = 2
STEPS = 4_000
VERDICTS: dict[str, Verdict] = {"raises": "failed", "rejects": "rejected", "releases": "released"}


class World:
    """The broker, the handler and the flight recorder around one subscriber after another."""

    def __init__(self, seed: int, delivery: str, *, is_rough: bool, concurrency: int = 1) -> None:
        self.concurrency = concurrency
        may_share_keys = concurrency == 8 and delivery != "at-most-once"
        self.in_flight_per_key = 3 if may_share_keys and seed % 2 else 1
        self.draw = random.Random(seed)
        self.delivery = delivery
        self.is_exact = delivery == "exactly-once"
        self.published: list[str] = []
        """Values in committed transactions, each naming its record."""
        self.is_rough = is_rough
        self.is_calm = False
        self.committed = {("A", partition): 0 for partition in range(PARTITIONS)}
        self.handled: dict[tuple[TopicPartition, int], int] = {}
        self.tries: dict[tuple[TopicPartition, int], int] = {}
        self.dead_lettered: set[tuple[TopicPartition, int]] = set()
        self.poison = {
            (key, offset): self.draw.choice(["raises", "rejects", "kills", "hangs"])
            for key in self.committed
            for offset in self.draw.sample(range(RECORDS), 5)
        }
        self.releases = {
            (key, offset): self.draw.randrange(1, 4)
            for key in self.committed
            for offset in self.draw.sample(range(RECORDS), 15)
        }
        """Number of times that the handler will release the record before it handles it."""
        self.prior_attempts: dict[tuple[TopicPartition, int], PriorAttempt] = {}
        self.suspects: list[Suspect] = []
        self.finished: dict[Spot, Finished] = {}
        self.ahead: dict[TopicPartition, Ahead] = {}
        """Progress beyond the committed offsets, recorded with the last commits."""
        self.resets = dict.fromkeys(self.committed, 0)
        self.incarnations = 0
        self.be_born()

    def lineage(self, key: TopicPartition) -> bytes:
        return lineage_of("topic", self.resets[key])

    def reset(self) -> None:
        """While no member runs, reset a partition or recreate its topic: the recorder's notes are void."""
        key = self.draw.choice(sorted(self.committed))
        self.resets[key] += 1
        self.committed[key] = 0
        self.ahead.pop(key, None)
        for table in (self.handled, self.tries):
            for tp in [tp for tp in table if tp[0] == key]:
                del table[tp]
        self.dead_lettered = {tp for tp in self.dead_lettered if tp[0] != key}
        self.published = [each for each in self.published if not each.startswith(f"{key[1]}:")]

    # Life of the subscriber.

    def be_born(self) -> None:
        self.incarnations += 1
        if self.delivery != "at-most-once" and not self.is_calm and self.draw.random() < 0.1:
            self.reset()
        self.script = Script(
            list(self.prior_attempts.values()),
            list(self.finished.values()) if self.concurrency > 1 and not self.is_exact else [],
            self.suspects,
            concurrency=self.concurrency,
            max_in_flight_per_key=self.in_flight_per_key,
            delivery=self.delivery,
            retries=RETRIES,
            dead_letter="A.dlq",
            handler_timeout_ms=1_000,
            max_records=8,
        )
        self.position = dict(self.committed)
        self.assigned = set(self.committed)
        self.paused: set[TopicPartition] = set()
        self.runs: list[Run] = []
        self.stuck: dict[int, int] = {}
        """By run, the number of records after the one in which its handler hangs."""
        self.fresh = set(self.committed)
        """Partitions whose progress is still to be read."""
        self.orders: list[object] = []
        self.let_go: HandOver | None = None
        self.is_over = False
        if self.concurrency > 1:
            # Speed of the handler so far.
            self.script.machine._state.runs._size = self.draw.choice([1, 3, 500])
        self.act(self.script.start)

    def act(self, do: Callable[..., object], *arguments: object) -> None:
        do(*arguments)
        recalls: list[Recall] = []
        for effect in self.script.take_effects():
            match effect:
                case Run():
                    self.runs.append(effect)
                    assert len(self.runs) <= self.concurrency, "so many at a time"
                case Recall():
                    recalls.append(effect)
                case Poll() | Commit() | PublishDeadLetter() | Leave():
                    self.orders.append(effect)
                case PausePartition(key=key):
                    self.paused.add(key)
                case ResumePartition(key=key):
                    self.paused.discard(key)
                case Rewind(offsets=offsets):
                    self.position.update({key: at for key, at in offsets.items() if key in self.assigned})
                    self.fresh |= offsets.keys()
                case HandOver():
                    self.let_go = effect
                case Forget(key=key, offset=offset):
                    self.prior_attempts.pop((key, offset), None)
                case Crash() | Stop():
                    self.is_over = True
        for recall in recalls:
            self.recall(recall.number)

    def recall(self, number: int) -> None:
        """Take back some of a run's records that its worker has not begun, or all after the one that hangs."""
        if number in self.stuck:
            self.act(self.script.give, Recalled(number, self.stuck.pop(number)))
            return
        [at] = [at for at, run in enumerate(self.runs) if run.number == number]
        run = self.runs[at]
        count = self.draw.randrange(len(run.records))
        self.runs[at] = structs.replace(run, records=run.records[: len(run.records) - count])
        self.act(self.script.give, Recalled(number, count))

    # Events.

    def step(self) -> None:
        choices = [self.pass_time]
        if self.runs:
            choices += [self.work] * 4
        if self.orders:
            choices += [self.obey] * 4
        if not self.is_calm and self.draw.random() < 0.02:
            choices = [self.kill, self.stop, *([self.rebalance] if self.is_rough else [])]
        self.draw.choice(choices)()
        if self.is_over:
            self.be_born()

    def pass_time(self) -> None:
        script = self.script
        at = script.timers.next_at()
        wait_ms = self.draw.randrange(1, 40)
        if at is not None and (self.is_calm or at <= script.now + wait_ms):
            self.act(script.after, max(0, at - script.now))
        elif not self.is_calm:
            script.now += wait_ms

    def work(self) -> None:
        run = self.draw.choice(self.runs)
        done = 0
        published: dict[int, tuple[Publication, ...]] = {}
        for record in run.records:
            tp = ((record.topic, record.partition), record.offset)
            attempt = run.attempt if done == 0 else 1
            self.tries[tp] = self.tries.get(tp, 0) + 1
            what = self.poison.get(tp, "")
            if what == "kills":
                self.die(tp, attempt, run)
                return
            if what == "hangs":
                self.prior_attempt(tp, attempt, "timed out")
                self.runs = [each for each in self.runs if each is not run]
                self.hang(run, done, published)
                return
            self.runs = [each for each in self.runs if each is not run or record is not run.records[-1]]
            if self.releases.get(tp):
                self.releases[tp] -= 1
                what = "releases"
                self.tries[tp] -= self.delivery != "at-most-once"
            if what in VERDICTS:
                verdict = VERDICTS[what]
                self.runs = [each for each in self.runs if each is not run]
                self.prior_attempt(tp, attempt - (verdict == "released"), verdict)
                failure = Failure("ValueError: no")
                self.act(
                    self.script.give, HandlerReturned(run.number, done, failure, verdict, published=published)
                )
                return
            self.handled[tp] = self.handled.get(tp, 0) + 1
            self.finished[*tp[0], record.offset] = Finished(
                *tp[0], record.offset, run.committed, lineage=run.lineage
            )
            if self.is_exact:
                published[record.offset] = (made_of(record),)
            done += 1
            if self.draw.random() < 0.1:
                break
        self.runs = [each for each in self.runs if each is not run]
        self.act(self.script.give, HandlerReturned(run.number, done, published=published))

    def hang(self, run: Run, done: int, published: dict[int, tuple[Publication, ...]]) -> None:
        """Time out in the record after the first `done`, and perhaps return after that.

        A machine that another run makes crash ignores the timeout, but keeps the run and handles its end.
        """
        self.stuck[run.number] = len(run.records) - done - 1
        stuck = run.records[done].offset
        self.act(self.script.give, HandlerTimedOut(run.number, stuck, before=SoFar(dict(published))))
        if not self.is_over and self.draw.random() < 0.5:
            self.stuck.pop(run.number, None)
            failure = Failure("ValueError: no")
            self.act(self.script.give, HandlerReturned(run.number, done, failure, published=published))

    def die(self, tp: tuple[TopicPartition, int], attempt: int, run: Run) -> None:
        """A record alone in flight is charged; otherwise all in flight are suspect."""
        if len(self.runs) == 1:
            self.prior_attempt(tp, attempt, "killed")
            self.suspects = []
        else:
            # Such an attempt is not charged.
            self.tries[tp] -= self.delivery != "at-most-once"
            others = [each.records[0] for each in self.runs if each is not run]
            spots = [(*tp[0], tp[1]), *((each.topic, each.partition, each.offset) for each in others)]
            self.suspects = [Suspect(*spot, lineage=self.lineage(spot[:2])) for spot in spots]
        self.be_born()

    def prior_attempt(self, tp: tuple[TopicPartition, int], attempt: int, cause: Cause) -> None:
        key, offset = tp
        self.prior_attempts[tp] = PriorAttempt(*key, offset, attempt, cause, lineage=self.lineage(key))

    def obey(self) -> None:
        """Perform the first order of one thread: the consumer's, or the dead-letter publisher's."""
        letters = [isinstance(order, PublishDeadLetter) for order in self.orders]
        firsts = {letters.index(kind) for kind in (True, False) if kind in letters}
        self.perform(self.orders.pop(self.draw.choice(sorted(firsts))))

    def perform(self, order: object) -> None:
        match order:
            case Poll():
                found = self.fetch()
                self.act(self.script.give, RecordsPolled(found, *self.read_ahead(found)))
            case Commit(offsets=offsets):
                self.script.commit = order
                if not self.is_calm and self.draw.random() < 0.1:
                    self.act(self.script.refused)
                elif self.is_rough and not self.is_calm and self.is_exact and self.draw.random() < 0.1:
                    # An output topic has since been deleted.
                    self.script.commit = None
                    self.act(self.script.give, CommitRefused(offsets, "UNKNOWN_TOPIC", is_spoiled=True))
                elif not self.is_calm and self.is_exact and self.draw.random() < 0.05:
                    if self.draw.random() < 0.5:
                        self.commit(order)
                    self.act(self.script.uncertain)
                else:
                    self.commit(order)
                    self.script.commit = None
                    self.act(self.script.give, Committed(offsets))
            case PublishDeadLetter(dead_letter=letter):
                headers = letter.headers
                key = (headers["dead-letter-topic"], int(headers["dead-letter-partition"]))
                self.script.publish_dead_letter = order
                if not self.is_calm and self.draw.random() < 0.3:
                    self.act(self.script.dead_letter_failed)
                elif self.is_exact:
                    value = f"{key[1]}:{headers['dead-letter-offset']}".encode()
                    self.script.publish_dead_letter = None
                    self.act(
                        self.script.give, DeadLetterPublished(order.lane, (Publication(letter.topic, value),))
                    )
                else:
                    self.dead_lettered.add((key, int(headers["dead-letter-offset"])))
                    self.act(self.script.dead_lettered)
            case Leave():
                self.commit_last(order)
                self.act(self.script.left)

    def fetch(self) -> list[FakeMessage]:
        found: list[FakeMessage] = []
        for key in sorted(self.assigned - self.paused):
            end = min(RECORDS, self.position[key] + self.draw.randrange(1, 6))
            found += [
                FakeMessage(*key, offset, b"key" if self.concurrency == 1 else self.key_of(offset))
                for offset in range(self.position[key], end)
            ]
            self.position[key] = max(self.position[key], end)
        return found

    def key_of(self, offset: int) -> bytes | None:
        return None if offset % 7 == 0 else b"key %d" % (offset % 7)

    def read_ahead(
        self, found: list[FakeMessage]
    ) -> tuple[dict[TopicPartition, Ahead], dict[TopicPartition, bytes]]:
        new = self.fresh & {(record.topic, record.partition) for record in found}
        self.fresh -= new
        ahead = {key: self.ahead[key] for key in new if key in self.ahead}
        return ahead, {key: self.lineage(key) for key in new}

    def commit_last(self, order: HandOver | Leave) -> None:
        """Commit, and lose the answer."""
        if self.is_calm or not self.is_exact or self.draw.random() < 0.9:
            self.commit(order)

    def commit(self, order: Commit | HandOver | Leave) -> None:
        self.dead_lettered.update(
            (("A", int(partition)), int(offset))
            for each in order.outputs
            if each.topic == "A.dlq"
            for partition, offset in [each.value.decode().split(":")]
        )
        for key, offset in order.offsets.items():
            assert offset >= self.committed[key], "a commit never goes back"
            self.ahead[key] = from_metadata(offset, order.metadata.get(key, ""))
            if self.delivery != "at-most-once":
                beyond = [at for first, end in self.ahead[key].ranges for at in range(first, end)]
                for tp in ((key, at) for at in [*range(self.committed[key], offset), *beyond]):
                    assert tp in self.handled or tp in self.dead_lettered, f"committed unhandled: {tp}"
            self.committed[key] = offset
        self.published += [each.value.decode() for each in order.outputs]
        if self.is_exact:
            self.check_published()

    def check_published(self) -> None:
        """Check for one output for each record marked as done, and for no other."""
        said = {f"{key[1]}:{at}" for key, offset in self.committed.items() for at in range(offset)}
        for key, ahead in self.ahead.items():
            said |= {f"{key[1]}:{at}" for first, end in ahead.ranges for at in range(first, end)}
        assert len(self.published) == len(set(self.published)), "twice"
        assert set(self.published) == said

    def kill(self) -> None:
        """SIGKILL from outside: a record in flight is charged."""
        if self.runs and not self.is_rough:
            return
        if self.runs:
            run = self.runs[0]
            tp = ((run.records[0].topic, run.records[0].partition), run.records[0].offset)
            self.tries[tp] = self.tries.get(tp, 0) + 1
            self.die(tp, run.attempt, run)
            return
        self.be_born()

    def stop(self) -> None:
        incarnation = self.incarnations
        self.act(self.script.stop)
        for _ in range(10_000):
            if self.is_over or self.incarnations != incarnation:
                return
            if self.runs:
                self.work()
            elif self.orders:
                self.obey()
            else:
                self.pass_time()
        raise AssertionError("does not stop")

    def rebalance(self) -> None:
        """Inside a poll, as the consumer does it: a partition goes, and comes back from its committed offset."""
        if self.orders[:1] != [Poll()]:
            return
        key = ("A", self.draw.randrange(PARTITIONS))
        incarnation = self.incarnations
        if self.draw.random() < 0.3:
            self.act(self.script.lost, key[1])
        else:
            self.let_go = None
            self.act(self.script.revoking, key[1])
            while self.let_go is None:
                self.draw.choice(
                    [self.pass_time, self.work] if self.runs else [self.pass_time, self.send_letters]
                )()
                if self.incarnations != incarnation or self.is_over:
                    return
            self.commit_last(self.let_go)
        self.position[key] = self.committed[key]
        self.paused.discard(key)
        self.fresh.add(key)

    def send_letters(self) -> None:
        """Publish dead letters while the consumer waits."""
        for order in self.orders:
            if isinstance(order, PublishDeadLetter):
                self.orders.remove(order)
                self.perform(order)
                return

    @property
    def is_finished(self) -> bool:
        return all(offset == RECORDS for offset in self.committed.values()) and not self.runs


@pytest.mark.parametrize("concurrency", [1, 2, 8])
@pytest.mark.parametrize("delivery", ["at-least-once", "at-most-once", "exactly-once"])
def test_random_histories(delivery: str, concurrency: int, seed: int) -> None:
    for history in range(60 if is_exploring() else 6):
        world = World(seed + history, delivery, is_rough=history % 2 == 0, concurrency=concurrency)
        for _ in range(STEPS):
            if world.is_finished:
                break
            world.step()
        world.is_calm = True
        for _ in range(STEPS):
            if world.is_finished and not world.orders[1:]:
                break
            world.step()
        check(world)


def check(world: World) -> None:
    assert world.is_finished, f"stuck: {world.committed}"
    tps = [(key, offset) for key in world.committed for offset in range(RECORDS)]
    if world.delivery != "at-most-once":
        missing = [tp for tp in tps if tp not in world.handled and tp not in world.dead_lettered]
        assert missing == []
        assert all(tp in world.dead_lettered for tp in world.poison)
        # A lost partition takes its count with it, and so does a kill from outside in an earlier record.
        if not world.is_rough:
            often = {tp: (world.tries[tp], world.poison[tp]) for tp in world.poison}
            assert all(tries <= RETRIES + 1 for tries, _ in often.values()), f"tried too often: {often}"
    else:
        assert all(count == 1 for count in world.tries.values()), "at most once"

"""A whole broker and its clients in one process, from one seed: the actors, the faults, and the guarantees.

    0 s to ~5 s     producers publish, groups consume, actors and clients die, freeze, are slow, run out of disk
    then            no more faults: within LIVENESS_US everything is answered, owned and delivered
    at the end      consumers leave, the logs are checked (`simulator_checks.py`)

`simulate(seed)` is the whole interface. The same seed gives the same run, event by event, with the same fingerprint.
"""

from collections.abc import Callable
from dataclasses import dataclass

from planaria.transport.client.options import ConsumerOptions, ProducerOptions
from planaria.transport.protocol.groups import CommitOffsets, CommitOffsetsReply, PartitionOffset
from planaria.transport.protocol.topics import CreateTopic, DescribeTopicReply
from simulator_actors import ActorHost, Disks, replacing_the_world
from simulator_checks import Checks, GroupWatch
from simulator_clients import ClientHost, Sender, SimulatedConsumer, SimulatedProducer
from simulator_network import Network
from simulator_supervisor import SimulatedSupervisor
from simulator_transactions import ATOMIC, AtomicChecks, SimulatedTransactor
from simulator_workers import WORKERS, JobChecks, SimulatedWorker
from simulator_world import MS, SECOND, Violation, World

ATOMIC_PARTITIONS = 2
LIVENESS_US = 90 * SECOND
EXIT_FLUSH_US = 60 * SECOND
MAX_AHEAD_MS = 3_600_000
"""Maximum advance of a record over the broker's clock: `max_timestamp_ahead_ms`."""
MAX_TICKETS = 20
"""Maximum of pending requests in the gateway after all clients have left: a few parked polls of each client."""


@dataclass
class Report:
    """Activity of a run, to show that it did something."""

    seed: int
    fingerprint: str
    events: int
    acknowledged: int
    delivered: int
    jobs: int
    deaths: int
    sleeps: int
    wakes: int
    simulated_s: float


class SimulationFailed(AssertionError):
    """A guarantee was violated under this seed."""


class Simulation:
    def __init__(self, seed: int, *, has_transactions: bool = False) -> None:
        self.world = world = World(seed)
        self.network = Network(world)
        self.disks = Disks()
        self.checks = Checks(world, self.disks)
        self.is_quiet = False
        self.deaths = 0
        self.restart_max_us = world.random.choice([5 * MS, 100 * MS, 1_500 * MS])
        self.supervisor = SimulatedSupervisor(
            world, self.network, self.disks, self.checks, self._restart_delay_us
        )
        self.session_timeout_ms = world.random.choice([1_500, 3_000, 6_000])
        self.topics = {"ORDERS": world.between(1, 4)}
        if world.chance(0.4):
            self.topics["PAYMENTS"] = world.between(1, 2)
        self.groups = ["billing", "audit"][: world.between(1, 2)]
        self.chaos_us = world.between(2_500, 6_000) * MS
        self.producers: list[SimulatedProducer] = []
        self.consumers: list[SimulatedConsumer] = []
        self.readers: list[SimulatedConsumer] = []
        self.transactors: list[SimulatedTransactor] = []
        self.committed_readers: list[SimulatedConsumer] = []
        self.atomic = AtomicChecks(self.disks) if has_transactions else None
        self.jobs = JobChecks(self.disks)
        self.workers: list[SimulatedWorker] = []
        self._names = 0
        self._expected = 0
        """Consumers still to come."""

    def _restart_delay_us(self) -> int:
        return self.world.between(0, self.restart_max_us)

    def run(self) -> Report:
        world = self.world
        try:
            with replacing_the_world(world, self.network):
                self._run()
        except Exception as error:
            lines = "\n".join(world.trace())
            at_s = world.now_us / SECOND
            raise SimulationFailed(
                f"seed {world.seed}, at {at_s:.6f} s: {type(error).__name__}: {error}\n"
                f"replay: python -m pytest tests/simulation --simulation-seed {world.seed}\n"
                f"the last events:\n{lines}"
            ) from error
        finally:
            world.end()
        return Report(
            seed=world.seed,
            fingerprint=world.fingerprint,
            events=world.events,
            acknowledged=self.checks.acknowledged_count,
            delivered=sum(len(offsets) for offsets in self.checks.delivered.values()),
            jobs=self.jobs.deliveries,
            deaths=self.deaths,
            sleeps=self.supervisor.sleeps,
            wakes=self.supervisor.wakes,
            simulated_s=world.now_us / SECOND,
        )

    def _run(self) -> None:
        self._populate()
        self._plan_faults()
        self.world.run(self.chaos_us)
        self._end_faults()
        if not self.world.run(self.world.now_us + LIVENESS_US, self._is_converged):
            raise Violation(
                f"not everything came back within {LIVENESS_US // SECOND} s: {self._what_is_missing()}"
            )
        self._flush_at_exit()
        self.checks.check_logs()
        if self.atomic is not None:
            self.atomic.check()

    # Actors and clients.

    def _client(self, kind: str) -> ClientHost:
        self._names += 1
        is_local = self.world.chance(0.6)
        return ClientHost(self.world, self.network, f"{kind}{self._names}", is_local=is_local)

    def _populate(self) -> None:
        world = self.world
        idle_ms = [world.random.choice([0, 0, 100, 400, 2_000]) for _ in range(2)]
        self.supervisor.start(*idle_ms)
        Sender(self._client("admin"), self._create_topics)
        for group in self.groups:
            self.checks.groups[group] = GroupWatch(self.session_timeout_ms)
            for number in range(world.between(1, 3)):
                instance = f"{group}-{number}" if world.chance(0.3) else None
                self._expect_member(world.between(0, 1_500) * MS, group, instance)
        for _ in range(world.between(0, 1)):
            self.readers.append(self._consumer("reader", None, self._options(None)))
        for _ in range(world.random.choice([0, 0, 1, 2, 3])):
            self._expected += 1
            world.after(world.between(0, 1_500) * MS, self._add_worker)
        self._add_producer()
        for _ in range(world.between(0, 2)):
            world.after(world.between(0, self.chaos_us // 2), self._add_producer)
        Sender(self._client("ghost"), self._commit_as_others)
        if self.atomic is not None:
            self._add_transactors(self.atomic)

    def _create_topics(self, sender: Sender) -> None:
        atomic = {} if self.atomic is None else {ATOMIC: ATOMIC_PARTITIONS}
        for topic, partitions in [*self.topics.items(), *atomic.items()]:
            request = CreateTopic(topic=topic, partitions=partitions, if_not_exists=True)
            if sender.ask(request, DescribeTopicReply, timeout_ms=120_000) == "refused":
                raise Violation(f"{topic} could not be created")

    def _commit_as_others(self, sender: Sender) -> None:
        """Simulate a replaced member that wakes up and commits its old position."""
        while True:
            sender.sleep(self.world.between(100, 900) * MS)
            group = self.world.random.choice(self.groups)
            superseded = self.checks.groups[group].superseded
            if not superseded:
                continue
            member, generation, (topic, partition) = self.world.random.choice(superseded)
            offsets = [PartitionOffset(topic, partition, 0)]
            request = CommitOffsets(group=group, offsets=offsets, member_id=member, generation=generation)
            if sender.ask(request, CommitOffsetsReply, timeout_ms=5_000) != "refused":
                raise Violation(f"{member} of generation {generation} may commit {topic}/{partition} still")

    def _options(self, instance: str | None) -> ConsumerOptions:
        world = self.world
        return ConsumerOptions(
            auto_offset_reset="earliest",
            auto_commit_interval_ms=world.random.choice([0, 150, 600]),
            session_timeout_ms=self.session_timeout_ms,
            max_poll_interval_ms=60_000,
            fetch_max_wait_ms=world.random.choice([300, 1_000]),
            fetch_max_bytes=world.random.choice([300, 2_000]),
            prefetch_bytes=world.random.choice([600, 10_000]),
            instance_id=instance,
            request_timeout_ms=world.random.choice([3_000, 30_000]),
        )

    def _consumer(self, kind: str, group: str | None, options: ConsumerOptions) -> SimulatedConsumer:
        think_us = self.world.random.choice([2 * MS, 20 * MS, 200 * MS])
        return SimulatedConsumer(
            self._client(kind),
            self.checks,
            group=group,
            topics=list(self.topics),
            options=options,
            think_us=think_us,
        )

    def _expect_member(self, delay_us: int, group: str, instance: str | None) -> None:
        self._expected += 1
        self.world.after(delay_us, self._add_member, group, instance)

    def _add_member(self, group: str, instance: str | None) -> None:
        self._expected -= 1
        self.consumers.append(self._consumer(group, group, self._options(instance)))

    def _add_worker(self) -> None:
        self._expected -= 1
        world = self.world
        worker = SimulatedWorker(
            self._client("worker"),
            self.jobs,
            list(self.topics),
            lock_ms=world.random.choice([300, 1_000, 5_000]),
            think_us=world.random.choice([1 * MS, 5 * MS, 50 * MS, 500 * MS]),
            is_quiet=lambda: self.is_quiet,
            incarnation=self._workers_incarnation,
        )
        self.workers.append(worker)

    def _workers_incarnation(self) -> int:
        child = self.supervisor.children.get(f"coordinator/{WORKERS}")
        return 0 if child is None else child.incarnation

    def _add_producer(self) -> None:
        world = self.world
        producer = SimulatedProducer(
            self._client("producer"),
            self.checks,
            delivery_timeout_ms=world.random.choice([2_000, 60_000]),
            request_timeout_ms=world.random.choice([300, 2_000, 20_000]),
        )
        self.producers.append(producer)
        self._publish_some(producer, world.random.choice([30 * MS, 80 * MS, 200 * MS]))

    def _publish_some(self, producer: SimulatedProducer, pace_us: int) -> None:
        world = self.world
        if world.now_us >= self.chaos_us:
            return
        topic = world.random.choice(list(self.topics))
        lane = (topic, world.between(0, self.topics[topic] - 1))
        for _ in range(world.between(1, 4) if world.chance(0.9) else 10):
            producer.publish(lane, world.between(1, 3))
        world.after(world.between(pace_us // 2, 3 * pace_us), self._publish_some, producer, pace_us)

    def _add_transactors(self, checks: AtomicChecks) -> None:
        world = self.world
        options = self._options(None)
        reader = SimulatedConsumer(
            self._client("reader"), checks, group=None, topics=[ATOMIC], options=options, think_us=20 * MS
        )
        self.committed_readers.append(reader)
        for number in range(world.between(1, 3)):
            self._add_transactor(f"id-{number}")
        for _ in range(world.between(0, 3)):
            world.after(world.between(500 * MS, self.chaos_us), self._replace_transactor)

    def _add_transactor(self, transactional_id: str) -> None:
        world = self.world
        assert self.atomic is not None
        options = ProducerOptions(
            transactional_id=transactional_id,
            transaction_timeout_ms=world.random.choice([500, 3_000]),
            delivery_timeout_ms=world.random.choice([1_000, 20_000]),
            request_timeout_ms=world.random.choice([500, 5_000]),
        )
        client = self._client("transactor")
        self.transactors.append(
            SimulatedTransactor(client, self.atomic, options, ATOMIC_PARTITIONS, self.chaos_us)
        )

    def _replace_transactor(self) -> None:
        """Start a second program with the id of one that is killed, or goes on and must be fenced."""
        victim = self.world.random.choice(self.transactors)
        if self.world.chance(0.5) and victim.host.is_alive:
            self.deaths += 1
            victim.kill()
        self._add_transactor(victim.transactional_id)

    # Faults.

    def _plan_faults(self) -> None:
        kinds: list[Callable[[], None]] = [
            self._crash_in_a_turn,
            self._kill,
            self._freeze,
            self._slow_down,
            self._fill_disk,
            self._kill_several,
            self._end_client,
            self._end_worker,
            self._freeze_client,
            self._close_consumer,
            self._leave_together,
            self._step_a_clock,
            self._step_all_clocks,
            self._boot,
        ]
        weights = [6, 2, 2, 2, 1, 1, 2, 2, 1, 1, 2, 2, 2, 1]
        for _ in range(self.world.between(0, 14)):
            fault = self.world.random.choices(kinds, weights)[0]
            self.world.after(self.world.between(0, self.chaos_us), self._break, fault)

    def _break(self, fault: Callable[[], None]) -> None:
        if not self.is_quiet:
            self.world.note("fault", fault.__name__.strip("_"))
            fault()

    def _victim(self) -> ActorHost | None:
        alive = [host for host in self.supervisor.actors() if host.is_alive]
        return self.world.random.choice(alive) if alive else None

    def _crash_in_a_turn(self) -> None:
        victim = self._victim()
        if victim is not None:
            self.deaths += 1
            victim.doom = self.world.between(0, 60)

    def _kill(self) -> None:
        victim = self._victim()
        if victim is not None:
            self.deaths += 1
            self.supervisor.kill(victim)

    def _kill_several(self) -> None:
        for host in self.supervisor.actors():
            if host.is_alive and self.world.chance(0.5):
                self.deaths += 1
                self.supervisor.kill(host)

    def _freeze(self) -> None:
        victim = self._victim()
        if victim is not None and not victim.is_frozen:
            duration_us = self.world.random.choice([100 * MS, 1_000 * MS, 4_000 * MS, 9_000 * MS])
            self.supervisor.freeze(victim, duration_us)

    def _slow_down(self) -> None:
        victim = self._victim()
        if victim is not None:
            until_us = self.world.now_us + self.world.between(100, 2_000) * MS
            self.network.slow_down(victim, self.world.random.choice([2 * MS, 50 * MS, 600 * MS]), until_us)

    def _fill_disk(self) -> None:
        self.disks.full_until = self.world.now_us + self.world.between(20, 1_500) * MS

    def _step_a_clock(self) -> None:
        """Change the time of day of one process, and of its later incarnations."""
        victim = self._victim()
        if victim is not None:
            self.world.clocks.wall_of_ms[victim.address] = self._step_ms()

    def _step_all_clocks(self) -> None:
        self.world.clocks.wall_ms += self._step_ms()

    def _boot(self) -> None:
        """Cut the power of the machine; it returns with another time of day."""
        for host in self.supervisor.actors():
            if host.is_alive:
                self.deaths += 1
                self.supervisor.kill(host)
        self.world.clocks.boot(self.world.clocks.wall_ms + self._step_ms())
        # Its clients are other machines: for a broker whose clock is hours slow, their records are hours ahead.
        self.checks.may_refuse_times |= self.world.clocks.steady_ms < -MAX_AHEAD_MS

    def _step_ms(self) -> int:
        hours = self.world.random.choice([-30 * 24, -5, -2, -0.01, 0.01, 2, 5, 30 * 24])
        return int(hours * 3_600_000)

    def _end_client(self) -> None:
        """Kill a consumer; sooner or later its successor starts."""
        if self.consumers:
            victim = self.consumers.pop(self.world.between(0, len(self.consumers) - 1))
            self.deaths += 1
            victim.kill()
            self._add_successor(victim)

    def _end_worker(self) -> None:
        """Kill or close a worker; sooner or later its successor starts."""
        if self.workers:
            victim = self.workers.pop(self.world.between(0, len(self.workers) - 1))
            if self.world.chance(0.5):
                self.deaths += 1
                victim.kill()
            else:
                victim.is_closing = True
            self._expected += 1
            self.world.after(self.world.between(1, 3_000) * MS, self._add_worker)

    def _close_consumer(self) -> None:
        if self.consumers:
            victim = self.consumers.pop(self.world.between(0, len(self.consumers) - 1))
            victim.is_closing = True
            self._add_successor(victim)

    def _leave_together(self) -> None:
        """Close all consumers of a group: its coordinator may fall asleep until their successors come."""
        group = self.world.random.choice(self.groups)
        for consumer in [each for each in self.consumers if each.group == group]:
            self.consumers.remove(consumer)
            consumer.is_closing = True
            self._add_successor(consumer)

    def _add_successor(self, before: SimulatedConsumer) -> None:
        assert before.group is not None
        delay_us = self.world.between(1, 3_000) * MS
        if before.options.instance_id is not None:
            # The successor ends its predecessor first, however long it takes to close: of two, the later to join would
            # stay.
            self.world.after(delay_us, self._end, before)
        self._expect_member(delay_us, before.group, before.options.instance_id)

    def _end(self, consumer: SimulatedConsumer) -> None:
        if consumer.host.is_alive:
            consumer.kill()

    def _freeze_client(self) -> None:
        hosts = [each.host for each in [*self.consumers, *self.producers, *self.workers]]
        if hosts:
            host = self.world.random.choice(hosts)
            host.freeze()
            self.world.after(self.world.between(50, 2 * self.session_timeout_ms) * MS, host.thaw)

    def _end_faults(self) -> None:
        self.world.note("quiet", "nothing breaks any more")
        self.is_quiet = True
        self.disks.full_until = 0
        for host in self.supervisor.actors():
            host.doom = None

    # Required recoveries.

    def _is_converged(self) -> bool:
        return self._what_is_missing() is None

    def _what_is_missing(self) -> str | None:
        if self._expected:
            return f"{self._expected} consumers that will come"
        if not self.supervisor.is_settled:
            return f"not ready: {[name for name, child in self.supervisor.children.items() if not child.is_ready]}"
        for producer in self.producers:
            if producer.pending:
                return f"{producer.host.name} has {producer.pending} batches without an outcome"
        for group in self.groups:
            missing = self._missing_of(group) or self.checks.undelivered(group, list(self.topics))
            if missing is not None:
                return missing
        if self.workers and (missing := self.jobs.undone(self.topics)) is not None:
            return missing
        for reader in self.readers:
            missing = self.checks.undelivered(reader.host.name, list(self.topics))
            if missing is not None:
                return missing
        if self.atomic is not None:
            for transactor in self.transactors:
                if transactor.host.is_alive and not transactor.program.is_over:
                    return f"{transactor.host.name} is {transactor.transacting.state}"
            if not self.atomic.is_settled():
                return "transactions are open, or not read"
        return None

    def _missing_of(self, group: str) -> str | None:
        members = [each for each in self.consumers if each.group == group and each.host.is_alive]
        if not members:
            return f"{group} has no members yet"
        tps = {(topic, number) for topic, count in self.topics.items() for number in range(count)}
        owned = [tp for member in members for tp in sorted(member.owned)]
        if sorted(owned) != sorted(tps):
            return f"{group} owns {sorted(owned)} of {sorted(tps)}"
        return None

    def _flush_at_exit(self) -> None:
        consumers = [*self.consumers, *self.readers, *self.committed_readers, *self.workers]
        for consumer in consumers:
            consumer.is_closing = True

        clients = [*self.producers, *self.transactors, *consumers]

        def have_left() -> bool:
            are_over = all(consumer.program.is_over for consumer in consumers)
            is_idle = self._count_tickets() <= MAX_TICKETS
            return (
                are_over
                and is_idle
                and not any(client.host.open_asks for client in clients if client.host.is_alive)
            )

        if not self.world.run(self.world.now_us + EXIT_FLUSH_US, have_left):
            staying = {client.host.name: client.host.open_asks for client in clients}
            raise Violation(f"questions that nobody ends: {staying}, {self._count_tickets()} at the gateway")

    def _count_tickets(self) -> int:
        """Return the number of pending requests in the gateway."""
        gateways = [host for host in self.supervisor.actors() if host.address == "gateway/0"]
        return sum(len(host.actor.machine._tickets) for host in gateways)  # type: ignore[attr-defined]


def simulate(seed: int, *, has_transactions: bool = False) -> Report:
    """Run the world of this seed. Raises SimulationFailed with the command to repeat it and the last events."""
    return Simulation(seed, has_transactions=has_transactions).run()

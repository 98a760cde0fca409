"""Programs that publish in transactions in a simulation, and the check that each of them took effect whole or not at all.

The decisions are the product's (`Transacting`, `Producing`), and so is the consumer that reads committed records. A
program may be killed at any moment; its successor has the same transactional id.

at the end      each transaction has the outcome answered to its program, in every partition; one whose outcome is
                unknown is there whole or not at all; a marker is the last of its transaction; all partitions agree on
                the outcome; the consumer has read each committed record once, in order, and no other
"""

from collections import defaultdict
from typing import Any, Literal

from msgspec import Struct, structs

from planaria.transport.addresses import TopicPartition
from planaria.transport.batch import TRANSACTIONAL, decode_records, is_commit
from planaria.transport.calls.events import Submitted
from planaria.transport.calls.retry import RetryPolicy
from planaria.transport.client.errors import TransactionAborted, error_from
from planaria.transport.client.lanes import Outcome, ProducerIdentity, Transmit
from planaria.transport.client.options import ProducerOptions
from planaria.transport.client.producing import Producing
from planaria.transport.client.transacting import Transacting
from planaria.transport.machine import Answered, Call, CancelTimer, Effect, Event, Failed, SetTimer
from planaria.transport.protocol.errors import ErrorBody, ErrorCode, PlanariaError, ProtocolError
from planaria.transport.protocol.message import Reply
from simulator_actors import Disks
from simulator_clients import Batch, ClientHost, SimulatedProducer, Waiter
from simulator_world import MS, Program, Violation

ATOMIC = "ATOMIC"
"""The topic that only transactions are written to."""
_END = "end"

Fate = Literal["open", "committed", "aborted"]


class Attempted(Struct):
    """One transaction, as its program knows it. Without an answer its fate stays open."""

    values: list[bytes] = []
    fate: Fate = "open"


class _Concluded(Struct):
    waiter: Waiter


class _Dropped(Struct):
    pass


class AtomicChecks:
    def __init__(self, disks: Disks) -> None:
        self._disks = disks
        self.attempted: list[Attempted] = []
        self._delivered: dict[tuple[str, int], list[bytes]] = defaultdict(list)

    def on_delivered(
        self, name: str, reader: str, tp: tuple[str, int], epoch: int, offset: int, value: bytes
    ) -> None:
        self._delivered[tp].append(value)

    def committed(self) -> dict[tuple[str, int], list[bytes]] | None:
        """Return the committed values of each partition in order; None while a transaction is open in one."""
        found: dict[tuple[str, int], list[bytes]] = {}
        outcomes: dict[tuple[int, int], bool] = {}
        for tp, disk in self._partitions():
            written: dict[tuple[int, int], list[bytes]] = {}
            ended: dict[tuple[int, int], bool] = {}
            order: list[tuple[tuple[int, int], bytes]] = []
            for header, frame in disk.batches:
                key = (header.producer_id, header.producer_epoch)
                if not header.is_control:
                    if key in ended:
                        raise Violation(f"{tp} {header.base_offset} is written after the end of {key}")
                    values = [value for _, value, _, _ in decode_records(frame, header) if value is not None]
                    written.setdefault(key, []).extend(values)
                    order += [(key, value) for value in values]
                    continue
                is_committed = is_commit(header)
                ended.setdefault(key, is_committed)
                if outcomes.setdefault(key, is_committed) != is_committed:
                    raise Violation(f"{key} is committed and aborted")
            if written.keys() - ended.keys():
                return None
            found[tp] = [value for key, value in order if ended[key]]
        return found

    def is_settled(self) -> bool:
        committed = self.committed()
        return committed is not None and all(
            len(self._delivered[tp]) >= len(values) for tp, values in committed.items()
        )

    def check(self) -> None:
        committed = self.committed()
        assert committed is not None
        for tp, values in committed.items():
            if self._delivered[tp] != values:
                raise Violation(f"{tp} was read as {self._delivered[tp]}, committed is {values}")
        there = [value for values in committed.values() for value in values]
        if len(there) != len(set(there)):
            raise Violation("a value is committed twice")
        for each in self.attempted:
            seen = len(set(there).intersection(each.values))
            allowed = {"open": (0, len(each.values)), "committed": (len(each.values),), "aborted": (0,)}
            if seen not in allowed[each.fate]:
                raise Violation(f"{each.fate}: {seen} of {each.values} are committed")

    def _partitions(self) -> list[tuple[tuple[str, int], Any]]:
        named = [(name.rpartition("/"), disk) for name, disk in self._disks.partitions.items()]
        return [((topic, int(number)), disk) for (topic, _, number), disk in named if topic == ATOMIC]


class SimulatedTransactor(SimulatedProducer):
    """A program with one transactional producer, which commits or aborts one transaction after the other."""

    attributes = TRANSACTIONAL

    def __init__(
        self,
        host: ClientHost,
        checks: AtomicChecks,
        options: ProducerOptions,
        partitions: int,
        until_us: int,
    ) -> None:
        self.host = host
        self.transacting = Transacting(options)
        self.machine = Producing(
            acks="all",
            delivery_timeout_ms=options.delivery_timeout_ms,
            request_timeout_ms=options.request_timeout_ms,
            retry=RetryPolicy(),
            jitter=host.world.random.random,
            is_transactional=True,
            topic_id_of=host.topics.topic_id,
        )
        self._atomic = checks
        self._request_timeout_ms = options.request_timeout_ms
        self._partitions = partitions
        self._until_us = until_us
        self._concluded: Waiter | None = None
        self._count = 0
        self.program = Program(host.world, self._run, host)

    @property
    def transactional_id(self) -> str:
        return self.transacting.transactional_id

    def kill(self) -> None:
        self.host.kill()
        self.program.kill()

    # The program's side.

    def _run(self) -> None:
        world = self.host.world
        while world.now_us < self._until_us:
            if self._claim():
                self._transact()
            if self.transacting.state == "fenced":
                return
            self._sleep(world.between(1, 100) * MS)

    def _sleep(self, duration_us: int) -> None:
        program = self.host.world.current_program
        assert program is not None
        program.sleep(duration_us)

    def _claim(self) -> bool:
        call = self.transacting.claim()
        if call is None:
            return True
        waiter = Waiter(self.host.world)
        self.host.post(self.host.owner, Submitted(waiter, call))
        try:
            self.transacting.on_claimed(_reply(waiter))
        except ProtocolError as error:
            self.transacting.on_claim_failed(error)
            return False
        return True

    def _transact(self) -> None:
        world = self.host.world
        identity = self.transacting.begin()
        self.host.post(self, identity)
        attempted = Attempted()
        self._atomic.attempted.append(attempted)
        for _ in range(world.between(0, 4)):
            lane = TopicPartition(ATOMIC, world.between(0, self._partitions - 1))
            self._count += 1
            value = f"{self.host.name}:{self._count}".encode()
            attempted.values = [*attempted.values, value]
            self.host.post(self, Batch(lane, [value], self.host.now_ms()))
            if world.chance(0.3):
                self._sleep(world.between(1, 50) * MS)
        is_commit = world.chance(0.8)
        self.transacting.end(is_commit=is_commit)
        if not is_commit:
            self.host.post(self, _Dropped())
        waiter = Waiter(world)
        self.host.post(self, _Concluded(waiter))
        try:
            try:
                reply = _reply(waiter)
            except ProtocolError as error:
                raise self.transacting.on_end_failed(error) from None
            self.transacting.on_ended(reply)
            attempted.fate = "committed" if is_commit else "aborted"
        except TransactionAborted:
            attempted.fate = "aborted"
        except PlanariaError as error:
            world.note("open", self.host.name, str(error)[:60])

    # The network's side.

    def handle(self, event: Event, now: int) -> list[Effect]:
        effects = self._on_event(event, now)
        waiter = self._concluded
        if waiter is not None and not self.machine.pending:
            self._concluded = None
            call = self.transacting.end_call()
            assert call is not None
            effects.append(structs.replace(call, key=(_END, waiter)))
        return effects

    def _on_event(self, event: Event, now: int) -> list[Effect]:
        match event:
            case Answered(key=(first, waiter)) | Failed(key=(first, waiter)) if first is _END:
                waiter.handle(event, now)
                return []
            case _Concluded(waiter=waiter):
                self._concluded = waiter
                return []
            case _Dropped():
                error = ErrorBody(ErrorCode.TRANSACTION_ABORTED, "the transaction was aborted")
                return self._perform(self.machine.abandon(error))
            case Batch():
                return self._perform(self.machine.put(event.lane, event, now))
            case Answered() | Failed():
                return self._perform(self.machine.handle(event, now))
            case ProducerIdentity():
                self.machine.adopt(event)
                return []
        return self._perform(self.machine.handle(event, now))

    def _perform(self, effects: list[Effect]) -> list[Effect]:
        left: list[Effect] = []
        for effect in effects:
            match effect:
                case Transmit():
                    left.append(self._ask(effect))
                case Outcome(lane=lane):
                    error = None if effect.error is None else error_from(effect.error)
                    self.transacting.on_done(lane, error)
                case SetTimer() | CancelTimer() | Call():
                    left.append(effect)
        return left


def _reply(waiter: Waiter) -> Any:
    waiter.is_done.wait()
    if isinstance(waiter.event, Failed):
        raise error_from(waiter.event.error)
    reply: Reply = waiter.event.reply
    return reply


__all__ = ["ATOMIC", "AtomicChecks", "SimulatedTransactor"]

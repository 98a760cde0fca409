"""Workers of a queue in a simulation: the real ShareConsumer in programs that acquire, decide and acknowledge, and the
guarantees that they see.

    an acknowledgement that `flush` has confirmed is durable       a record that was accepted so is never delivered again
    a delivery after the first one is counted durably before       a delivery that was charged is counted by the next one,
    the member has it                                              except one first delivery by death of the coordinator
    an offset has one value                                        at the end every record is done

A verdict without a confirmation may have taken effect. A release and a close return records uncharged, and a repeated
release may return a later delivery, so records that were ever released are left out of the rule about counts.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from planaria.transport.addresses import GATEWAY
from planaria.transport.batch import decode_records
from planaria.transport.client.share_consumer import ShareConsumer
from planaria.transport.client.share_messages import ShareMessage, ShareOptions
from planaria.transport.protocol.errors import PlanariaError, ProtocolError
from planaria.transport.protocol.shares import ConfigureShareGroup, ConfigureShareGroupReply
from simulator_actors import Disks
from simulator_clients import ClientHost
from simulator_world import MS, Program, Violation

WORKERS = "workers"
"""The group."""
DONE = 2
"""The state of a run of records that are done (`share/spans.py`)."""

TopicPartition = tuple[str, int]


class JobChecks:
    def __init__(self, disks: Disks) -> None:
        self.deliveries = 0
        self._disks = disks
        self._read: dict[str, int] = {}
        self._progress: dict[TopicPartition, dict[str, Any]] = {}
        self._accepted: set[tuple[TopicPartition, int]] = set()
        self._counts: dict[tuple[TopicPartition, int], int] = {}
        self._starts = 0
        self._first_at: dict[tuple[TopicPartition, int], int] = {}
        """The number of durable starts of the coordinator before the latest first delivery of a record."""
        self._released: set[tuple[TopicPartition, int]] = set()
        self._values: dict[tuple[TopicPartition, int], bytes | None] = {}

    def starts(self) -> int:
        """Return the number of durable starts of the group's coordinator."""
        self._refresh()
        return self._starts

    def on_delivered(self, worker: str, message: ShareMessage, starts: int, *, is_locked: bool) -> None:
        """Note a delivery. Without `is_locked` its lock may have ended on its way, and others have had the record.

        `starts` is that number before the worker asked for it: it may be of a coordinator that has died since.
        """
        at = ((message.topic, message.partition), message.offset)
        self.deliveries += 1
        if at in self._accepted and is_locked:
            raise Violation(f"{worker} gets {at}, which was accepted")
        if self._values.setdefault(at, message.value) != message.value:
            raise Violation(f"{worker} gets {message.value!r} at {at}, another value")
        before = self._counts.get(at, 0)
        state, deliveries = self._durable(*at)
        is_first = message.delivery_count == 1
        is_forgotten = is_first and before == 1 and self._first_at[at] < self._starts
        if message.delivery_count <= before and is_locked and at not in self._released and not is_forgotten:
            raise Violation(f"{worker} gets {at} with count {message.delivery_count} after {before}")
        if is_first:
            self._first_at[at] = starts
        if (
            state != DONE
            and deliveries < message.delivery_count
            and at not in self._released
            and not is_first
        ):
            raise Violation(
                f"{worker} gets {at} with count {message.delivery_count}, durable is {deliveries}"
            )
        self._counts[at] = max(before, message.delivery_count)

    def on_returned(self, message: ShareMessage) -> None:
        """Note that a delivery may end uncharged."""
        self._released.add(((message.topic, message.partition), message.offset))

    def on_confirmed(self, message: ShareMessage) -> None:
        """Note an acceptance that the broker has confirmed."""
        tp = (message.topic, message.partition)
        if self._durable(tp, message.offset)[0] != DONE:
            raise Violation(f"the acceptance of {tp} {message.offset} is confirmed and not durable")
        self._accepted.add((tp, message.offset))

    def undone(self, topics: dict[str, int]) -> str | None:
        """Return the first partition with records that are not done."""
        self._refresh()
        for topic, count in topics.items():
            for number in range(count):
                disk = self._disks.partitions.get(f"{topic}/{number}")
                start = self._progress.get((topic, number), {"start": 0})["start"]
                if disk is not None and start < disk.end_offset:
                    return f"{WORKERS}: {topic}/{number} is done up to {start} of {disk.end_offset}"
        return None

    def _durable(self, tp: TopicPartition, offset: int) -> tuple[int, int]:
        """Return the durable state of a record and the number of its deliveries."""
        self._refresh()
        progress = self._progress.get(tp, {"start": 0, "runs": []})
        end: int = progress["start"]
        if offset < end:
            return DONE, 0
        for count, state, deliveries, _ in progress["runs"]:
            end += count
            if offset < end:
                return state, deliveries
        return 0, 0

    def _refresh(self) -> None:
        for directory, disk in self._disks.partitions.items():
            if not directory.startswith("__offsets/"):
                continue
            for header, frame in disk.batches[self._read.get(directory, 0) : disk.durable]:
                for key, value, _, _ in decode_records(frame, header):
                    assert key is not None
                    name = msgspec.msgpack.decode(key)
                    if name == ["start", WORKERS]:
                        self._starts += 1
                    if name[0] == "share" and value is not None:
                        self._progress[name[2], name[3]] = msgspec.msgpack.decode(value)
            self._read[directory] = disk.durable


class SimulatedWorker:
    """A program around the real consumer of a share group."""

    def __init__(
        self,
        host: ClientHost,
        checks: JobChecks,
        topics: list[str],
        *,
        lock_ms: int,
        think_us: int,
        is_quiet: Callable[[], bool],
        incarnation: Callable[[], int],
    ) -> None:
        """`incarnation` returns that of the group's coordinator, which locks do not outlive."""
        self.host = host
        self.is_closing = False
        self._checks = checks
        self._topics = topics
        self._options = ShareOptions(member_id=host.name, lock_ms=lock_ms, request_timeout_ms=5_000)
        self._lock_ms = lock_ms
        self._think_us = think_us
        self._is_quiet = is_quiet
        self._incarnation = incarnation
        self._unconfirmed: dict[tuple[str, int, int], ShareMessage] = {}
        self.program = Program(host.world, self._run, host)

    def kill(self) -> None:
        self.host.kill()
        self.program.kill()

    def _run(self) -> None:
        network: Any = self.host
        world = self.host.world
        self._configure()
        consumer = ShareConsumer(network, WORKERS, self._topics, self._options)
        held: list[ShareMessage] = []
        since = self._now()
        while not self.is_closing:
            try:
                found = consumer.poll(world.random.choice([0.0, 0.05, 0.25]), world.between(1, 20))
            except ProtocolError as error:
                world.note("poll failed", self.host.name, error.code)
                self._sleep(20 * MS)
                since = self._now()
                continue
            starts, incarnation, asked_ms = since
            is_locked = self._incarnation() == incarnation and world.now_ms < asked_ms + self._lock_ms
            for message in found:
                self._checks.on_delivered(self.host.name, message, starts, is_locked=is_locked)
            world.note("jobs", self.host.name, str(len(found)))
            held += found
            self._sleep(world.between(50, self._think_us))
            held = self._decide(consumer, held)
            since = self._now()
            if world.chance(0.6):
                self._flush(consumer)
        for message in [*held, *self._unconfirmed.values()]:
            self._checks.on_returned(message)
        try:
            consumer.close()
        except ProtocolError as error:
            world.note("close failed", self.host.name, error.code)

    def _now(self) -> tuple[int, int, int]:
        """Return the coordinator's durable starts, its incarnation, and the time in milliseconds."""
        return self._checks.starts(), self._incarnation(), self.host.world.now_ms

    def _configure(self) -> None:
        """Records that fail are never dead here: every record can be accepted in the end."""
        request = ConfigureShareGroup(group=WORKERS, max_deliveries=1_000)
        while True:
            try:
                self.host.call(GATEWAY, request, ConfigureShareGroupReply, timeout_ms=30_000)
            except ProtocolError:
                self._sleep(20 * MS)
            else:
                return

    def _sleep(self, duration_us: int) -> None:
        program = self.host.world.current_program
        assert program is not None
        program.sleep(duration_us)

    def _decide(self, consumer: ShareConsumer, held: list[ShareMessage]) -> list[ShareMessage]:
        """Give verdicts on some of the messages; return the others."""
        world = self.host.world
        left: list[ShareMessage] = []
        for message in held:
            if not self._is_quiet() and world.chance(0.2):
                left.append(message)
                continue
            verdict = (
                "accept"
                if self._is_quiet()
                else world.random.choice(["accept", "accept", "accept", "fail", "release"])
            )
            if verdict == "release":
                self._checks.on_returned(message)
            try:
                consumer.acknowledge([message], verdict)  # type: ignore[arg-type]
            except PlanariaError:
                continue  # a renewal has found its lock lost
            if verdict == "accept":
                self._unconfirmed[message.topic, message.partition, message.offset] = message
        return left

    def _flush(self, consumer: ShareConsumer) -> None:
        try:
            refused = consumer.flush()
        except ProtocolError as error:
            self.host.world.note("flush failed", self.host.name, error.code)
            return
        for each in refused:
            self._unconfirmed.pop((each.topic, each.partition, each.offset), None)
        for message in self._unconfirmed.values():
            self._checks.on_confirmed(message)
        self._unconfirmed.clear()

"""The partition as a real process on a real directory: served, stopped, killed under load, locked out."""

import random
import resource
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from msgspec import UNSET

from partition_process import PROGRAM, TIMEOUT_MS, PartitionProcess
from planaria.actors.log.lock import LOCK_NAME, DirectoryLock
from planaria.transport.batch import TRANSACTIONAL, build, decode_records, split
from planaria.transport.codec import decode_reply, encode_header
from planaria.transport.producer_ids import transactional_producer_id
from planaria.transport.protocol.data import (
    Fetch,
    FetchReply,
    ListOffsets,
    ListOffsetsReply,
    Produce,
    ProduceReply,
)
from planaria.transport.protocol.errors import ErrorBody
from planaria.transport.protocol.message import Done
from planaria.transport.protocol.topics import TopicConfig
from planaria.transport.protocol.transactions import Marker, WriteMarkers

pytestmark = pytest.mark.processes


@pytest.fixture
def partition(data_dir: Path, run_dir: Path) -> Iterator[PartitionProcess]:
    with PartitionProcess(data_dir, run_dir) as process:
        yield process


def a_batch(*values: bytes, **sequencing: int) -> bytes:
    records = [(None, value, 0, None) for value in values]
    return build(records, first_timestamp_ms=1_000, max_timestamp_ms=1_000, **sequencing)


def produce(request_id: int = 1) -> Produce:
    return Produce(id=request_id, topic="ORDERS", partition=0)


def fetch(offset: int, **options: object) -> Fetch:
    return Fetch(id=2, topic="ORDERS", partition=0, offset=offset, **options)  # type: ignore[arg-type]


def test_produce_fetch_stop_and_start_again(partition: PartitionProcess) -> None:
    partition.start()
    reply, _ = partition.ask(produce(), ProduceReply, [a_batch(b"a", b"b"), a_batch(b"c")])
    assert [result.base_offset for result in reply.batches] == [0, 2]
    assert reply.high_watermark == 3
    assert partition.stop() == 0

    partition.start()
    reply, payload = partition.ask(fetch(0), FetchReply)
    assert (reply.next_offset, reply.high_watermark) == (3, 3)
    assert [(header.base_offset, header.leader_epoch) for header, _ in split(payload[0])] == [(0, 0), (2, 0)]
    reply, _ = partition.ask(produce(), ProduceReply, [a_batch(b"d")])
    assert reply.batches[0].base_offset == 3
    _, payload = partition.ask(fetch(3), FetchReply)
    assert split(payload[0])[0][0].leader_epoch == 1, "each start is an epoch of its own"
    reply, _ = partition.ask(ListOffsets(topic="ORDERS", partition=0, at=999), ListOffsetsReply)
    assert (reply.offset, reply.timestamp_ms) == (0, 1_000)


def test_what_is_open_and_what_was_aborted_outlive_a_kill(partition: PartitionProcess) -> None:
    first, second = transactional_producer_id(0, 1), transactional_producer_id(0, 2)

    def publish(value: bytes, by: int) -> None:
        batch = a_batch(value, attributes=TRANSACTIONAL, producer_id=by, producer_epoch=0, base_sequence=0)
        reply, _ = partition.ask(produce(), ProduceReply, [batch])
        assert reply.batches[0].error is None

    def end(by: int, is_committed: bool) -> None:
        markers = [Marker(by, 0, is_committed)]
        reply, _ = partition.ask(WriteMarkers(topic="ORDERS", partition=0, markers=markers), Done)
        assert reply == Done()

    def restart_by_kill() -> None:
        partition.kill()
        partition.start()

    def seen() -> tuple[int, list[bytes], list[int]]:
        """Return the end for readers of committed records, their records, and the aborted transactions."""
        records, _ = partition.ask(fetch(0), FetchReply, as_json=True)
        batches, _ = partition.ask(fetch(0), FetchReply)
        aborted = [] if batches.aborted is UNSET else [each.producer_id for each in batches.aborted]
        return records.last_stable_offset, [record.value for record in records.records], aborted

    partition.start()
    publish(b"aborted", first)
    end(first, False)
    partition.ask(produce(), ProduceReply, [a_batch(b"plain")])
    publish(b"open", second)
    partition.ask(produce(), ProduceReply, [a_batch(b"behind")])
    before = seen()
    assert before == (3, [b"plain"], [first])
    restart_by_kill()
    assert seen() == before
    end(second, True)
    after = seen()
    assert after == (6, [b"plain", b"open", b"behind"], [first])
    restart_by_kill()
    assert seen() == after, "nobody waits for what has ended"


def test_parked_fetch_hears_of_new_data(partition: PartitionProcess) -> None:
    partition.start()
    waiting = partition.new_client()
    waiting.send(encode_header(fetch(0, max_wait_ms=60_000)))
    partition.ask(produce(), ProduceReply, [a_batch(b"a")])
    assert waiting.poll(TIMEOUT_MS)
    header, run = waiting.recv_multipart()
    waiting.close()
    assert decode_reply(header, FetchReply).next_offset == 1
    assert len(split(run)) == 1


def test_json_fetch_gets_records(partition: PartitionProcess) -> None:
    partition.start()
    partition.ask(produce(), ProduceReply, [a_batch(b"caf\xc3\xa9", b"\xff")])
    reply, payload = partition.ask(fetch(1), FetchReply, as_json=True)
    assert payload == []
    assert [(each.offset, each.value, each.value_text) for each in reply.records] == [(1, b"\xff", None)]
    assert reply.next_offset == 2


def test_second_process_is_locked_out_and_says_by_whom(partition: PartitionProcess) -> None:
    with DirectoryLock(partition.data_directory / "topics/ORDERS/0" / LOCK_NAME):
        partition.launch(PROGRAM.replace("process.main(", "process.LOCK_WAIT_MS = 100; process.main("))
        assert partition.wait() == 1
    assert "LogLocked" in partition.exit_reports
    assert "is in use by process" in partition.exit_reports


def test_damaged_batch_is_named_and_the_rest_is_served(partition: PartitionProcess) -> None:
    partition.start()
    partition.ask(produce(), ProduceReply, [a_batch(b"a" * 100), a_batch(b"b" * 100), a_batch(b"c" * 100)])
    assert partition.stop() == 0
    (segment,) = (partition.data_directory / "topics/ORDERS/0").glob("*.log")
    data = bytearray(segment.read_bytes())
    data[data.index(b"bbbb")] ^= 0xFF
    segment.write_bytes(data)

    partition.start()
    error, _ = partition.ask(fetch(1), FetchReply)
    assert error.code == "CORRUPT_LOG"
    assert segment.name in error.message
    assert f"byte {len(data) // 3}" in error.message
    assert error.next_offset == 2
    for offset in (0, 2):
        reply, payload = partition.ask(fetch(offset, max_bytes=1), FetchReply)
        assert (reply.next_offset, len(payload)) == (offset + 1, 1)
    reply, _ = partition.ask(produce(), ProduceReply, [a_batch(b"d")])
    assert reply.batches[0].base_offset == 3


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prlimit")
def test_full_disk_refuses_and_recovers_without_a_restart(partition: PartitionProcess) -> None:
    partition.start()
    pid = partition.process.pid  # type: ignore[union-attr]
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    partition.ask(produce(), ProduceReply, [a_batch(b"a" * 5_000)])
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (8_000, hard))
    for _ in range(3):
        error, _ = partition.ask(produce(), ProduceReply, [a_batch(b"b" * 5_000)])
        assert (error.code, error.retriable) == ("STORAGE_FULL", True)
        reply, _ = partition.ask(fetch(0), FetchReply)
        assert (reply.next_offset, reply.high_watermark) == (1, 1)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))
    reply, _ = partition.ask(produce(), ProduceReply, [a_batch(b"c" * 5_000)])
    assert reply.batches[0].base_offset == 1
    partition.kill()
    partition.start()
    reply, _ = partition.ask(fetch(0), FetchReply)
    assert reply.next_offset == 2


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_client_that_asks_for_much_and_does_not_read_cannot_fill_the_memory(
    partition: PartitionProcess,
) -> None:
    partition.start()
    for _ in range(16):
        partition.ask(produce(), ProduceReply, [a_batch(bytes(1_000_000))])
    reader = partition.zmq.socket(zmq.DEALER)
    reader.linger = 0
    reader.rcvhwm = 1
    reader.connect(partition.endpoint)
    asked = 300
    for _ in range(asked):
        reader.send(encode_header(fetch(0, max_bytes=16_000_000)))
    for _ in range(asked):
        # Each takes a turn, and each turn one more of the reader's: after these, all of those are finished.
        reply, _ = partition.ask(fetch(15), FetchReply)
        assert reply.next_offset == 16
    answers = []
    while len(answers) < asked:
        assert reader.poll(TIMEOUT_MS), "no reply"
        answers.append(decode_reply(reader.recv_multipart()[0], FetchReply))
    refusals = [each for each in answers if isinstance(each, ErrorBody)]
    assert {(each.code, each.retriable) for each in refusals} == {("OVERLOADED", True)}
    peak_bytes = 1024 * int(status_of(partition)["VmHWM"].split()[0])
    print(
        f"\n{asked} fetches of 16 MB, {len(refusals)} refused; the partition's peak: {peak_bytes >> 20} MiB"
    )
    assert peak_bytes < 300 * 1024 * 1024
    reader.close()


def status_of(partition: PartitionProcess) -> dict[str, str]:
    assert partition.process is not None
    lines = Path(f"/proc/{partition.process.pid}/status").read_text().splitlines()
    return dict(line.split(":", 1) for line in lines)


KILLS = 12
WINDOW = 4


class Sender:
    """An idempotent producer that resends, in order, all batches unanswered by the previous incarnation."""

    def __init__(self, partition: PartitionProcess) -> None:
        self.partition = partition
        self.next_sequence = 0
        self.in_flight: deque[tuple[int, bytes]] = deque()
        self.acknowledged: dict[int, int] = {}
        """Offset by sequence."""
        self.high_watermark = 0

    def send_again(self) -> None:
        for sequence, frame in self.in_flight:
            self.partition.send(produce(sequence), [frame])

    def fill(self) -> None:
        while len(self.in_flight) < WINDOW:
            sequence = self.next_sequence
            self.next_sequence += 2
            values = [b"%d" % (sequence + index) for index in range(2)]
            frame = a_batch(*values, producer_id=9, producer_epoch=0, base_sequence=sequence)
            self.in_flight.append((sequence, frame))
            self.partition.send(produce(sequence), [frame])

    def take_answer(self) -> None:
        sequence, _ = self.in_flight.popleft()
        reply, _ = self.partition.receive(ProduceReply)
        (result,) = reply.batches
        assert result.error is None, result
        assert reply.id == sequence
        assert reply.high_watermark > result.base_offset
        self.acknowledged[sequence] = result.base_offset
        self.high_watermark = max(self.high_watermark, reply.high_watermark)


@pytest.mark.parametrize("flush", ["batch", "os"])
def test_killed_under_load_nothing_acknowledged_is_lost_or_doubled(
    data_dir: Path, run_dir: Path, seed: int, flush: str
) -> None:
    draw = random.Random(seed)
    config = TopicConfig(flush=flush, segment_bytes=16 * 1024)
    with PartitionProcess(data_dir, run_dir, config) as partition:
        sender = Sender(partition)
        for _ in range(KILLS if flush == "batch" else 3):
            partition.start()
            sender.send_again()
            for _ in range(draw.randrange(1, 60)):
                sender.fill()
                sender.take_answer()
            sender.fill()
            partition.kill()
        partition.start()
        sender.send_again()
        while sender.in_flight:
            sender.take_answer()

        values, offset = [], 0
        while offset < sender.high_watermark:
            reply, (run,) = partition.ask(fetch(offset), FetchReply)
            for header, frame in split(run):
                assert header.base_offset == offset
                values += [int(value or b"") for _, value, _, _ in decode_records(frame, header)]
                offset = header.next_offset
            assert reply.next_offset == offset
        assert values == list(range(sender.next_sequence)), "once each, and in order"
        assert all(values[offset] == sequence for sequence, offset in sender.acknowledged.items())
        assert partition.stop() == 0


HOSTILE_HEADERS = [
    b'{"op":"list_offsets","id":1,"topic":"ORDERS","partition":0,"at":%d}' % 10**40,
    b'{"op":"list_offsets","id":1,"topic":"ORDERS","partition":0,"at":%d}' % (2**64 - 1),
    b'{"op":"list_offsets","id":1,"topic":"ORDERS","partition":0,"at":%d}' % -(2**63),
    b'{"op":"list_offsets","id":1,"topic":"ORDERS","partition":0,"at":-1}',
    b'{"op":"fetch","id":1,"topic":"ORDERS","partition":0,"offset":%d}' % (2**64 - 1),
    b'{"op":"fetch","id":1,"topic":"ORDERS","partition":0,"offset":0,"max_bytes":%d}' % (2**64 - 1),
    b'{"op":"fetch","id":1,"topic":"ORDERS","partition":0,"offset":1,"min_bytes":%d,"max_wait_ms":1}'
    % 10**18,
    b'{"op":"fetch","id":1,"topic":"\\ud800","partition":0,"offset":0}',
    b'{"op":"fetch","id":"\\ud800","topic":"ORDERS","partition":0,"offset":0}',
    b'{"op":"fetch","id":1,"topic":"ORDERS","partition":%d,"offset":0}' % 10**40,
    b'{"op":"fetch","id":%d,"topic":"ORDERS","partition":0,"offset":0}' % 10**40,
    b'{"op":"delete_records","id":1,"topic":"ORDERS","partition":0,"before_offset":%d}' % (2**64 - 1),
    b'{"op":"delete_records","id":1,"topic":"ORDERS","partition":0,"before_offset":-2}',
    b'{"op":"produce","id":1,"topic":"ORDERS","partition":0,"acks":2}',
    b'{"op":"configure_partition","id":1,"config":{"flush":"interval:99999999999999999999s"}}',
    b'{"op":"configure_partition","id":1,"config":{"retention_ms":%d}}' % (2**64 - 1),
    b'{"op":"describe_partition","id":1}',
    b'{"op":',
    b"{",
    b"",
]


def test_nothing_a_client_sends_ends_the_process(partition: PartitionProcess, seed: int) -> None:
    draw = random.Random(seed)
    partition.start()
    partition.ask(produce(), ProduceReply, [a_batch(b"a")])
    for header in HOSTILE_HEADERS:
        partition.client.send_multipart([header, b"\x93\x01"])
    good = a_batch(b"x" * 50, producer_id=3, producer_epoch=0, base_sequence=0)
    for _ in range(300):
        frames = [encode_header(produce()), good]
        for index in range(2):
            mutated = bytearray(frames[index])
            for _ in range(draw.randrange(3)):
                mutated[draw.randrange(len(mutated))] = draw.randrange(256)
            frames[index] = bytes(mutated[: draw.choice([len(mutated), draw.randrange(len(mutated))])])
        partition.client.send_multipart(frames)
    fresh = partition.new_client()
    fresh.send(encode_header(ListOffsets(id=7, topic="ORDERS", partition=0, at="earliest")))
    assert fresh.poll(TIMEOUT_MS), "it answers no more"
    fresh.close()
    assert partition.stop() == 0

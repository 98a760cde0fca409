"""Few bytes on the wire, many when decompressed: no compressed batch stops an actor, a reader or another client.

Work is done per record and per unpacked byte, so these are bounded: on entry by the topic's configuration,
and in each reader by the amount that it opens in one turn.
"""

import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import zmq

from live_trees import until
from patience import TIMEOUT_S
from planaria import Broker
from planaria.transport.batch import HEADER_BYTES, build, checksum
from planaria.transport.compression import CODEC_ZSTD

zstandard = pytest.importorskip("zstandard")
pytestmark = pytest.mark.processes

TOPIC = "COSTLY"
BATCHES = 15
SERVED_WITHIN_S = 5.0
"""Far below the hang limit, and far above one reply on a busy machine."""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("costly"), hang_timeout_ms=60_000) as broker:
        yield broker


def sealed(body: bytes, count: int, max_timestamp_ms: int = 1) -> bytes:
    """Return a batch around a compressed body, with any count in the header."""
    frame = build([(None, b"", 0, None)], first_timestamp_ms=1, max_timestamp_ms=max_timestamp_ms)
    described = frame[24:25] + bytes([CODEC_ZSTD]) + count.to_bytes(4, "big") + frame[30:HEADER_BYTES] + body
    head = frame[:12] + len(described).to_bytes(4, "big") + checksum(described).to_bytes(4, "big")
    return head + frame[20:24] + described


def packed(count: int, record: bytes = b"\x94\xc0\xc0\x00\xc0") -> bytes:
    return bytes(zstandard.compress(b"\xdd" + struct.pack(">I", count) + record * count))


def wide(count: int, header_bytes: int) -> bytes:
    """Return records with large headers."""
    text = b"\xdb" + struct.pack(">I", header_bytes) + b"x" * header_bytes
    return packed(count, b"\x94\xc4\x01k\xc4\x00\x00\x81\xa1h" + text)


def ask(broker: Broker, header: dict[str, Any], *frames: bytes, as_json: bool = False) -> dict[str, Any]:
    with zmq.Context() as context, context.socket(zmq.DEALER) as sock:
        sock.linger = 0
        sock.connect(broker.endpoint)
        encode = msgspec.json.encode if as_json else msgspec.msgpack.encode
        sock.send_multipart([encode(header | {"id": 1}), *frames])
        assert sock.poll(30_000), f"no answer to {header['op']}"
        reply = sock.recv_multipart()[0]
        found: dict[str, Any] = msgspec.json.decode(reply) if as_json else msgspec.msgpack.decode(reply)
        return found


def produce(broker: Broker, topic: str, *frames: bytes) -> list[dict[str, Any]]:
    reply = ask(broker, {"op": "produce", "topic": topic, "partition": 0}, *frames)
    assert "error" not in reply, reply
    found: list[dict[str, Any]] = reply["batches"]
    return found


def incarnations(broker: Broker) -> dict[str, int]:
    return {each.address: each.incarnation for each in broker.client.status().actors}


@pytest.mark.parametrize(
    ("records", "stated", "code"),
    [
        pytest.param(16_000_000, 16_000_000, "MESSAGE_TOO_LARGE", id="a sea of tiny records"),
        pytest.param(16_000_000, 1, "MESSAGE_TOO_LARGE", id="the same, said to be one"),
        pytest.param(1_000, 50_000, "INVALID_BATCH", id="more offsets than records"),
    ],
)
def test_what_costs_too_much_is_refused_at_the_door(
    broker: Broker, records: int, stated: int, code: str
) -> None:
    broker.create_topic("DOOR", 1)
    frame = sealed(packed(records), stated)
    assert len(frame) < 100_000
    (result,) = produce(broker, "DOOR", frame)
    assert result["error"]["code"] == code


COSTLY = [
    sealed(packed(100_000), 100_000, 2**40),
    sealed(wide(60, 1024 * 1024), 60, 2**40),
    sealed(packed(100_000), 99_000),
]
"""The last one's contents contradict its header; the dates are of the year 2004, and no record is so new."""


@pytest.fixture(scope="module")
def costly(broker: Broker) -> str:
    """Return a compacted topic full of the costliest accepted batches, and of batches with false headers."""
    broker.create_topic(TOPIC, 1, cleanup="compact", segment_bytes=8_192, min_cleanable_ratio=0.0)
    for _ in range(BATCHES):
        assert all(result["base_offset"] >= 0 for result in produce(broker, TOPIC, *COSTLY))
    return TOPIC


def test_readers_of_records_pass_them(broker: Broker, costly: str) -> None:
    before = incarnations(broker)
    slowest_s = 0.0
    offset = 0
    for _ in range(60):
        request = {"op": "fetch", "topic": costly, "partition": 0, "offset": offset, "max_records": 10_000}
        asked_at = time.monotonic()
        reply = ask(broker, request, as_json=True)
        slowest_s = max(slowest_s, time.monotonic() - asked_at)
        if "error" in reply:
            # A batch with a false header is named, with the next readable offset.
            assert reply["error"]["code"] == "INVALID_BATCH", reply
            offset = int(reply["error"]["message"].split("the next one is at ")[1].split(")")[0])
        else:
            assert reply["next_offset"] > offset
            offset = reply["next_offset"]
    assert offset > 300_000
    assert incarnations(broker) == before
    print(f"slowest fetch of records: {slowest_s:.3f} s")


def test_others_are_served_meanwhile(broker: Broker, costly: str) -> None:
    """A publish through the gateway waits for the batches that one reply opens, and not for those of the next."""
    broker.create_topic("HONEST", 1)
    publish = {"op": "publish", "topic": "HONEST", "records": [{"value_text": "x"}]}
    fetch = {"op": "fetch", "topic": costly, "partition": 0, "offset": 0, "max_records": 10_000}
    is_over = threading.Event()

    def fetch_all_the_time() -> None:
        while not is_over.is_set():
            ask(broker, fetch, as_json=True)

    abuser = threading.Thread(target=fetch_all_the_time)
    abuser.start()
    try:
        waits_s = []
        for _ in range(30):
            asked_at = time.monotonic()
            assert "error" not in ask(broker, publish, as_json=True)
            waits_s.append(time.monotonic() - asked_at)
    finally:
        is_over.set()
        abuser.join()
    waits_s.sort()
    print(f"publishing meanwhile: median {waits_s[15]:.3f} s, longest {waits_s[-1]:.3f} s")
    assert waits_s[-1] < SERVED_WITHIN_S


def test_a_search_by_time_opens_one_batch(broker: Broker, costly: str) -> None:
    before = incarnations(broker)
    asked_at = time.monotonic()
    found = broker.client.list_offsets(costly, 0, 2**39)
    assert found.offset >= 0
    assert incarnations(broker) == before
    print(f"search by time: {time.monotonic() - asked_at:.3f} s")


def test_a_work_queue_passes_them(broker: Broker, costly: str) -> None:
    before = incarnations(broker)
    header = {"op": "acquire", "group": "queue", "topics": [costly], "member_id": "m", "max_records": 100}
    for _ in range(5):
        found = ask(broker, header, as_json=True)
        assert found.get("error", {"retriable": True})["retriable"], found
    assert {name: count for name, count in incarnations(broker).items() if name in before} == before


def test_compaction_passes_them(broker: Broker, costly: str) -> None:
    before = incarnations(broker)
    produced_bytes = sum(len(frame) for frame in COSTLY) * BATCHES
    until(
        lambda: broker.client.describe_topic(costly).partitions[0].size_bytes < produced_bytes / 2,
        "the wide records' key has been compacted",
        2 * TIMEOUT_S,
    )
    assert incarnations(broker) == before

"""Input of a hostile or broken peer: random frames, requests with wrong fields, damaged bytes, ZMTP by hand."""

import json
import random
from typing import Any

import msgspec

from planaria.transport import batch
from planaria.transport.protocol.message import Request

TOPIC = "FUZZ"
GROUP = "fuzz"

# Never a valid actor's address: `kill` would succeed. Never an honest topic's or group's name.
PLAUSIBLE: dict[str, list[Any]] = {
    "topic": [TOPIC, TOPIC, "NOPE", "__offsets"],
    "topics": [[TOPIC], None, ["NOPE"]],
    "partition": [0, 0, 1],
    "partitions": [1, 2],
    "offset": [0, 1, 5],
    "at": ["earliest", "latest", 0],
    "acks": ["all", 1, 0],
    "records": [[{"value_text": "x"}], [{"key_text": "k", "value": None, "headers": {"a": "b"}}]],
    "group": [GROUP, GROUP, "other"],
    "member_id": [None, "nobody"],
    "generation": [0, 1],
    "owned": [{}, None, {TOPIC: [0]}],
    "offsets": [[{"topic": TOPIC, "partition": 0, "offset": 1}], []],
    "config": [{}, {"retention_ms": 1_000}],
    "address": ["nobody", "partition/NOPE/9"],
    "version": [1],
    "before_offset": [0],
}
STRANGE: list[Any] = [
    None, True, -1, 0, 1, 2**31, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), 1.5, 1e308, "", "\0", "x" * 300, "../../x",
    "a/b", "..", ".", "__x", "\U0001f600", "earliest", "all", [], {}, [[]], [None], {"": []}, {TOPIC: [2**63]},
    {TOPIC: [-1]}, {TOPIC: [0, 0]}, {"x/y": [0]}, {TOPIC: [2**64 - 1]},
    [{"topic": TOPIC, "partition": 2**63, "offset": 2**63 - 1}], [{"topic": "\0", "partition": -1, "offset": 0}],
    [{"topic": TOPIC, "partition": 0, "offset": 0, "metadata": "m" * 100_000}],
    [{"value_text": "x", "timestamp_ms": 2**53}], [{"value": "AAAA", "value_text": "x"}], [{}] * 3,
    [{"headers": {"": ""}}], {"retention_ms": -1, "flush": "interval:99999999999999999999s"},
    {"segment_bytes": 1024, "segment_ms": 100, "max_message_bytes": 1}, {"retention_bytes": 2**63}, [TOPIC] * 1000,
    {"cleanup": "compact", "min_cleanable_ratio": 0.1},
]  # fmt: skip
"""No number from 3 to 10,000: a topic with so many partitions is not hostile, only slow."""
HUGE: list[Any] = [
    2**70, -(2**70), {TOPIC: [2**70]}, [{"topic": TOPIC, "partition": 2**70, "offset": 1}], {"retention_ms": 2**70},
    {"retention_bytes": 2**70, "segment_ms": 2**70}, [{"value_text": "x", "timestamp_ms": 2**70}],
]  # fmt: skip
"""Numbers that JSON can carry and MessagePack cannot."""


def honest_header(random_: random.Random, kind: type[Request], is_json: bool) -> dict[str, Any]:
    """Return a request of an op with plausible fields, of which one or two may be replaced by something strange."""
    header: dict[str, Any] = {
        "op": kind.__struct_config__.tag,
        "id": random_.choice([0, "a", None, 2**63 - 1]),
    }
    fields = [field for field in msgspec.structs.fields(kind) if field.name != "id"]
    for field in fields:
        if field.name in PLAUSIBLE and (field.required or random_.random() < 0.5):
            header[field.name] = random_.choice(PLAUSIBLE[field.name])
    for _ in range(random_.choice([0, 1, 1, 2])):
        if fields:
            name = random_.choice(fields).name
            header[name] = random_.choice(HUGE if is_json and random_.random() < 0.2 else STRANGE)
    if random_.random() < 0.02:
        header[random_.choice(["id", "x", "op"])] = random_.choice(STRANGE)
    return header


def hostile_message(random_: random.Random, kinds: tuple[type[Request], ...]) -> list[bytes]:
    """Return the frames of one message."""
    choice = random_.random()
    if choice < 0.1:
        return [random_.randbytes(random_.randrange(200)) for _ in range(random_.randrange(1, 6))]
    is_json = random_.random() < 0.5
    header = honest_header(random_, random_.choice(kinds), is_json)
    encoded = json.dumps(header).encode() if is_json else msgspec.msgpack.encode(header)
    if choice < 0.3:
        encoded = damaged(random_, encoded)
    payload = [hostile_batch(random_) for _ in range(random_.choice([0, 0, 1, 2]))]
    return [*random_.choice([[], [b""], [b"call", b""], [b"a", b"b", b""]]), encoded, *payload]


def damaged(random_: random.Random, data: bytes) -> bytes:
    """Truncate the data, replace a few bytes, or join the ends of two."""
    cut = random_.randrange(len(data) + 1)
    if random_.random() < 0.3:
        return data[:cut]
    damaged_ = bytearray(data)
    for _ in range(random_.randrange(1, 4)):
        damaged_[random_.randrange(len(data))] = random_.randrange(256)
    return bytes(damaged_)


def hostile_batch(random_: random.Random) -> bytes:
    """Return a batch that is intact, damaged, or intact with contents that contradict its fields."""
    records: list[Any] = random_.choice(
        [[(None, b"v", 0, None)], [(b"k", b"v", 2**63, {"a": "b"})] * 3, ["no record"], [{"a": 1}] * 2]
    )
    frame = batch.build(
        records,
        first_timestamp_ms=random_.choice([0, 1_000, -(2**63), 2**63 - 1]),
        max_timestamp_ms=random_.choice([0, 1_000, -(2**63), 2**63 - 1]),
        producer_id=random_.choice([-1, -1, 0, 7, -(2**63), 2**63 - 1, -2]),
        producer_epoch=random_.choice([-1, 0, 2**15 - 1, -(2**15)]),
        base_sequence=random_.choice([-1, 0, 1, 2**31 - 1, -(2**31)]),
    )
    if random_.random() < 0.5:
        return frame
    if random_.random() < 0.5:
        return damaged(random_, frame)
    # Wrong inside, with a valid checksum: only its author could have noticed.
    lying = bytearray(frame)
    lying[random_.choice([25, 26, 29])] = random_.choice([0, 1, 2, 3, 8, 16, 32, 255])
    lying[16:20] = batch.checksum(bytes(lying[24:])).to_bytes(4, "big")
    return bytes(lying)


# ZMTP 3.0 by hand: 23/ZMTP of the ZeroMQ RFCs.
GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + b"\0" + bytes(31)


def ready_command(socket_type: bytes = b"DEALER") -> bytes:
    body = b"\x05READY\x0bSocket-Type" + len(socket_type).to_bytes(4, "big") + socket_type
    return bytes([4, len(body)]) + body


def long_frame(length: int, data: bytes) -> bytes:
    """Return a frame that announces `length` bytes and contains `data`."""
    return b"\x02" + length.to_bytes(8, "big") + data

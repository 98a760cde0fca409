"""The batches and keys of tests/vectors/batches.json and keys.json."""

import struct
import zlib
from typing import Any

from planaria.transport.batch import DEDUP, HEAD_BYTES, Record, build, checksum, parse_header, stamp
from planaria.transport.compression import CODEC_LZ4, CODEC_ZSTD
from planaria.transport.partitioner import partition_for_key

FIRST_MS = 1_700_000_000_000
CHECK = b"123456789"
"""Check input of RFC 3720 and the catalogues of checksums."""

KEYS = ["", "order_id_1", "order_id_2", "a", "A", "ключ", "鍵", "\U0001f511", "x" * 300]
BINARY_KEYS = [b"\x00", b"\xff", bytes(range(256)), (42).to_bytes(8, "big")]
PARTITION_COUNTS = [1, 2, 3, 4, 7, 12, 100, 10_000]

PLAIN: list[Record] = [(b"order_id_1", b'{"amount": 100}', 0, None)]
NIL: list[Record] = [
    (None, b"no key", 0, None),
    (b"no value: deleted", None, 1, None),
    (None, None, 2, None),
    (b"", b"", 3, {}),
]
HEADERS: list[Record] = [
    (b"k", b"v", 0, {"content-type": "application/json", "gr\u00f6\u00dfe": "\u5927", "empty": ""}),
    (b"k", b"\x00\xff", 250, {"\U0001f511": "\u2713"}),
]
MANY: list[Record] = [(f"k{n}".encode(), bytes([n % 256]), n * 1_000, None) for n in range(20)]
IDENTIFIED: list[Record] = [(None, b"{}", 0, {"dedup-id": "order-17"})]
SIZES: list[Record] = [(b"k" * 40, b"v" * 300, 70_000, {"h": "x" * 40}), (b"", b"w" * 700, -5, None)]


def batch_vectors() -> dict[str, Any]:
    batches = [
        _vector("one record", PLAIN, _build(PLAIN)),
        _vector("nil and empty keys and values", NIL, _build(NIL)),
        _vector("headers in unicode", HEADERS, _build(HEADERS)),
        _vector("twenty records: a longer array", MANY, _build(MANY)),
        _vector("longer strings, a negative delta", SIZES, _build(SIZES)),
        _vector(
            "of an idempotent producer",
            PLAIN,
            _build(PLAIN, producer_id=42, producer_epoch=3, base_sequence=7),
        ),
        _vector(
            "of an idempotent producer whose sequence wraps",
            MANY,
            _build(MANY, producer_id=2**63 - 1, producer_epoch=2**15 - 1, base_sequence=2**31 - 10),
        ),
        _vector("stamped by a leader", PLAIN, bytes(stamp(_build(PLAIN), 2**40 + 1, 5))),
        _vector("one record with an identity", IDENTIFIED, _build(IDENTIFIED, attributes=DEDUP)),
    ]
    return {"crc32c_of_123456789": checksum(CHECK), "batches": batches, "damaged": _damaged()}


def compressed_batch_vectors() -> list[dict[str, Any]]:
    return [
        _vector(f"{codec}: {name}", records, make(records))
        for codec, make in (("zstd", zstd_batch), ("lz4", lz4_batch))
        for name, records in (("one record", PLAIN), ("nil and empty keys and values", NIL))
    ]


def _build(records: list[Record], **fields: int) -> bytes:
    last_ms = FIRST_MS + max(record[2] for record in records)
    return build(records, first_timestamp_ms=FIRST_MS, max_timestamp_ms=last_ms, **fields)


def zstd_batch(records: list[Record]) -> bytes:
    """Return a compressed batch without the library: RFC 8878 has an uncompressed block type."""
    plain = _build(records)
    body = plain[60:]
    assert len(body) < 256
    block = struct.pack("<I", len(body) << 3 | 1)[:3] + body
    frame = bytes.fromhex("28b52ffd20") + bytes([len(body)]) + block
    return _compressed(plain, frame, CODEC_ZSTD)


def lz4_batch(records: list[Record]) -> bytes:
    """Return a compressed batch without the library: an LZ4 frame may have blocks that are not compressed."""
    plain = _build(records)
    body = plain[60:]
    descriptor = bytes.fromhex("6840") + len(body).to_bytes(8, "little")
    block = struct.pack("<I", len(body) | 1 << 31) + body
    frame = bytes.fromhex("04224d18") + descriptor + bytes([xxh32(descriptor) >> 8 & 0xFF]) + block + bytes(4)
    return _compressed(plain, frame, CODEC_LZ4)


def xxh32(data: bytes) -> int:
    """Return the xxHash-32 with seed 0 of less than 16 bytes, as the header of an LZ4 frame has it."""
    assert len(data) < 16
    mask = 0xFFFFFFFF
    found = (0x165667B1 + len(data)) & mask
    whole = len(data) // 4 * 4
    for (lane,) in struct.iter_unpack("<I", data[:whole]):
        found = (found + lane * 0xC2B2AE3D) & mask
        found = (found << 17 & mask | found >> 15) * 0x27D4EB2F & mask
    for byte in data[whole:]:
        found = (found + byte * 0x165667B1) & mask
        found = (found << 11 & mask | found >> 21) * 0x9E3779B1 & mask
    found = (found ^ found >> 15) * 0x85EBCA77 & mask
    found = (found ^ found >> 13) * 0xC2B2AE3D & mask
    return found ^ found >> 16


def _compressed(plain: bytes, frame: bytes, codec: int) -> bytes:
    batch = bytearray(plain[:60] + frame)
    batch[25] = codec
    batch[12:16] = (len(batch) - HEAD_BYTES).to_bytes(4, "big")
    batch[16:20] = checksum(batch[HEAD_BYTES:]).to_bytes(4, "big")
    batch[20:24] = checksum(batch[:20]).to_bytes(4, "big")
    return bytes(batch)


def _vector(name: str, records: list[Record], batch: bytes) -> dict[str, Any]:
    header = parse_header(batch)._asdict()
    return {
        "name": name,
        "header": header,
        "records": [
            {
                "key": None if key is None else key.hex(),
                "value": None if value is None else value.hex(),
                "timestamp_ms": FIRST_MS + delta_ms,
                "headers": headers,
            }
            for key, value, delta_ms, headers in records
        ],
        "batch": batch.hex(),
    }


def _damaged() -> list[dict[str, str]]:
    """Return batches that a reader must refuse."""
    good = bytes(stamp(_build(PLAIN), 7, 1))
    flipped = bytearray(good)
    flipped[-1] ^= 1
    moved = bytearray(good)
    moved[7] ^= 1
    newer = bytearray(good)
    newer[24] = 2
    newer[16:20] = checksum(newer[HEAD_BYTES:]).to_bytes(4, "big")
    newer[20:24] = checksum(newer[:20]).to_bytes(4, "big")
    return [
        {"name": "a bit of a record flipped: crc32c", "batch": flipped.hex()},
        {"name": "a bit of base_offset flipped: head_crc32c", "batch": moved.hex()},
        {"name": "an unknown magic", "batch": newer.hex()},
        {"name": "cut short by a byte", "batch": good[:-1].hex()},
        {"name": "a byte too long", "batch": (good + b"\0").hex()},
        {"name": "shorter than a header", "batch": good[:59].hex()},
    ]


def key_vectors() -> list[dict[str, Any]]:
    """Return keys, their CRC-32 and their partition, by number of partitions."""
    keys = [key.encode() for key in KEYS] + BINARY_KEYS
    return [
        {
            "key": key.hex(),
            "crc32": zlib.crc32(key),
            "partitions": {str(count): partition_for_key(key, count) for count in PARTITION_COUNTS},
        }
        for key in keys
    ]

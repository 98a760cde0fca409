"""The layout of producer ids: 53 bits, so that any JSON parser can represent them. Pure.

     52      48 47         40 39                  6 5           0
    +----------+-------------+---------------------+-------------+
    | site     | coordinator | era                 | counter     |
    | 5 bits   | 8 bits      | 34 bits             | 6 bits      |
    +----------+-------------+---------------------+-------------+

    site         0; 1 to 31 for a broker with copies of another one's topics, which must not share ids with it
    coordinator  that of transactions, plus 1; 0: a producer without transactions
    era          sixteenths of a second since 2026-01-01 (until 2060), or one more than the last era, if that is larger
    counter      ids of one era

An era is reserved durably before its first id is issued, and never resumed after a restart. Because eras follow the
wall clock, a data directory that is restored from a backup, or whose catalog is, does not repeat the ids that were
issued after the backup. Ids with bit 62 are the broker's own (`actors/journal/identity.py`) and never issued.
"""

from zlib import crc32

SITE_BITS = 5
COORDINATOR_BITS = 8
ERA_BITS = 34
COUNTER_BITS = 6

MAX_COORDINATORS = 2**COORDINATOR_BITS - 1
IDS_PER_ERA = 2**COUNTER_BITS

_COORDINATOR_SHIFT = COUNTER_BITS + ERA_BITS
_SITE_SHIFT = _COORDINATOR_SHIFT + COORDINATOR_BITS
_END = 1 << (_SITE_SHIFT + SITE_BITS)
_ERAS_PER_SECOND = 16
"""Eras are so short that no broker is stopped, restored and started again within one."""
_FIRST_MS = 1_767_225_600_000
"""2026-01-01 00:00 UTC."""


def era_after(era: int, now_ms: int) -> int:
    """Return the era to begin at `now_ms` when every era up to `era` may have been used."""
    following = max(era + 1, (now_ms - _FIRST_MS) * _ERAS_PER_SECOND // 1000)
    assert following < 1 << ERA_BITS, f"era {following} does not fit"
    return following


def producer_id_of(era: int, counter: int, site: int = 0) -> int:
    """Return the id of a producer without transactions."""
    assert counter < IDS_PER_ERA
    assert site < 1 << SITE_BITS
    return site << _SITE_SHIFT | era << COUNTER_BITS | counter


def site_from(name: bytes) -> int:
    """Return a site other than 0, always the same for a name."""
    return crc32(name) % ((1 << SITE_BITS) - 1) + 1


def era_of(producer_id: int) -> int | None:
    """Return the era of an id; None for an id that is never issued."""
    return producer_id >> COUNTER_BITS & (1 << ERA_BITS) - 1 if 0 <= producer_id < _END else None


def transactional_producer_id(coordinator: int, number: int) -> int:
    """Return the producer id that a coordinator derives from one that no other producer has."""
    assert coordinator < MAX_COORDINATORS
    return number | (coordinator + 1) << _COORDINATOR_SHIFT


def coordinator_of(producer_id: int) -> int | None:
    """Return the coordinator that issued a producer id, None for a producer without transactions."""
    if not 0 <= producer_id < _END:
        return None
    number = (producer_id >> _COORDINATOR_SHIFT & MAX_COORDINATORS) - 1
    return number if number >= 0 else None

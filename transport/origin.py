"""Where a broker's steady clock begins: what `clock.json` holds and every actor is born with. Pure; read by clock.py."""

from msgspec import Struct


class Origin(Struct, frozen=True):
    """What is added to the monotonic clock, and in which boot of the machine that holds."""

    boot: str
    """Empty where the system does not say: then the origin holds for one supervisor."""
    anchor_ns: int
    slept_ns: int
    """What the machine had slept since that boot."""

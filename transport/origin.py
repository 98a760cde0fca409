"""The origin of a broker's steady clock: stored in `clock.json` and passed to every actor. Pure; read by clock.py."""

from msgspec import Struct


class Origin(Struct, frozen=True):
    """The offset from the monotonic clock, and the boot of the machine for which it holds."""

    boot: str
    """Empty where the system does not provide it: then the origin holds for one supervisor."""
    anchor_ns: int
    slept_ns: int
    """Time for which the machine had slept since that boot."""

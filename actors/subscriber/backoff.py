"""How long a failed record waits for its next attempt. Pure: the chance is handed in."""

from collections.abc import Callable

from ...transport.subscription import SubscriberOptions

Draw = Callable[[], float]
"""A number from 0 to 1."""


def in_the_middle() -> float:
    """No chance at all: every wait is exactly as long as the options say."""
    return 0.5


def backoff_ms(options: SubscriberOptions, failed: int, draw: Draw) -> int:
    """The wait after the `failed`-th failure. An explicit list is taken as it is, its last entry for all that follow."""
    if isinstance(options.backoff_ms, list):
        return options.backoff_ms[min(failed, len(options.backoff_ms)) - 1]
    # No float is too large for this: the exponent is bounded, the result cut.
    grown_ms = options.backoff_ms * options.backoff_factor ** min(failed - 1, 64)
    spread = options.backoff_jitter * (2 * draw() - 1)
    return max(1, round(min(grown_ms, options.backoff_max_ms) * (1 + spread)))


def longest_backoff_ms(options: SubscriberOptions) -> int:
    """How often what cannot be given up is tried."""
    return max(options.backoff_ms) if isinstance(options.backoff_ms, list) else options.backoff_max_ms

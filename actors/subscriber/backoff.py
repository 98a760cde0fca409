"""Backoff: the wait of a failed record before its next attempt. Pure: the random draw is a parameter."""

from collections.abc import Callable

from ...transport.subscription import SubscriberOptions

Draw = Callable[[], float]
"""Draw a number from 0 to 1."""


def in_the_middle() -> float:
    """Disable the jitter: every wait is exactly as long as the options say."""
    return 0.5


def backoff_ms(options: SubscriberOptions, failed: int, draw: Draw) -> int:
    """Return the wait after the `failed`-th failure. The last entry of an explicit list holds for all later failures."""
    if isinstance(options.backoff_ms, list):
        return options.backoff_ms[min(failed, len(options.backoff_ms)) - 1]
    # The exponent is bounded, so the float cannot overflow; the result is capped.
    grown_ms = options.backoff_ms * options.backoff_factor ** min(failed - 1, 64)
    spread = options.backoff_jitter * (2 * draw() - 1)
    return max(1, round(min(grown_ms, options.backoff_max_ms) * (1 + spread)))


def longest_backoff_ms(options: SubscriberOptions) -> int:
    """Return the interval at which a record that cannot be given up is retried."""
    return max(options.backoff_ms) if isinstance(options.backoff_ms, list) else options.backoff_max_ms

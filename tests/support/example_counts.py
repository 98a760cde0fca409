"""Numbers of examples of property tests: one for the ordinary run, a multiple of it while exploring."""

from hypothesis import HealthCheck, settings
from hypothesis.database import DirectoryBasedExampleDatabase

ORDINARY_EXAMPLES = 100
EXPLORED_EXAMPLES = 2_000
"""Examples of a test without a number of its own; the others are multiplied alike."""


def register_profiles() -> None:
    """Register `ordinary`, which tries the same examples in every run, and `explore`, which tries many new ones.

    Hypothesis would enable derandomize under CI=true only: there and here the ordinary run is the same.
    """
    ordinary = settings(
        max_examples=ORDINARY_EXAMPLES,
        deadline=None,
        print_blob=True,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.register_profile("ordinary", ordinary)
    failed = DirectoryBasedExampleDatabase(".hypothesis/examples")
    settings.register_profile(
        "explore", ordinary, max_examples=EXPLORED_EXAMPLES, derandomize=False, database=failed
    )


def is_exploring() -> bool:
    """Return True if the session was started with `--hypothesis-profile explore`."""
    return settings().max_examples == EXPLORED_EXAMPLES


def examples(count: int, steps: int = 50) -> settings:
    """Return the settings of a test that tries `count` examples in the ordinary run, of at most `steps` steps."""
    return settings(
        max_examples=count * settings().max_examples // ORDINARY_EXAMPLES, stateful_step_count=steps
    )

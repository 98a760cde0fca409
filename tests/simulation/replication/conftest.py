"""Selection of the seeds: `--replica-seed N` replays one, `-m chaos` tries thousands more."""

import os
import random

import pytest

ORDINARY_SEEDS = range(100)
CHAOS_SEEDS = int(os.environ.get("PLANARIA_SIMULATIONS", "3000"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--replica-seed", type=int, default=None, help="simulate this one seed")


@pytest.fixture
def replica_seeds(request: pytest.FixtureRequest) -> list[int]:
    chosen = request.config.getoption("--replica-seed", default=None)
    return list(ORDINARY_SEEDS) if chosen is None else [chosen]


@pytest.fixture
def many_replica_seeds() -> list[int]:
    first = random.SystemRandom().randrange(2**40)
    return list(range(first, first + CHAOS_SEEDS))

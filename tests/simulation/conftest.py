"""Selection of the simulator's seeds: `--simulation-seed N` replays one, `-m chaos` tries thousands more."""

import os
import random

import pytest

ORDINARY_SEEDS = range(20)
LONG_SEEDS = range(20, 40)
CHAOS_SEEDS = int(os.environ.get("PLANARIA_SIMULATIONS", "3000"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--simulation-seed", type=int, default=None, help="simulate this one seed")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "simulation_seed" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--simulation-seed", default=None)
        seeds: list[object] = [chosen]
        if chosen is None:
            seeds = [*ORDINARY_SEEDS, *(pytest.param(seed, marks=pytest.mark.chaos) for seed in LONG_SEEDS)]
        metafunc.parametrize("simulation_seed", seeds)


@pytest.fixture
def fresh_seeds() -> list[int]:
    first = random.SystemRandom().randrange(2**40)
    return list(range(first, first + CHAOS_SEEDS))

"""Shared fixtures: a free port, a data directory, a short run directory, a printed seed.

Also guarantees for the whole session: no process is left running, no socket of a killed broker is left behind,
and random tests can be replayed.
"""

import gc
import os
import random
import shutil
import signal
import sys
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from example_counts import is_exploring, register_profiles
from leaked_processes import Leak, kill_leaked, mark_session
from planaria.supervisor import config
from planaria.supervisor.free_ports import free_ports
from planaria.supervisor.launch import SupervisorHandle, launch_supervisor
from warm_start import nursery, start_brokers_warm

gc.disable()  # until the tests are collected: a pass over the imported modules and the thousands of tests frees nothing

register_profiles()
settings.load_profile("ordinary")

TESTS = Path(__file__).parent

_mark_key = pytest.StashKey[str]()
_leaks_key = pytest.StashKey[list[Leak]]()
_runtime_key = pytest.StashKey[Path]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite-vectors",
        action="store_true",
        help="rewrite tests/vectors/*.json instead of comparing with them; review the change as a diff",
    )


def skip_sync(descriptor: int) -> None:
    """Do not wait for the disk. No test cuts the machine's power: medium.py simulates what a power cut leaves."""
    os.fstat(descriptor)


def pytest_configure(config: pytest.Config) -> None:
    # In this process alone; a broker that a test starts syncs.
    os.fsync = os.fdatasync = skip_sync  # type: ignore[assignment]
    config.stash[_mark_key] = mark_session()
    # A killed broker's files are swept by its next start, which a test may never make.
    config.stash[_runtime_key] = Path(tempfile.mkdtemp(prefix="pl-", dir="/tmp"))
    os.environ["XDG_RUNTIME_DIR"] = str(config.stash[_runtime_key])
    # Compiling the sources is more than half of a broker's start. Some environments ask each process to do it anew.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    # A job in a shell's background ignores Ctrl-C, and so would every process that a test starts and interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


LONG_FIRST = (
    "durability",
    "typing",
    "examples",
    "integration",
    "chaos",
    "rules",
    "simulation",
    "log",
    "subscriber",
)
"""Folders with the longest files, or with all files in one worker. Begun late, one would be left alone with a worker at
the end of a parallel run."""
FILES_PER_CLUSTER = 6
"""A file of clusters is followed by as many others, so that no two workers run clusters at the same time."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = _order_of_files([item.path for item in items])
    items.sort(key=lambda item: order[item.path])
    for item in items:
        chosen = getattr(getattr(item, "callspec", None), "params", {})
        if "seed" in getattr(item, "fixturenames", ()) and "seed" not in chosen:
            item.add_marker("seeded")


def pytest_collection_finish() -> None:
    """Keep the collected tests out of every later pass of the garbage collector."""
    gc.freeze()
    gc.enable()


def _order_of_files(paths: Iterable[Path]) -> dict[Path, float]:
    folders = {path: path.relative_to(TESTS).parts[0] for path in paths}
    ranks = {name: rank for rank, name in enumerate(LONG_FIRST)}
    others = sorted(
        (path for path in folders if folders[path] != "cluster"),
        key=lambda path: ranks.get(folders[path], len(ranks)),
    )
    clusters = [path for path in folders if folders[path] == "cluster"]
    order: dict[Path, float] = {path: number for number, path in enumerate(others)}
    return order | {path: FILES_PER_CLUSTER * number - 0.5 for number, path in enumerate(clusters)}


ONE_WORKER = "tests/rules/"
"""The files of this folder run in one worker: they read the same sources, and each worker would parse all of them."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Return the scheduler of a run with `--dist loadfile`, None for any other."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling  # a run without xdist does not have it

    class Scheduling(LoadFileScheduling):  # type: ignore[misc, unused-ignore]
        def _split_scope(self, nodeid: str) -> str:
            file: str = super()._split_scope(nodeid)
            return ONE_WORKER if file.startswith(ONE_WORKER) else file

    return Scheduling(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    start_brokers_warm(is_warm=item.get_closest_marker("cold_start") is None)


def pytest_sessionfinish(session: pytest.Session) -> None:
    nursery.end()
    leaks = session.config.stash.setdefault(_leaks_key, [])
    leaks += kill_leaked(session.config.stash[_mark_key])
    shutil.rmtree(session.config.stash[_runtime_key], ignore_errors=True)
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["leaks"] = [astuple(leak) for leak in leaks]
    if leaks:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A parallel worker of the session has ended: the session reports its leftovers."""
    leaks = node.config.stash.setdefault(_leaks_key, [])
    leaks += [Leak(*leak) for leak in getattr(node, "workeroutput", {}).get("leaks", [])]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    leaks = config.stash.get(_leaks_key, [])
    if leaks:
        terminalreporter.section("processes left running (killed now)", red=True)
        for leak in leaks:
            terminalreporter.line(f"{leak.pid} {leak.command_line}  started in {leak.test}", red=True)


@pytest.fixture
def free_port() -> int:
    """Return a TCP port without a listener, which no other test gets."""
    return free_ports(1)[0]


@pytest.fixture
def endpoint(free_port: int) -> str:
    """A public endpoint without a listener, loopback only."""
    return f"tcp://127.0.0.1:{free_port}"


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A data directory that does not exist yet: creating it is the broker's work."""
    return tmp_path / "data"


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """A private directory with a short path: an ipc endpoint has 107 bytes, and tmp_path leaves too few."""
    path = Path(tempfile.mkdtemp(prefix="pl-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """A seed for random tests: always the same in the ordinary run, a new one while exploring and in long runs.

    pytest shows the printed line when the test fails.
    """
    if "PLANARIA_SEED" in os.environ:
        chosen = int(os.environ["PLANARIA_SEED"])
    elif is_exploring() or request.node.get_closest_marker("chaos"):
        chosen = random.SystemRandom().randrange(2**32)
    else:
        chosen = zlib.crc32(request.node.nodeid.encode())
    print(f"replay: PLANARIA_SEED={chosen} python -m pytest '{request.node.nodeid}'")
    return chosen


@pytest.fixture
def running_broker(data_dir: Path) -> Iterator[SupervisorHandle]:
    """A whole broker under its supervisor: `.started.endpoint` is its gateway. Its log is data/broker.log."""
    yield from _run_broker(data_dir)


@pytest.fixture(scope="module")
def shared_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SupervisorHandle]:
    """A broker as `running_broker`, for all tests of a module."""
    yield from _run_broker(tmp_path_factory.mktemp("shared") / "data")


PATIENT = {"hang_timeout_ms": 60_000}
"""No actor is killed for its silence while a busy machine does not run it."""


def _run_broker(data: Path) -> Iterator[SupervisorHandle]:
    settings = {"data": str(data), "endpoint": "tcp://127.0.0.1:*", "log_file": "broker.log", **PATIENT}
    handle = launch_supervisor(config.load(settings))
    yield handle
    handle.stop()

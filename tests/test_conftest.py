"""The session's own guarantees: it fails when it leaves a process running, and loads the package only once."""

import subprocess
import sys
from pathlib import Path

import pytest

from example_counts import ORDINARY_EXAMPLES
from patience import TIMEOUT_S

TESTS = Path(__file__).parent

LEAKS_A_PROCESS = """
import subprocess, sys

def test_leaks():
    # Through a parent that ends at once: only the mark can find the orphan.
    program = "import subprocess; print(subprocess.Popen(['sleep', '60'], stdout=subprocess.DEVNULL).pid)"
    subprocess.run([sys.executable, "-c", program], check=True)
"""


SHORT_GRACE = """
import leaked_processes

leaked_processes.GRACE_S = 1.0
"""


def run_session(directory: Path, program: str, *options: str) -> "subprocess.CompletedProcess[str]":
    (directory / "conftest.py").write_text((TESTS / "conftest.py").read_text() + SHORT_GRACE)
    (directory / "test_inner.py").write_text(program)
    (directory / "pytest.ini").write_text(f"[pytest]\npythonpath = {TESTS / 'support'}\n")
    command = [sys.executable, "-m", "pytest", "-s", "-p", "no:cacheprovider", *options, str(directory)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=directory, timeout=TIMEOUT_S
    )


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
@pytest.mark.processes
@pytest.mark.parametrize("options", [(), ("-n", "1")], ids=["alone", "side by side"])
def test_session_that_leaves_a_process_running_fails_and_names_it(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    result = run_session(tmp_path, LEAKS_A_PROCESS, *options)

    assert result.returncode == pytest.ExitCode.TESTS_FAILED
    assert "1 passed" in result.stdout
    assert "sleep 60  started in test_inner.py::test_leaks (call)" in result.stdout
    pid = int(next(line for line in result.stdout.splitlines() if "sleep 60" in line).split()[0])
    # A zombie not reaped yet has no executable any more either.
    assert not Path(f"/proc/{pid}/exe").exists()


DRAWS = """
import hypothesis

drawn = []

@hypothesis.given(hypothesis.strategies.integers())
def test_draws(number):
    drawn.append(number)

def test_prints(seed):
    print("drawn:", seed, len(drawn), hash(tuple(drawn)))
"""


@pytest.mark.processes
def test_the_ordinary_run_draws_the_same_and_an_exploring_one_more_and_others(tmp_path: Path) -> None:
    profiles = [(), (), ("--hypothesis-profile", "explore"), ("--hypothesis-profile", "explore")]
    sessions = [run_session(tmp_path, DRAWS, *options) for options in profiles]
    assert {each.returncode for each in sessions} == {pytest.ExitCode.OK}, (
        "a session that leaves nothing passes"
    )
    first, again, *explored = [
        next(line for line in each.stdout.splitlines() if "drawn:" in line) for each in sessions
    ]
    assert first == again
    assert int(first.split()[-2]) <= ORDINARY_EXAMPLES
    assert explored[0] != explored[1]
    assert int(explored[0].split()[-2]) > ORDINARY_EXAMPLES


def test_no_second_copy_of_the_package_is_loaded() -> None:
    root = TESTS.parent
    files = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items())}
    strangers = {
        name: file
        for name, file in files.items()
        if file
        and Path(file).is_relative_to(root)
        and not Path(file).is_relative_to(TESTS)
        and name.partition(".")[0] != "planaria"
        and ".venv" not in Path(file).parts
    }
    assert strangers == {}

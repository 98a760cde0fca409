"""How an end is put into words. The watching itself is tested with real processes in test_process.py."""

import pytest

from planaria.supervisor.deaths import describe_exit


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "exit code 0"),
        (3, "exit code 3"),
        (-9, "killed by SIGKILL"),
        (-6, "killed by SIGABRT"),
        (-100, "killed by signal 100"),
        (None, "died, exit status unknown"),
        (255, "died, exit status unknown"),
    ],
)
def test_exits_in_words(code: int | None, words: str) -> None:
    assert describe_exit(code) == words

"""Files of variables for children with an environment of their own."""

from pathlib import Path

import pytest

from planaria.supervisor.surroundings import EnvironmentUnusable, variables_in


def test_variables_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("# the bank\nBANK=abc=1\n\nexport NAME='two words'\n EMPTY=\n")
    assert variables_in(str(file)) == {"BANK": "abc=1", "NAME": "two words", "EMPTY": ""}


@pytest.mark.parametrize("text", ["BANK", "1=2", "a b=3"])
def test_a_wrong_line_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "env"
    file.write_text(f"A=1\n{text}\n")
    with pytest.raises(EnvironmentUnusable, match="line 2: not of the form NAME=value"):
        variables_in(str(file))


def test_a_missing_file_is_named() -> None:
    with pytest.raises(EnvironmentUnusable, match="/nowhere cannot be read"):
        variables_in("/nowhere")

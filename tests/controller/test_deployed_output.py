"""The output of workers is read whole, line by line, in parts, however the lines lie in the files."""

from pathlib import Path

import pytest

from planaria.actors.controller import deployed_output
from planaria.actors.controller.deployed_output import read_output
from planaria.actors.controller.deployments import LOGS
from planaria.transport.protocol.deployments import (
    OutputPosition,
    ReadDeploymentOutput,
    ReadDeploymentOutputReply,
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / LOGS).mkdir(parents=True)
    return tmp_path


def write(data: Path, name: str, content: bytes) -> None:
    (data / LOGS / f"{name}.log").write_bytes(content)


def read(data: Path, lines: int | None = None, **given: object) -> ReadDeploymentOutputReply:
    request = ReadDeploymentOutput(**{"group": "g", "lines": lines, **given})  # type: ignore[arg-type]
    return read_output(data, request, "n1")


def read_all(data: Path, lines: int | None = None) -> dict[int, str]:
    """Return the texts of all workers, as a client puts them together."""
    texts: dict[int, str] = {}
    positions: dict[int, int] = {}
    for _ in range(10_000):
        reply = read(
            data, lines, positions=[OutputPosition(worker=w, position=p) for w, p in positions.items()]
        )
        for output in reply.outputs:
            texts[output.worker] = texts.get(output.worker, "") + output.text
            positions[output.worker] = output.position
        if reply.is_complete:
            return texts
    raise AssertionError("no end")


def test_only_files_of_the_group_are_read(data: Path) -> None:
    for name in ("g-1", "g-10", "g-1-2", "gg-1", "g-x", "g-1.log.1"):
        write(data, name, name.encode() + b"\n")
    (data / "secret-1.log").write_text("secret\n")
    assert read_all(data) == {1: "g-1\n", 10: "g-10\n"}
    assert [each.worker for each in read(data, worker=10).outputs] == [10]
    for group in ("../secret", "../../secret", f"{data}/secret", "*", ".*"):
        assert read(data, group=group).outputs == []
    assert read_output(data / "nowhere", ReadDeploymentOutput(group="g"), "").is_complete


@pytest.mark.parametrize("lines", [0, 1, 2, 3, 100])
def test_the_last_lines_are_found_at_every_size_of_blocks(
    data: Path, lines: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"first\n\nsecond and longer\nx\n"
    write(data, "g-1", content)
    expected = "".join(content.decode().splitlines(keepends=True)[-lines:]) if lines else ""
    for block in range(1, len(content) + 2):
        monkeypatch.setattr(deployed_output, "_BLOCK_BYTES", block)
        assert read(data, lines).outputs[0].text == expected


def test_parts_of_any_size_make_the_whole(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = (
        "".join(f"line {number}\n" for number in range(40)) + "a line that is longer than a part" * 3 + "\n"
    )
    write(data, "g-1", first.encode())
    write(data, "g-2", b"unfinished")
    write(data, "g-3", b"last\n")
    for part in (1, 2, 7, 50, 1_000):
        monkeypatch.setattr(deployed_output, "READ_BYTES", part)
        for rest in (4, 1_000):
            monkeypatch.setattr(deployed_output, "REST_BYTES", rest)
            found = read_all(data)
            assert (found[1], found[3]) == (first, "last\n")
            assert "unfinished".startswith(found[2])


def test_an_unfinished_line_is_shown_and_read_again(data: Path) -> None:
    write(data, "g-1", b"done\ncharg")
    (output,) = read(data, 1).outputs
    assert (output.text, output.rest) == ("", "charg")
    write(data, "g-1", b"done\ncharged \xff\n")
    (output,) = read(data, positions=[OutputPosition(worker=1, position=output.position)]).outputs
    assert (output.text, output.rest) == ("charged \ufffd\n", "")


def test_a_file_that_was_replaced_is_read_from_its_beginning(data: Path) -> None:
    write(data, "g-1", b"new\n")
    assert read(data, positions=[OutputPosition(worker=1, position=900)]).outputs[0].text == "new\n"


def test_the_search_for_lines_is_bounded(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deployed_output, "SEARCH_BYTES", 64)
    for worker in (1, 2, 3):
        write(data, f"g-{worker}", b"x" * 100 + b"\n" + b"y\n" * 20)
    reply = read(data, 30)
    assert ([each.worker for each in reply.outputs], reply.is_complete) == ([1], False)
    assert reply.outputs[0].text.endswith("xx\n" + "y\n" * 20)
    assert sorted(read_all(data, 30)) == [1, 2, 3]

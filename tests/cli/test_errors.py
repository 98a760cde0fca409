"""Wrong usage is one line and code 2, failure one line and code 1; a traceback only on request."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from command_line import Command
from patience import TIMEOUT_S
from planaria.supervisor.cli import connection, main
from planaria.supervisor.cli.app import root
from planaria.supervisor.cli.failures import exit_code_for
from planaria.supervisor.cli.help_text import help_of
from planaria.transport.protocol.errors import ErrorCode, PlanariaError, ProtocolError

Captured = pytest.CaptureFixture[str]


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def every_command() -> list[Any]:
    def below(group: Any) -> Iterator[Any]:
        for each in group.commands.values():
            yield each
            if hasattr(each, "commands"):
                yield from below(each)

    return [root(), *below(root())]


def one_line(text: str) -> str:
    assert text.count("\n") == 1, text
    assert text.endswith("\n")
    return text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["topic", "create"], "Missing argument 'TOPIC'"),
        (["topic", "list", "--bogus"], "No such option"),
        (["topic", "create", "A", "--partitions", "0"], "--partitions"),
        (["topic", "create", "A", "--set", "retention=1d"], "retention_ms"),
        (["topic", "alter", "A"], "nothing to change"),
        (["topic", "list", "--connect", "localhost"], "not of the form tcp://HOST:PORT"),
        (
            ["topic", "list", "--connect", "x"],
            "'--connect' (or in PLANARIA_CONNECT, PLANARIA_ENDPOINT): 'x' is not",
        ),
        (["status", "--connect", "tcp://::1:5570"], "with an IPv6 address in brackets"),
        (["status", "--connect", "ipc:///tmp/x"], "not of the form tcp://HOST:PORT"),
        (["status", "--connect", "tcp://a b:1"], "not of the form tcp://HOST:PORT"),
        (["status", "--connect", "tcp://a:1,b"], "'tcp://b' is not of the form tcp://HOST:PORT"),
        (["kill", "gateway/0", "--signal", "HUP"], "not one of SIGKILL, SIGTERM"),
        (["group", "reset", "g", "--to", "soonish"], "neither earliest, latest"),
        (["group", "reset", "g"], "Missing option '--to'"),
        (["group", "reset", "g", "--to", "latest", "--partition", "1"], "requires --topic"),
        (["produce", "A", "--key-field", "id"], "is for --format json"),
        (["produce", "A", "--format", "json", "--key-separator", ":"], "is for --format lines"),
        (["produce", "A", "--header", "x"], "not like NAME=VALUE"),
        (["produce", "A", "--acks", "2"], "--acks"),
        (["consume", "A", "--group", "g", "--partition", "1"], "cannot be combined with --group"),
        (["consume", "A", "--format", "xml"], "--format"),
        (["consume"], "Missing argument"),
        (["serve", "--set", "topic_defaults.flsh=os"], "topic_defaults.flush"),
        (["serve", "--set", "endpoint"], "not like KEY=VALUE"),
        (["bench", "--rows", "nothing"], "no row 'nothing'"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str, capsys: Captured) -> None:
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert message in one_line(captured.err)
    assert "--help)" in captured.err
    assert captured.out == ""


@pytest.mark.parametrize("arguments", [[], ["topic"], ["group"]])
def test_without_a_command_the_help(arguments: list[str], capsys: Captured) -> None:
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert "Usage: planaria" in captured.out + captured.err


def test_version(capsys: Captured) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out.startswith("planaria 0.")
    assert run("version") == 0


def paths(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, each in getattr(command, "commands", {}).items():
        yield from paths(each, (*path, name))


@pytest.mark.parametrize("path", list(paths(root())), ids=" ".join)
def test_help_of_every_command_fits_the_screen(
    path: tuple[str, ...], capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(*path, "--help") == 0
    shown = capsys.readouterr().out
    assert "Usage: planaria" in shown
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize(
    "arguments", [["status"], ["topic", "list", "--json"], ["consume", "A"], ["produce", "A"]]
)
def test_nobody_there(
    arguments: list[str], endpoint: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CONNECT_TIMEOUT_S", 0.2)
    started_at = time.monotonic()
    assert run(*arguments, "--connect", endpoint) == 1
    assert time.monotonic() - started_at < TIMEOUT_S / 2
    captured = capsys.readouterr()
    assert one_line(captured.err) == f'planaria: no broker at {endpoint}: is "planaria serve" running?\n'
    assert captured.out == ""


@pytest.mark.parametrize(
    ("variables", "reached"),
    [
        ({"PLANARIA_CONNECT": "{}"}, "{}"),
        ({"PLANARIA_ENDPOINT": "{}"}, "{}"),
        ({"PLANARIA_CONNECT": "{}", "PLANARIA_ENDPOINT": "tcp://127.0.0.1:1"}, "{}"),
        ({"PLANARIA_ENDPOINT": "tcp://*:1"}, "tcp://127.0.0.1:1"),
        ({"PLANARIA_ENDPOINT": "tcp://127.0.0.1:*"}, "'tcp://127.0.0.1:*' is not of the form"),
    ],
)
def test_the_endpoint_comes_from_the_environment(
    endpoint: str,
    variables: dict[str, str],
    reached: str,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "CONNECT_TIMEOUT_S", 0.2)
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(endpoint))
    assert run("status") > 0
    assert reached.format(endpoint) in one_line(capsys.readouterr().err)


def test_every_command_with_a_connection_reads_the_endpoint_from_the_environment() -> None:
    options = [each for command in every_command() for each in command.params if "--connect" in each.opts]
    assert len(options) > 20
    assert all(each.envvar == ["PLANARIA_CONNECT", "PLANARIA_ENDPOINT"] for each in options)


def test_every_argument_and_every_option_has_a_description() -> None:
    for command in every_command():
        for each in command.params:
            assert getattr(each, "help", None), (command.name, each.name)
            assert each.metavar or each.is_flag or each.type.name != "text", (command.name, each.name)


def test_no_help_text_names_a_type_of_the_parser() -> None:
    for command in every_command():
        text = help_of(command, command.make_context(command.name, [], resilient_parsing=True))
        assert not re.search(r"<\w+>|default: \]|\bNone\b|\b(BOOLEAN|INTEGER|FLOAT|bool|int|str)\b", text), (
            text
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--hang-timeout-ms", "0"], "hang_timeout_ms"),
        (["--endpoint", "here"], "endpoint"),
        (["--log-level", "loud"], "log_level"),
        (["--config", "nothing.toml"], "nothing.toml does not exist"),
        (["--set", "topic_defaults.flush=never"], "flush"),
    ],
)
def test_serve_refuses_a_wrong_configuration(arguments: list[str], message: str, capsys: Captured) -> None:
    assert run("serve", *arguments) == 1
    assert message in one_line(capsys.readouterr().err)


def test_serve_reads_planaria_toml(tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "planaria.toml").write_text("endpont = 'tcp://127.0.0.1:1'\n")
    monkeypatch.chdir(tmp_path)
    assert run("serve") == 1
    assert "the nearest known one is 'endpoint'" in one_line(capsys.readouterr().err)


def test_an_unreadable_file(tmp_path: Path, capsys: Captured) -> None:
    assert run("produce", "A", "--file", str(tmp_path / "no.txt")) == 1
    assert "No such file or directory" in one_line(capsys.readouterr().err)


def test_bugs_are_one_line_and_say_how_to_see_more(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    assert exit_code_for(ZeroDivisionError("division\nby zero")) == 1
    assert one_line(capsys.readouterr().err) == (
        "planaria: ZeroDivisionError: division by zero (an error in Planaria: PLANARIA_TRACEBACK=1 shows where)\n"
    )
    monkeypatch.setenv("PLANARIA_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError) as raised:
        _ = 1 / 0
    assert exit_code_for(raised.value) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (PlanariaError("no\nluck"), "planaria: no luck"),
        (
            ProtocolError(ErrorCode.UNKNOWN_TOPIC, "no topic 'A'"),
            "planaria: no topic 'A'; \"planaria topic list\" shows all topics (UNKNOWN_TOPIC)",
        ),
        (ProtocolError(ErrorCode.OVERLOADED, "too much"), "planaria: too much (OVERLOADED)"),
        (ProtocolError("FROM_THE_FUTURE", "what?"), "planaria: what? (FROM_THE_FUTURE)"),
    ],
)
def test_refusals_say_what_to_do(error: Exception, line: str, capsys: Captured) -> None:
    assert exit_code_for(error) == 1
    assert one_line(capsys.readouterr().err) == line + "\n"


def test_an_interrupt_is_130(capsys: Captured) -> None:
    assert exit_code_for(KeyboardInterrupt()) == 130
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.processes
def test_as_a_program() -> None:
    program = Command("topic", "create")
    code, output, errors = program.finish()
    assert (code, output) == (2, "")
    assert one_line(errors).startswith("planaria topic create: Missing argument")

"""Output into a pipe whose reader has gone, as with `| head -1`, ends a command quietly."""

import io
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from command_line import PROGRAM, TIMEOUT_S, ServedBroker, environment, leaves
from planaria import Client
from planaria.supervisor.cli.app import run

pytestmark = pytest.mark.processes


def into_a_closed_pipe(*arguments: str, **variables: str) -> tuple[int, bytes]:
    """Return the exit code and errors of a command whose reader left before it wrote anything."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [*PROGRAM, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=subprocess.PIPE,
            env=environment(**variables),
            timeout=TIMEOUT_S,
            check=False,
        )
    finally:
        os.close(writer)
    return done.returncode, done.stderr


def into_a_closed_pipe_here(*arguments: str) -> tuple[int, str]:
    """Do the same in this process. The end of the block flushes the output, as the interpreter's exit would."""
    reader, writer = os.pipe()
    os.close(reader)
    errors = io.StringIO()
    with (
        open(writer, "w", encoding="utf-8") as stdout,
        mock.patch.dict(os.environ, environment(), clear=True),
        mock.patch.multiple(sys, stdin=io.TextIOWrapper(io.BytesIO()), stdout=stdout, stderr=errors),
    ):
        code = run(arguments)
    return code, errors.getvalue()


@pytest.mark.parametrize("arguments", [["--help"], ["topic", "--help"], ["--version"], ["version"]])
def test_what_needs_no_broker(arguments: list[str]) -> None:
    assert into_a_closed_pipe(*arguments) == (0, b"")


def prepare(broker: ServedBroker, *arguments: str, given: str = "") -> None:
    """Run a command in this process, which takes an eighth of the processor time of a process of its own."""
    with (
        mock.patch.dict(os.environ, environment(), clear=True),
        mock.patch.multiple(
            sys,
            stdin=io.TextIOWrapper(io.BytesIO(given.encode())),
            stdout=io.TextIOWrapper(io.BytesIO()),
            stderr=(errors := io.StringIO()),
        ),
    ):
        assert run([*arguments, "--connect", broker.endpoint]) == 0, errors.getvalue()


@pytest.fixture(scope="module")
def filled(broker: ServedBroker) -> ServedBroker:
    """A broker with content for every command to show, and to delete; what one deletes no other needs."""
    for topic in ("SHOWN", "DELETED", "SHOWN.dlq", "PURGED.dlq"):
        prepare(broker, "topic", "create", topic)
    prepare(broker, "produce", "SHOWN", given="1\n" * 2_000)
    for topic in ("SHOWN.dlq", "PURGED.dlq"):
        prepare(broker, "produce", topic, "-H", "dead-letter-reason=why", given="x\ny\n")
    for group in ("shown", "deleted"):
        prepare(broker, "consume", "SHOWN", "--group", group, "--from-beginning", "-n", "1")
    for name in ("kept", "called-off"):
        with Client(broker.endpoint) as client:
            client.publish("SHOWN", b"x", delay=3_600, scheduled_id=name)
    prepare(broker, "group", "create", "jobs")
    for user in ("ann", "removed"):
        prepare(broker, "quota", "set", user, "--produce-bytes", "1MB")
        prepare(broker, "user", "add", user, "--token")
    for key in (SHOWN_KEY, DISABLED_KEY):
        prepare(broker, "key", "create", "ann", "--public-key", key)
    for resource in ("topic:SHOWN", "group:jobs"):
        prepare(broker, "acl", "grant", "ann", "manage", resource)
    return broker


SHOWN_KEY = ":!l847wYIYtVw+<:a8^>ktbA=eonbph-WYuJF4ZN"
DISABLED_KEY = "6>K*:dYh6DKo.A7cR[Y@Xon+wFhm)PjhK9%?J}wx"
CREATED_KEY = "VG2U7L(>E%4D1mZGja<x[!<>Jqh*O80Xx1vdsnc2"
ATTACHED = [
    "status",
    "status --json",
    "deploy list --json",
    "status --check",
    "health",
    "lag",
    "top --once --interval 0.1",
    "lag --json",
    "kill partition/SHOWN/0",
    "revive controller",
    "quota set ann --fetch-bytes 1MB",
    "quota list",
    "quota list --json",
    "quota remove removed",
    "topic create CREATED",
    "topic list",
    "topic list --json",
    "topic describe SHOWN",
    "topic describe SHOWN --json",
    "topic alter SHOWN --set retention_ms=1d",
    "topic delete DELETED --yes",
    "produce SHOWN",
    "consume SHOWN --from-beginning -n 500",
    "consume SHOWN --from-beginning --format json",
    "consume SHOWN --group shown --timeout 5",
    "inflight SHOWN",
    "find SHOWN --json =1",
    "find SHOWN.dlq --header dead-letter-reason=why",
    "trace why --header dead-letter-reason --since beginning",
    "group list",
    "group list --json",
    "group describe shown",
    "group describe shown --json",
    "group create others",
    "group pause jobs",
    "group resume jobs",
    "group reset shown --to earliest",
    "group delete deleted --yes",
    "delayed list",
    "delayed list --json",
    "delayed cancel called-off",
    "transaction list",
    "user add bob --token",
    "user roles ann readers",
    "user list",
    "user list --json",
    "user disable ann",
    "user enable ann",
    f"key create ann --public-key {CREATED_KEY}",
    "key list",
    "key list --json",
    "acl grant ann produce topic:SHOWN",
    "acl list",
    "acl list --json",
    "acl test ann manage topic:SHOWN",
    "acl revoke ann manage group:jobs",
    f"key disable ann {DISABLED_KEY}",
    "user remove removed",
    "deploy list",
    "dlq list SHOWN.dlq",
    "dlq show SHOWN.dlq 0",
    "dlq redrive SHOWN.dlq --to SHOWN --limit 1",
    "dlq redrive SHOWN.dlq --dry-run",
    "dlq purge PURGED.dlq --yes",
]


@pytest.mark.parametrize("line", ATTACHED)
def test_every_command_that_asks_a_broker(filled: ServedBroker, line: str) -> None:
    assert into_a_closed_pipe_here(*line.split(), "--connect", filled.endpoint) == (0, "")


@pytest.mark.parametrize("line", ["status", "topic list --json", "consume SHOWN --from-beginning"])
def test_a_table_an_object_and_a_stream_in_a_process(filled: ServedBroker, line: str) -> None:
    assert into_a_closed_pipe(*line.split(), "--connect", filled.endpoint) == (0, b"")


def test_a_backup_and_its_readers(filled: ServedBroker, tmp_path: Path) -> None:
    backups, restored = str(tmp_path / "backups"), str(tmp_path / "data")
    assert into_a_closed_pipe_here("backup", backups, "--connect", filled.endpoint) == (0, "")
    for reader in (["verify", backups], ["restore", backups, restored]):
        assert into_a_closed_pipe_here(*reader) == (0, "")


def test_every_command_is_tried() -> None:
    tried = {tuple(line.split()[: len(path)]) for line in ATTACHED for path in leaves()}
    by_themselves = {("audit",), ("serve",), ("recover",), ("version",), ("demo",), ("chaos",), ("bench",)}
    of_backups = {("backup",), ("verify",), ("restore",)}
    elsewhere = {path for path in leaves() if path[0] in ("cluster", "console", "deploy", "mirror", "worker")}
    of_keys = {("security", "init"), ("key", "rotate"), ("key", "export"), ("user", "passwd")}
    assert set(leaves()) - tried - elsewhere == by_themselves | of_backups | of_keys


def test_watching_ends(filled: ServedBroker) -> None:
    for options in (["--json"], []):
        watching = ["status", "--watch", "--interval", "0.1", *options]
        assert into_a_closed_pipe(*watching, "--connect", filled.endpoint) == (0, b"")


@pytest.mark.parametrize("arguments", [["demo", "--duration", "1"], ["chaos", "--duration", "1"]])
def test_what_has_a_broker_of_its_own_ends_it(arguments: list[str], tmp_path: Path) -> None:
    assert into_a_closed_pipe(*arguments, TMPDIR=str(tmp_path)) == (0, b"")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_is_told_in_one_line(unbuffered: str) -> None:
    """What is left in a buffer fails no second time at the end of the process."""
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*PROGRAM, "version"],
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(PYTHONUNBUFFERED=unbuffered),
            timeout=TIMEOUT_S,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, b"planaria: standard output: No space left on device\n")


def test_a_failure_stays_a_failure() -> None:
    code, errors = into_a_closed_pipe("topic", "describe", "X", "--connect", "tcp://127.0.0.1:1")
    assert code == 1
    assert errors.startswith(b"planaria: no broker at")

"""The commands in docs/security.md that lead from nothing to a secured broker do so, as they stand there; and those that
change credentials and rules afterwards."""

import json
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import pytest

from command_line import ServedBroker, planaria
from live_trees import until
from planaria import Client
from planaria.supervisor.free_ports import free_ports
from planaria.transport.audit_record import Outcome
from planaria.transport.protocol.errors import ErrorCode, ProtocolError
from planaria.transport.security.key_files import read_key_file
from source_tree import ROOT

pytestmark = pytest.mark.processes

HEADING = "## From nothing to a secured broker\n\n```bash\n"
MAX_COMMANDS = 10


class Walked:
    """A broker that the commands have secured, in a folder with their key files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.endpoint = f"tcp://127.0.0.1:{free_ports(1)[0]}"
        self.variables: dict[str, str] = {}
        self.broker: ServedBroker | None = None
        walk = self._commands()
        assert len(walk) <= MAX_COMMANDS
        for words in walk:
            match words:
                case ["export", *given]:
                    self.variables |= dict(each.split("=", 1) for each in given)
                case ["planaria", "serve", "--data", data, "--endpoint", _, "&"]:
                    self.broker = ServedBroker(Path(data), self.endpoint)
                case ["planaria", "acl", "test", *rest]:
                    assert "no rule" in self.run("acl", "test", *rest, code=1)
                case _:
                    self.run(*words[1:])

    def _commands(self) -> list[list[str]]:
        """Return the words of each command, for this folder and endpoint."""
        block = (ROOT / "docs" / "security.md").read_text().partition(HEADING)[2].partition("```")[0]
        for there, here in (
            ("/var/lib/planaria", os.fspath(self.folder / "data")),
            ("tcp://0.0.0.0:5570", self.endpoint),
            ("tcp://broker.example:5570", self.endpoint),
        ):
            assert there in block
            block = block.replace(there, here)
        return [shlex.split(line, comments=True) for line in block.splitlines()]

    def run(self, *words: str, given: str = "", code: int = 0) -> str:
        done = planaria(*words, given=given, **self.variables)
        assert done.returncode == code, (words, done)
        return done.stdout

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json"))

    def credentials(self, principal: str) -> list[dict[str, Any]]:
        [found] = [each for each in self.json("key", "list")["principals"] if each["principal"] == principal]
        credentials: list[dict[str, Any]] = found["credentials"]
        return credentials

    @contextmanager
    def by(self, name: str) -> Iterator[Client]:
        with Client(self.endpoint, key=self.folder / f"{name}.key") as client:
            yield client

    def close(self) -> None:
        if self.broker is not None:
            self.broker.interrupt()
            self.broker.finish()


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walked]:
    folder, before = tmp_path_factory.mktemp("walk"), Path.cwd()
    os.chdir(folder)  # `admin.key` and others are relative
    try:
        made = Walked(folder)
        yield made
        made.close()
    finally:
        os.chdir(before)


def is_refused(client: Client) -> bool:
    try:
        client.publish("orders", {"n": 0})
    except ProtocolError as error:
        return error.code == ErrorCode.UNAUTHENTICATED
    return False


def test_ten_commands_lead_from_nothing_to_a_secured_broker(walked: Walked) -> None:
    with walked.by("shop") as shop, walked.by("billing") as billing:
        shop.publish("orders", {"n": 1})
        with billing.consumer("billing", ["orders"], auto_offset_reset="earliest") as consumer:
            messages = until(lambda: consumer.poll(1.0), "the message")
        assert [message.data for message in messages] == [{"n": 1}]
        with pytest.raises(ProtocolError) as refused:
            billing.publish("orders", {"n": 2})
        assert refused.value.code == ErrorCode.FORBIDDEN


def test_a_key_is_rotated_exported_and_removed(walked: Walked) -> None:
    old = read_key_file(walked.folder / "shop.key")
    walked.run("key", "rotate", "shop", "--out", "shop2.key", "--grace", "1h")
    kept = {each["credential"]: each["expires_ms"] for each in walked.credentials("shop")}
    new = read_key_file(walked.folder / "shop2.key")
    assert kept.keys() == {old.public_key, new.public_key}
    assert kept[old.public_key] > 0 == kept[new.public_key], "the earlier one expires"
    exported = walked.run("key", "export", "shop2.key")
    assert new.public_key in exported
    assert new.secret_key not in exported
    with walked.by("shop") as by_old, walked.by("shop2") as by_new:
        for client in (by_old, by_new):
            client.publish("orders", {"n": 3})
        walked.run("key", "disable", "shop", old.public_key)
        until(lambda: is_refused(by_old), "the old key is refused on its open connection")
        by_new.publish("orders", {"n": 4})


def test_the_audit_is_read_as_the_page_says(walked: Walked) -> None:
    page = (ROOT / "docs" / "security.md").read_text()
    block = page.partition("```bash\nplanaria audit")[2].partition("```")[0]
    table, _, found = (shlex.split(line, comments=True) for line in f"audit{block}".splitlines())
    assert "create_topic" in walked.run(*table)
    records = [json.loads(line) for line in walked.run(*found[1 : found.index("|")]).splitlines()]
    outcomes = get_args(Outcome)
    assert found[-1] == 'select(.outcome == "refused")'
    assert "refused" in outcomes
    assert {each["outcome"] for each in records} <= set(outcomes)


def test_users_have_passwords_tokens_and_roles_until_they_are_taken_away(walked: Walked) -> None:
    server_key = read_key_file(walked.folder / "shop2.key").server_key
    walked.run("acl", "grant", "role:sellers", "produce", "topic:orders")
    walked.run("user", "add", "ann", "--role", "sellers", given="first horse\n")
    token = walked.run("user", "add", "bob", "--token", "--role", "sellers").strip()
    assert "role:sellers" in walked.run("acl", "test", "ann", "produce", "topic:orders")
    with (
        Client(walked.endpoint, server_key=server_key, user="ann", password="first horse") as ann,
        Client(walked.endpoint, server_key=server_key, token=token) as bob,
    ):
        for client in (ann, bob):
            client.publish("orders", {"n": 5})
        walked.run("user", "passwd", "ann", given="second horse\n")
        [token_id] = [each["credential"] for each in walked.credentials("bob") if each["kind"] == "token"]
        walked.run("key", "disable", "bob", token_id)
        for client in (ann, bob):
            until(lambda client=client: is_refused(client), "the session has ended")
    with Client(walked.endpoint, server_key=server_key, user="ann", password="second horse") as ann:
        ann.publish("orders", {"n": 6})
        walked.run("user", "disable", "ann")
        until(lambda: is_refused(ann), "disabled")
        walked.run("user", "enable", "ann")
        until(lambda: not is_refused(ann), "enabled")
        walked.run("user", "roles", "ann")
        walked.run("acl", "test", "ann", "produce", "topic:orders", code=1)
    walked.run("user", "remove", "ann")
    walked.run("user", "remove", "bob")
    # The commands of the page for a user of the TLS door.
    page = (ROOT / "docs" / "security.md").read_text()
    for line in page.partition("```bash\nplanaria user add ")[2].partition("```")[0].splitlines():
        words = shlex.split(line, comments=True)
        walked.run(*(words[1:] if words[0] == "planaria" else ("user", "add", *words)))
    walked.run("acl", "test", "reporting", "consume", "topic:orders")
    walked.run("user", "remove", "reporting")
    assert {each["principal"] for each in walked.json("user", "list")["principals"]} == {"shop", "billing"}


def test_a_rule_that_denies_wins_and_rules_are_listed_and_revoked(walked: Walked) -> None:
    rule = ("shop", "produce", "topic:ord*")
    walked.run("acl", "grant", *rule, "--deny")
    denied = json.loads(walked.run("acl", "test", "shop", "produce", "topic:orders", "--json", code=1))
    assert (denied["is_allowed"], denied["rule"]["effect"], denied["rule"]["resource"]) == (
        False,
        "deny",
        "topic:ord*",
    )
    listed = walked.json("acl", "list")["rules"]["shop"]
    assert {(each["effect"], each["resource"]) for each in listed} == {
        ("allow", "topic:orders"),
        ("deny", "topic:ord*"),
    }
    walked.run("acl", "revoke", *rule, "--deny")
    assert json.loads(walked.run("acl", "test", "shop", "produce", "topic:orders", "--json"))["is_allowed"]

"""The commands in docs/security.md that lead from nothing to a secured broker do so, as they stand there."""

import os
import shlex
from pathlib import Path

import pytest

from command_line import ServedBroker, planaria
from live_trees import until
from planaria import Client
from planaria.supervisor.free_ports import free_ports
from planaria.transport.protocol.errors import ErrorCode, ProtocolError
from source_tree import ROOT

pytestmark = pytest.mark.processes

HEADING = "## From nothing to a secured broker\n\n```\n"
MAX_COMMANDS = 10


def commands(folder: Path, endpoint: str) -> list[list[str]]:
    """Return the words of each command, for this folder and endpoint."""
    block = (ROOT / "docs" / "security.md").read_text().partition(HEADING)[2].partition("```")[0]
    for there, here in (
        ("/var/lib/planaria", os.fspath(folder / "data")),
        ("tcp://0.0.0.0:5570", endpoint),
        ("tcp://broker.example:5570", endpoint),
    ):
        assert there in block
        block = block.replace(there, here)
    return [shlex.split(line, comments=True) for line in block.splitlines()]


def test_ten_commands_lead_from_nothing_to_a_secured_broker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = f"tcp://127.0.0.1:{free_ports(1)[0]}"
    monkeypatch.chdir(tmp_path)
    variables: dict[str, str] = {}
    broker: ServedBroker | None = None
    walk = commands(tmp_path, endpoint)
    assert len(walk) <= MAX_COMMANDS
    try:
        for words in walk:
            match words:
                case ["export", *given]:
                    variables |= dict(each.split("=", 1) for each in given)
                case ["planaria", "serve", "--data", data, "--endpoint", _, "&"]:
                    broker = ServedBroker(Path(data), endpoint)
                case _:
                    done = planaria(*words[1:], **variables)
                    is_denied = words[1:3] == ["acl", "test"]
                    assert done.returncode == int(is_denied), (words, done)
                    assert not is_denied or "no rule" in done.stdout
        with Client(endpoint, key="shop.key") as shop, Client(endpoint, key="billing.key") as billing:
            shop.publish("orders", {"n": 1})
            with billing.consumer("billing", ["orders"], auto_offset_reset="earliest") as consumer:
                messages = until(lambda: consumer.poll(1.0), "the message")
            assert [message.data for message in messages] == [{"n": 1}]
            with pytest.raises(ProtocolError) as refused:
                billing.publish("orders", {"n": 2})
            assert refused.value.code == ErrorCode.FORBIDDEN
    finally:
        if broker is not None:
            broker.interrupt()
            broker.finish()

"""The clients in other languages publish once, read, and tell the three outcomes of a request apart."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from patience import TIMEOUT_S
from planaria import Broker, Client
from planaria.supervisor.free_ports import free_ports
from planaria.supervisor.security import initialise
from planaria.transport.client.security_admin import SecurityAdmin
from planaria.transport.security.key_files import new_key_pair, write_key_file
from planaria.transport.security.rights import Rule
from tls_certificates import make_certificates

pytestmark = pytest.mark.processes

CLIENTS = Path(__file__).resolve().parents[2] / "examples" / "clients"


class Program(NamedTuple):
    """A program, the file that a build leaves, and the command for that build."""

    tool: str
    arguments: list[str]
    built: str
    build: str
    is_over_tls: bool = False
    """It has a token, and no key file."""


PROGRAMS = {
    "python": Program(sys.executable, ["client.py"], "client.py", ""),
    "node": Program("node", ["example.mjs"], "node_modules/zeromq", "npm install"),
    "java": Program(
        "java", ["-cp", "target/classes:target/lib/*", "planaria.Example"], "target/lib", "mvn package"
    ),
    "go": Program(
        os.fspath(CLIENTS / "go" / "build" / "example"),
        [],
        "build/example",
        "go build -o build/example",
        is_over_tls=True,
    ),
    "rust": Program(
        os.fspath(CLIENTS / "rust" / "build" / "example"),
        [],
        "build/example",
        "cargo build",
        is_over_tls=True,
    ),
}


class Secured(NamedTuple):
    endpoint: str
    key: Path
    door: str
    authority: str
    token: str


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("clients")
    server = initialise(folder / "data", folder / "admin.key")
    files = make_certificates(folder)
    [port] = free_ports(1)
    door = f"tls://127.0.0.1:{port}"
    pair = new_key_pair("shop", server.public_key)
    write_key_file(folder / "shop.key", pair, "Key of shop.")
    with (
        Broker(
            folder / "data",
            endpoint="tcp://127.0.0.1:*",
            tls_endpoint=door,
            tls_certificate=files["server.crt"],
            tls_key=files["server.key"],
        ) as broker,
        Client(broker.endpoint, key=folder / "admin.key") as client,
    ):
        security = SecurityAdmin.over(client)
        security.add_key("shop", pair.public_key)
        security.grant("shop", Rule(rights=("produce", "consume"), resource="topic:ORDERS"))
        client.create_topic("ORDERS", 1)
        token, _ = security.add_token("shop")
        yield Secured(broker.endpoint, folder / "shop.key", door, files["ca.crt"], token)


@pytest.mark.parametrize("language", PROGRAMS)
def test_a_client_publishes_once_reads_and_has_three_outcomes(secured: Secured, language: str) -> None:
    program, folder = PROGRAMS[language], CLIENTS / language
    tool = shutil.which(program.tool)
    broker, credential, environment = secured.endpoint, os.fspath(secured.key), dict(os.environ)
    if program.is_over_tls:
        broker, credential = secured.door, secured.authority
        environment["PLANARIA_TOKEN"] = secured.token
    if tool is None or not (folder / program.built).exists():
        pytest.skip(f"needs the result of `{program.build}` in {folder}")
    done = subprocess.run(
        [tool, *program.arguments, broker, credential, "ORDERS"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "hello shop",
        "published duplicate=false",
        "published duplicate=false",
        "published duplicate=true",
        f"consumed k order {language}-1",
        f"consumed k order {language}-2",
        "fail FORBIDDEN retriable=false",
        "unknown",
    ]


def test_a_key_file_that_others_may_read_is_refused_by_every_client(secured: Secured, tmp_path: Path) -> None:
    key = tmp_path / "open.key"
    shutil.copy(secured.key, key)
    key.chmod(0o644)
    for language, program in PROGRAMS.items():
        tool, folder = shutil.which(program.tool), CLIENTS / language
        if program.is_over_tls or tool is None or not (folder / program.built).exists():
            continue
        command = [tool, *program.arguments, secured.endpoint, os.fspath(key), "ORDERS"]
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        assert done.returncode != 0
        assert "others may read it" in done.stderr

"""Every public request at every door of a broker, by raw clients: strangers, and a principal without rights, with all
rights, and disabled while its requests wait. tests/gateway/test_access.py tries the exact rights of each request."""

import base64
import json
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from live_trees import until, until_state
from patience import TIMEOUT_S
from planaria import Broker, Client
from planaria.actors.gateway.needs import needs_of
from planaria.supervisor.free_ports import free_ports
from planaria.supervisor.security import initialise
from planaria.transport.client.security_admin import SecurityAdmin
from planaria.transport.protocol.errors import ErrorCode, ProtocolError
from planaria.transport.security.curve import ClientKeys
from planaria.transport.security.key_files import new_key_pair, read_key_file
from planaria.transport.security.rights import RIGHTS, RIGHTS_ON, Rule
from raw_dealer import RawDealer
from request_samples import samples
from tls_certificates import make_certificates
from tls_client import PlainTls

pytestmark = pytest.mark.processes

DOORS = ("curve", "token", "tls", "certificate")
RESOURCES = {"topic": "topic:*", "group": "group:*", "transaction": "transaction:*", "cluster": "cluster"}
REFUSED = {ErrorCode.UNAUTHENTICATED, ErrorCode.FORBIDDEN}
NO_ANSWER = {"cancel"}
PROVEN = {"deploy", "change_deployment"}
"""Requests that carry a proof as well, which no client can make without the broker's run directory."""
UNHURRIED = {"acquire", "reset_offsets"}
"""Requests that wait for a topic that is not there."""


def harmless(header: dict[str, Any]) -> dict[str, Any]:
    """Return a request that changes nothing that is there, and calls no other host."""
    topic = "T" if header["op"] in UNHURRIED else "NOWHERE"
    text = json.dumps(header, default=lambda _: "").replace("ORDERS", topic).replace("IMAGES", topic)
    text = text.replace("partition/", "elsewhere/").replace("tcp://paris:5570", "nowhere")
    changed: dict[str, Any] = json.loads(text)
    return changed


RAW = {str(header["op"]): harmless(header) for _, header, _ in samples()}
NEED_NOTHING = {str(header["op"]) for _, header, request in samples() if not needs_of(request)}
Raw = RawDealer | PlainTls


class Doors:
    def __init__(self, folder: Path) -> None:
        self.files = make_certificates(folder)
        self.log = folder / "data" / "logs" / "broker.log"
        self.admin_key = folder / "admin.key"
        server = initialise(folder / "data", folder / "admin.key")
        self.server_key, self.server_secret = server.public_key, server.secret_key
        self.url = f"tls://127.0.0.1:{free_ports(1)[0]}"
        self.broker = Broker(
            folder / "data",
            endpoint="tcp://127.0.0.1:*",
            tls_endpoint=self.url,
            tls_certificate=self.files["server.crt"],
            tls_key=self.files["server.key"],
            tls_client_ca=self.files["ca.crt"],
            http_endpoint="127.0.0.1:*",
            http_bridge=True,
        )
        self.admin = Client(self.broker.endpoint, key=folder / "admin.key")
        self.security = SecurityAdmin.over(self.admin)
        self.pair = new_key_pair("client", self.server_key)
        self.security.add_key("client", self.pair.public_key)  # the name in the certificate
        self.token, _ = self.security.add_token("client")
        self.admin.create_topic("T", 2)

    def stranger(self, door: str) -> Raw:
        if door in ("tls", "certificate"):
            return PlainTls(self.url, self.files["ca.crt"])
        return RawDealer(self.broker.endpoint, ClientKeys(new_key_pair(), self.server_key))

    def known(self, door: str) -> Raw:
        if door == "curve":
            return RawDealer(self.broker.endpoint, ClientKeys(self.pair, self.server_key))
        if door == "certificate":
            own = (self.files["client.crt"], self.files["client.key"])
            return PlainTls(self.url, self.files["ca.crt"], own)
        made = self.stranger(door)
        assert made.ask(op="hello", id=1, token=self.token)["principal"] == "client"
        return made

    def grant_everything(self, *, is_granted: bool) -> None:
        change = self.security.grant if is_granted else self.security.revoke
        for kind, resource in RESOURCES.items():
            rights = tuple(right for right in RIGHTS if right in RIGHTS_ON[kind])  # type: ignore[index]
            change("client", Rule(rights=rights, resource=resource))

    def close(self) -> None:
        self.admin.close()
        self.broker.close()


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    made = Doors(tmp_path_factory.mktemp("doors"))
    try:
        yield made
    finally:
        made.close()


def codes(client: Raw, ops: set[str]) -> dict[str, str]:
    """Send these requests at once; return the codes of their answers, empty for success."""
    numbers = dict(enumerate(sorted(ops), 100))
    for number, op in numbers.items():
        waits = {"max_wait_ms": 0} if "max_wait_ms" in RAW[op] else {}
        client.send(**RAW[op] | waits | {"id": number})
    found: dict[str, str] = {}
    while len(found) < len(numbers):
        answer = client.answer()
        assert answer is not None, sorted(ops - set(found))
        found[numbers[answer["id"]]] = answer.get("error", {}).get("code", "")
    return found


ANSWERED = set(RAW) - NO_ANSWER


@pytest.mark.parametrize("door", DOORS)
def test_a_stranger_is_served_nothing(doors: Doors, door: str) -> None:
    with doors.stranger(door) as client:
        assert set(codes(client, ANSWERED).values()) == {ErrorCode.UNAUTHENTICATED}


def test_the_sockets_of_actors_serve_no_client_anything(doors: Doors) -> None:
    actors = {actor.address: actor.endpoint for actor in doors.broker.status().actors if actor.endpoint}
    assert "partition/T/0" in actors
    for address, endpoint in actors.items():
        if endpoint.startswith("ipc://"):
            with RawDealer(endpoint) as client:
                answers = codes(client, ANSWERED)
            unserved = {ErrorCode.UNAUTHENTICATED, ErrorCode.UNKNOWN_OP}
            assert set(answers.values()) <= unserved, (address, answers)


@pytest.mark.parametrize("door", DOORS)
def test_a_principal_is_served_without_a_right_nothing_and_with_it_all(doors: Doors, door: str) -> None:
    with doors.known(door) as client:
        without = codes(client, ANSWERED - {"hello"})
        assert {op for op, code in without.items() if code != ErrorCode.FORBIDDEN} <= NEED_NOTHING
        assert not REFUSED & {without[op] for op in NEED_NOTHING - NO_ANSWER - {"hello"}}
        doors.grant_everything(is_granted=True)
        try:
            until(lambda: client.ask(op="status", id=1) != ErrorCode.FORBIDDEN, "the rights are there")
            found = codes(client, ANSWERED - PROVEN - {"hello"})
            assert not {op: code for op, code in found.items() if code in REFUSED}
        finally:
            doors.grant_everything(is_granted=False)
        until(lambda: client.ask(op="status", id=2) == ErrorCode.FORBIDDEN, "the rights are gone")


def test_requests_that_wait_end_at_every_door_when_the_principal_is_disabled(doors: Doors) -> None:
    waiting: dict[str, dict[str, Any]] = {
        "fetch": {"topic": "T", "partition": 0, "offset": 0, "max_wait_ms": 60_000},
        "acquire": {"group": "w", "topics": ["T"], "max_wait_ms": 60_000},
    }
    doors.grant_everything(is_granted=True)
    with ExitStack() as stack:
        clients = {door: stack.enter_context(doors.known(door)) for door in DOORS}
        for door, client in clients.items():
            until(lambda client=client: client.ask(op="status", id=1) != ErrorCode.FORBIDDEN, door)
            for number, (op, fields) in enumerate(waiting.items(), 10):
                client.send(op=op, id=number, **fields, **({"member_id": door} if op == "acquire" else {}))
        doors.security.disable("client")
        try:
            for door, client in clients.items():
                ended = [client.answer() for _ in waiting]
                assert {each["error"]["code"] for each in ended} == {ErrorCode.UNAUTHENTICATED}, door
                assert set(codes(client, ANSWERED).values()) == {ErrorCode.UNAUTHENTICATED}
        finally:
            doors.security.disable("client", False)


def test_the_audit_has_the_address_of_a_client_behind_the_tls_door(doors: Doors) -> None:
    doors.security.grant("client", Rule(rights=("manage",), resource="topic:FAR"))
    with PlainTls(doors.url, doors.files["ca.crt"], source="127.0.0.2") as client:
        client.ask(op="hello", id=1, token=doors.token)
        until(lambda: "topic" in client.ask(op="create_topic", id=2, topic="FAR", partitions=1), "created")

    def addresses() -> set[str]:
        records = [json.loads(message.data) for message in doors.admin.read("__audit")]
        return {each["address"] for each in records if each.get("resource") == "topic:FAR"}

    until(lambda: addresses() == {"127.0.0.2"}, "it is in the audit")


def by_http(doors: Doors, authorization: str) -> int:
    http = next(actor.endpoint for actor in doors.broker.status().actors if actor.address == "http")
    assert http is not None
    request = Request(f"{http}/topics", headers={"Authorization": authorization})
    try:
        with urlopen(request, timeout=TIMEOUT_S) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code


def test_no_secret_is_in_logs_status_audit_tracebacks_or_process_lists(doors: Doors) -> None:
    """Last, since all doors have been used: good credentials and wrong ones, and processes that end with a traceback."""
    password, wrong = "visible horse", "guessed horse"
    doors.security.set_password("client", password)
    shown = []
    for given in (password, wrong):
        basic = base64.b64encode(f"client:{given}".encode()).decode()
        shown.append(basic)
        by_http(doors, f"Basic {basic}")
        with doors.stranger("tls") as tls, doors.stranger("token") as curve:
            for raw in (tls, curve):
                raw.ask(op="hello", id=1, user="client", password=given)
    assert by_http(doors, f"Bearer {doors.token}") == 200
    bad_token = doors.token[:-4] + "ZZZZ"
    assert by_http(doors, f"Bearer {bad_token}") == 401
    for options in ({"token": bad_token}, {"user": "client", "password": wrong}):
        with Client(doors.broker.endpoint, server_key=doors.server_key, **options) as client:  # type: ignore[arg-type]
            try:
                client.list_topics()
            except ProtocolError:
                shown_error = traceback.format_exc()
            else:
                raise AssertionError("it was admitted")
        assert not [each for each in (bad_token, wrong) if each in shown_error + repr(client)]
    for address in ("gateway/0", "door/tls", "http"):
        doors.broker.kill(address, "SIGABRT")
        until_state(doors.admin, address, "ready")
    until(lambda: "Fatal Python error: Aborted" in doors.log.read_text(), "a traceback")
    admin = read_key_file(doors.admin_key)
    secret_keys = [admin.secret_key, doors.pair.secret_key, doors.server_secret]
    secrets = [
        password,
        wrong,
        *shown,
        max(doors.token.split("_"), key=len),
        max(bad_token.split("_"), key=len),
        *secret_keys,
    ]
    audit = [message.data for message in doors.admin.read("__audit")]
    seen = doors.log.read_text() + repr((doors.broker.status(), doors.security.principals(), audit))
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            seen += process.read_bytes().decode(errors="replace")
    assert [secret for secret in secrets if secret in seen] == []

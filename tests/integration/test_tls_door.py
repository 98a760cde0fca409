"""The TLS door: clients without CURVE are served as their tokens and certificates allow, and no others."""

import asyncio
import os
import socket
import ssl
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import handshake_abusers
import planaria.aio
from abuse_victim import FLOOR_MS, Seen, Victim, crowd, restarts
from abuse_victim import TOPIC as VICTIM_TOPIC
from doors import DoorBroker
from handshake_abusers import ABUSERS
from live_trees import until, until_state
from patience import TIMEOUT_S
from planaria import Client
from planaria.transport.protocol.errors import ErrorCode, ProtocolError
from planaria.transport.security.curve import ClientKeys
from planaria.transport.security.key_files import new_key_pair
from planaria.transport.security.rights import Rule
from planaria.transport.security.tls_options import Tls
from recorder import Recorder
from tls_certificates import make_certificates
from tls_client import GREETING, PlainTls
from warm_start import WarmPopen

pytestmark = pytest.mark.processes

DOOR = "door/tls"


class Doors(DoorBroker):
    """A TLS door, and principals that may use the topic ORDERS."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, tls_max_connections=200)
        self.admin.create_topic("ORDERS", 1)
        self.token, self.token_id = self.security.add_token("bob")
        self.security.add_token("client")  # the name in the certificate
        for name in ("bob", "client"):
            self.grant(name)
        self.tls = Tls(ca=self.files["ca.crt"])

    def grant(self, name: str) -> None:
        self.security.grant(name, Rule(rights=("produce", "consume"), resource="topic:ORDERS"))

    def revoke(self, name: str) -> None:
        self.security.revoke(name, Rule(rights=("produce", "consume"), resource="topic:ORDERS"))

    def client(self, url: str, *, over_tls: bool) -> Client:
        if over_tls:
            return Client(url, tls=self.tls, token=self.token)
        return Client(url, token=self.token, server_key=self.server_key)

    def end(self) -> int:
        with Client(self.url, tls=self.tls, token=self.token) as client:
            return client.publish("ORDERS", "end").offset


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    made = Doors(tmp_path_factory.mktemp("doors"))
    try:
        yield made
    finally:
        made.close()


def code_of(client: Client) -> str:
    with pytest.raises(ProtocolError) as refused:
        client.list_topics()
    return refused.value.code


def is_closed(connection: socket.socket) -> bool:
    """Return True when the other side has closed the connection; waits for it."""
    try:
        while connection.recv(4_096):
            pass
    except ConnectionError:
        pass
    return True


def test_clients_with_a_token_or_a_certificate_publish_and_read_over_tls(doors: Doors) -> None:
    certificate, key = doors.own_certificate
    with (
        Client(doors.url, tls=doors.tls, token=doors.token) as bob,
        Client(doors.url, tls=Tls(ca=doors.files["ca.crt"], certificate=certificate, key=key)) as certified,
    ):
        first = bob.publish("ORDERS", {"amount": 1}, key="k").offset
        certified.publish("ORDERS", "x" * 900_000)  # many parts, in both directions
        found = [message.data for message in bob.read("ORDERS", since={0: first})]
        assert found[:2] == [{"amount": 1}, "x" * 900_000]
        assert [each.topic for each in certified.list_topics()] == ["ORDERS"]

    async def by_tasks() -> int:
        async with planaria.aio.connect(doors.url, tls=doors.tls, token=doors.token) as client:
            return (await client.publish("ORDERS", "async")).offset

    assert asyncio.run(by_tasks()) > first


def test_a_client_in_any_language_is_served_what_its_principal_may_and_no_more(doors: Doors) -> None:
    publish = {"op": "publish", "topic": "ORDERS", "records": [{"value_text": "raw"}]}
    with doors.plain() as stranger:
        for header in (publish, {"op": "list_topics"}, {"op": "status"}, {"op": "hello"}):
            assert stranger.ask(id=1, **header) == ErrorCode.UNAUTHENTICATED
        for token in ("planaria_x", doors.token[:-1] + "_"):
            assert stranger.ask(op="hello", id=2, token=token) == ErrorCode.UNAUTHENTICATED
        greeting = stranger.ask(op="hello", id=3, token=doors.token)
        assert greeting["principal"] == "bob"
        assert isinstance(stranger.ask(id=4, **publish), dict)
        assert stranger.ask(op="status", id=5) == ErrorCode.FORBIDDEN
        with doors.plain() as another:
            assert another.ask(id=1, **publish) == ErrorCode.UNAUTHENTICATED, "a session is its connection's"
    with doors.plain(is_certified=True) as certified:
        greeting = certified.ask(op="hello", id=1)
        assert greeting["principal"] == "client"
        assert greeting["expires_ms"] > 0, "with the certificate"
        assert isinstance(certified.ask(id=2, **publish), dict)
        assert certified.ask(op="delete_topic", topic="ORDERS", id=3) == ErrorCode.FORBIDDEN


def test_what_is_revoked_ends_on_open_connections_and_parked_requests_too(doors: Doors) -> None:
    fetch = {"op": "fetch", "topic": "ORDERS", "partition": 0, "max_wait_ms": 50_000}
    with doors.plain() as bob, doors.plain(is_certified=True) as certified:
        bob.ask(op="hello", id=1, token=doors.token)
        for client, name in ((bob, "bob"), (certified, "client")):
            end = doors.end() + 1
            client.send(id=2, offset=end, **fetch)
            doors.revoke(name)
            assert client.reply() == ErrorCode.FORBIDDEN
            doors.grant(name)
            until(
                lambda c=client: isinstance(c.ask(id=3, **fetch | {"max_wait_ms": 0, "offset": 0}), dict),
                "granted",
            )
        for client, name in ((bob, "bob"), (certified, "client")):
            client.send(id=4, offset=doors.end() + 1 if name == "bob" else 10**9, **fetch)
            doors.security.disable(name)
            assert client.reply() in (ErrorCode.UNAUTHENTICATED, ErrorCode.OFFSET_OUT_OF_RANGE)
            assert client.ask(id=5, **fetch, offset=0) == ErrorCode.UNAUTHENTICATED
            doors.security.disable(name, False)


def test_tls_without_trust_plain_bytes_and_a_foreign_certificate_reach_nothing(
    doors: Doors, tmp_path: Path
) -> None:
    with (
        Client(doors.url, token=doors.token, request_timeout_ms=1_000) as client,
        pytest.raises(ProtocolError, match="self-signed certificate"),
    ):
        client.list_topics()
    foreign = make_certificates(tmp_path)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        PlainTls(doors.url, doors.files["ca.crt"], (foreign["client.crt"], foreign["client.key"]))
    wrong = Tls(ca=doors.files["ca.crt"], certificate=foreign["client.crt"], key=foreign["client.key"])
    with (
        Client(doors.url, tls=wrong, request_timeout_ms=1_000) as client,
        pytest.raises(ProtocolError, match=r"no broker answers at tls://.*: .*unknown ca"),
    ):
        client.list_topics()
    host, port = "127.0.0.1", int(doors.url.rpartition(":")[2])
    for data in (GREETING, b"GET / HTTP/1.1\r\n\r\n", os.urandom(4_096), b"\x16\x03\x01\xff\xff" + bytes(99)):
        with socket.create_connection((host, port), 10) as raw:
            raw.sendall(data)
            assert is_closed(raw)


def test_a_new_certificate_is_used_by_new_connections_and_a_wrong_one_by_none(
    doors: Doors, tmp_path: Path
) -> None:
    files = make_certificates(tmp_path)
    used = {name: Path(doors.files[name]) for name in ("server.crt", "server.key")}
    former = {name: file.read_bytes() for name, file in used.items()}

    def replace(name: str, content: bytes) -> None:
        new = tmp_path / "new"
        new.write_bytes(content)
        new.chmod(0o600)
        new.replace(used[name])

    def alarms() -> tuple[str, ...]:
        return tuple(
            alarm for actor in doors.broker.status().actors if actor.address == DOOR for alarm in actor.alarms
        )

    try:
        deaths = restarts(doors.broker)
        with doors.plain() as open_before:
            replace("server.key", Path(files["server.key"]).read_bytes())
            until(
                lambda: any("the previous certificate stays in use" in each for each in alarms()), "an alarm"
            )
            with doors.plain() as another:
                assert another.ask(op="hello", id=1, token=doors.token)["principal"] == "bob"
            replace("server.crt", Path(files["server.crt"]).read_bytes())
            until(lambda: not alarms(), "no alarm")
            with PlainTls(doors.url, files["ca.crt"]) as new:
                assert new.ask(op="hello", id=1, token=doors.token)["principal"] == "bob"
            with pytest.raises(ssl.SSLCertVerificationError):
                doors.plain()
            assert open_before.ask(op="hello", id=1, token=doors.token)["principal"] == "bob"
        assert restarts(doors.broker) == deaths
        assert "the previous certificate stays in use" in doors.log.read_text(encoding="utf-8")
    finally:
        for name, content in former.items():
            replace(name, content)

    def is_former() -> bool:
        with suppress(ssl.SSLError):
            doors.plain().close()
            return True
        return False

    until(is_former, "the first certificate")


def test_clients_outlive_the_door_and_the_gateway(doors: Doors) -> None:
    with Client(doors.url, tls=doors.tls, token=doors.token) as client:
        with client.producer() as producer:
            deliveries = []
            for address in (DOOR, "gateway/0", DOOR):
                deliveries += [producer.publish("ORDERS", n) for n in range(50)]
                until_state(doors.admin, address, "ready")
                doors.broker.kill(address)
                deliveries += [producer.publish("ORDERS", n) for n in range(50)]
            offsets = [each.result(60).offset for each in deliveries]
        assert offsets == sorted(set(offsets)), "in order, none twice"


@pytest.fixture(scope="module")
def victim(doors: Doors) -> Iterator[Victim]:
    pair = new_key_pair("victim", doors.server_key)
    doors.security.add_key("victim", pair.public_key)
    doors.security.grant("victim", Rule(rights=("produce", "consume"), resource=f"topic:{VICTIM_TOPIC}"))
    doors.admin.create_topic(VICTIM_TOPIC, 1)
    victim = Victim(doors.broker.endpoint, keys=ClientKeys(pair, doors.server_key))
    victim.live(0.2)
    yield victim
    victim.close()


def suffer(doors: Doors, victim: Victim, name: str, seconds: float, connections: int) -> tuple[Seen, Seen]:
    before = victim.live(seconds / 4)
    ports = [endpoint.rpartition(":")[2] for endpoint in (doors.url, doors.broker.endpoint)]
    program = [sys.executable, handshake_abusers.__file__, name]
    rest = [str(seconds), str(connections)]
    abusers = [WarmPopen([*program, port, *rest]) for port in ports]
    try:
        during = victim.live(seconds)
    finally:
        codes = [abuser.wait(120) for abuser in abusers]
    print(f"\n{name:12} before {before}\n{'':12} during {during}")
    assert codes == [0, 0]
    return before, during


@pytest.mark.parametrize("name", ABUSERS)
def test_handshakes_that_are_not_completed_delay_no_other_client(
    doors: Doors, victim: Victim, name: str
) -> None:
    deaths = restarts(doors.broker)
    before, during = suffer(doors, victim, name, 1.0, 1_500)
    assert during.percentile(50) <= max(FLOOR_MS * max(1.0, crowd()), 20 * before.percentile(50))
    assert not during.refused
    assert restarts(doors.broker) == deaths
    with Client(doors.url, tls=doors.tls, token=doors.token) as client:
        client.publish("ORDERS", "the door serves on")


@pytest.mark.chaos
@pytest.mark.parametrize("name", ABUSERS)
def test_ten_thousand_half_open_connections_delay_99_of_100_requests_by_50_ms_at_most(
    doors: Doors, victim: Victim, name: str
) -> None:
    is_quiet = crowd() <= 1.0
    _, during = suffer(doors, victim, name, 15.0, 10_000)
    assert not during.refused
    if not is_quiet:
        pytest.skip("the machine has other work: the figures are printed, and prove nothing")
    assert during.percentile(99) <= 50


@pytest.mark.parametrize("over_tls", [False, True], ids=["curve", "tls"])
def test_bytes_of_an_authenticated_connection_sent_again_do_nothing(doors: Doors, *, over_tls: bool) -> None:
    url = doors.url if over_tls else doors.broker.endpoint
    with Recorder(int(url.rpartition(":")[2])) as recorder:
        through = f"{url.partition(':')[0]}://127.0.0.1:{recorder.port}"
        with doors.client(through, over_tls=over_tls) as client:
            client.publish("ORDERS", "recorded")
        sent = recorder.sent
    end = doors.end()
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), TIMEOUT_S) as again:
        for part in sent:
            with suppress(OSError):
                again.sendall(part)
        assert is_closed(again)
    assert doors.end() == end + 1

"""A broker with authentication: served are those who may, over every way there is to it, and until that changes."""

import asyncio
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import planaria.aio
from command_line import planaria as command
from live_trees import until
from patience import TIMEOUT_S, wait_until
from planaria import AuthenticationFailed, Broker, Client
from planaria.supervisor.admin_link import AdminLink
from planaria.supervisor.run_directory import supervisors_at
from planaria.supervisor.security import initialise
from planaria.transport.addresses import TopicPartition
from planaria.transport.client.security_admin import SecurityAdmin
from planaria.transport.protocol.errors import ErrorCode, ProtocolError
from planaria.transport.security.curve import ClientKeys
from planaria.transport.security.key_files import new_key_pair, write_key_file
from planaria.transport.security.keys import KeyPair
from planaria.transport.security.rights import Rule
from raw_dealer import RawDealer
from worker_process import WorkerProcess

pytestmark = pytest.mark.processes


class Secured:
    """A broker with keys, and its administrator."""

    def __init__(self, folder: Path) -> None:
        self.server = initialise(folder / "data", folder / "admin.key")
        self.broker = Broker(folder / "data", endpoint="tcp://127.0.0.1:*")
        self.endpoint = self.broker.endpoint
        self.admin_key = folder / "admin.key"
        self.log = folder / "data" / "logs" / "broker.log"
        self.client = Client(self.endpoint, key=self.admin_key)
        self.security = SecurityAdmin.over(self.client)
        self.nosy: KeyPair | None = None

    def principal(self, name: str, **rights: str) -> KeyPair:
        """Make a principal with a key and `right=resource`; `topic_` and such begin a resource."""
        pair = new_key_pair(name, self.server.public_key)
        self.security.add_key(name, pair.public_key)
        for right, resource in rights.items():
            self.security.grant(name, Rule(rights=(right,), resource=resource))  # type: ignore[arg-type]
        return pair

    def close(self) -> None:
        self.client.close()
        self.broker.close()


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    made = Secured(tmp_path_factory.mktemp("secured"))
    try:
        made.client.create_topic("ORDERS", 1)
        yield made
    finally:
        made.close()


def keys_of(secured: Secured, pair: KeyPair | None = None) -> ClientKeys:
    return ClientKeys(pair or new_key_pair(), secured.server.public_key)


def topics(client: Client) -> list[str]:
    return [each.topic for each in client.list_topics()]


def code_of(call: Any) -> str:
    with pytest.raises(ProtocolError) as refused:
        call()
    return refused.value.code


def test_a_client_without_encryption_or_with_the_key_of_another_broker_gets_no_answer(
    secured: Secured,
) -> None:
    another = ClientKeys(new_key_pair(), new_key_pair().public_key)
    with RawDealer(secured.endpoint) as plain, RawDealer(secured.endpoint, another) as misled:
        for client in (plain, misled):
            client.send(op="list_topics", id=1)
        assert topics(secured.client) == ["ORDERS"]
        assert plain.reply(500) is None
        assert misled.reply(0) is None
    with Client(secured.endpoint) as client, pytest.raises(AuthenticationFailed, match="has authentication"):
        client.list_topics()


def test_an_unknown_key_is_served_nothing_but_the_greeting(secured: Secured) -> None:
    with RawDealer(secured.endpoint, keys_of(secured)) as stranger:
        for header in (
            {"op": "list_topics"},
            {"op": "status"},
            {"op": "kill", "address": "gateway/0"},
            {"op": "publish", "topic": "ORDERS", "records": [{"value_text": "x"}]},
            {"op": "hello"},
            {"op": "hello", "token": "planaria_x"},
            {"op": "hello", "user": "admin", "password": "admin"},
            {"op": "hello", "user": "internal", "password": ""},
        ):
            assert stranger.ask(id=1, **header) == ErrorCode.UNAUTHENTICATED, header
        assert stranger.ask(id=1, op="configure_partition", config={}) == ErrorCode.UNKNOWN_OP


def test_a_principal_may_do_what_its_rules_allow_and_sees_no_more(secured: Secured) -> None:
    secured.client.create_topic("SECRET", 1)
    pair = secured.principal("shop", produce="topic:ORD*")
    with Client(secured.endpoint, key=pair) as client:
        client.publish("ORDERS", "one", key="k")
        assert topics(client) == ["ORDERS"]
        assert code_of(lambda: client.publish("SECRET", "x")) == ErrorCode.FORBIDDEN
        assert code_of(lambda: client.delete_topic("ORDERS")) == ErrorCode.FORBIDDEN
        assert code_of(lambda: client.kill("gateway/0")) == ErrorCode.FORBIDDEN
        assert code_of(lambda: SecurityAdmin.over(client).principals()) == ErrorCode.FORBIDDEN
        consumer = client.consumer("billing", ["ORDERS"], auto_offset_reset="earliest")
        assert code_of(lambda: consumer.poll(TIMEOUT_S)) == ErrorCode.FORBIDDEN
    with RawDealer(secured.endpoint, keys_of(secured, pair)) as raw:
        greeting = raw.ask(op="hello", id=1)
        assert (greeting["principal"], greeting["expires_ms"]) == ("shop", 0)
        metadata = raw.ask(op="metadata", id=2)
        assert [topic["topic"] for topic in metadata["topics"]] == ["ORDERS"]
        assert metadata["topics"][0]["partitions"][0]["endpoint"] is None, "no way around the gateway"


def test_a_topic_without_a_right_is_refused_at_once_and_hides_no_other_topic(secured: Secured) -> None:
    for topic in ("HIDDEN", "OPEN", "OPEN.LATER"):
        secured.client.create_topic(topic, 1)
    pair = secured.principal("visitor", consume="topic:OPEN*")
    with Client(secured.endpoint, key=pair) as client:
        with client.consumer(partitions=[TopicPartition("HIDDEN", 0)]) as consumer:
            assert code_of(lambda: consumer.poll(TIMEOUT_S)) == ErrorCode.FORBIDDEN
        assert client.list_offsets("OPEN", 0) is not None
        assert code_of(lambda: client.list_offsets("HIDDEN", 0)) == ErrorCode.FORBIDDEN
        assert client.list_offsets("OPEN.LATER", 0) is not None
        secured.security.grant("visitor", Rule(rights=("consume",), resource="topic:HIDDEN"))

        def is_found() -> bool:
            try:
                return client.list_offsets("HIDDEN", 0) is not None
            except ProtocolError:
                return False

        until(is_found, "the granted topic is found")


def test_the_sockets_of_actors_are_closed_to_clients(secured: Secured) -> None:
    address = next(each for each in secured.broker.status().actors if each.address == "partition/ORDERS/0")
    assert address.endpoint is not None
    with RawDealer(address.endpoint) as direct:
        for header in (
            {"op": "fetch", "topic": "ORDERS", "partition": 0, "offset": 0},
            {"op": "list_offsets", "topic": "ORDERS", "partition": 0, "at": "latest"},
            {"op": "quotas_in_force"},
        ):
            assert direct.ask(id=1, **header) == ErrorCode.UNAUTHENTICATED


def test_a_parked_request_ends_when_the_right_is_revoked_and_the_next_is_refused(secured: Secured) -> None:
    pair = secured.principal("reader", consume="topic:ORDERS")
    with RawDealer(secured.endpoint, keys_of(secured, pair)) as raw:
        end = raw.ask(op="list_offsets", id=1, topic="ORDERS", partition=0, at="latest")["offset"]
        fetch = {"op": "fetch", "topic": "ORDERS", "partition": 0, "offset": end, "max_wait_ms": 50_000}
        raw.send(id=2, **fetch)
        secured.security.revoke("reader", Rule(rights=("consume",), resource="topic:ORDERS"))
        assert raw.reply() == ErrorCode.FORBIDDEN
        secured.security.grant("reader", Rule(rights=("consume",), resource="topic:ORDERS"))
        until(lambda: isinstance(raw.ask(id=3, **fetch | {"max_wait_ms": 0}), dict), "the right is back")
        raw.send(id=4, **fetch)
        secured.security.remove_credential("reader", pair.public_key)
        assert raw.reply() == ErrorCode.UNAUTHENTICATED
        assert raw.ask(id=5, **fetch) == ErrorCode.UNAUTHENTICATED


def test_tokens_and_passwords_outlive_the_gateway_and_end_when_they_are_removed(secured: Secured) -> None:
    token, token_id = secured.security.add_token("bob")
    secured.security.set_password("carl", "correct horse")
    for name in ("bob", "carl"):
        secured.security.grant(name, Rule(rights=("produce",), resource="topic:ORDERS"))
    server = secured.server.public_key
    with (
        Client(secured.endpoint, server_key=server, token=token) as bob,
        Client(secured.endpoint, server_key=server, user="carl", password="correct horse") as carl,
    ):
        for client in (bob, carl):
            client.publish("ORDERS", "before")
        secured.client.kill("gateway/0")
        for client in (bob, carl):
            client.publish("ORDERS", "after")
        secured.security.remove_credential("bob", token_id)
        secured.security.set_password("carl", "another horse")
        for client in (bob, carl):
            assert code_of(lambda client=client: client.publish("ORDERS", "x")) == ErrorCode.UNAUTHENTICATED
    with Client(secured.endpoint, server_key=server, user="carl", password="correct horse") as client:
        assert code_of(client.list_topics) == ErrorCode.UNAUTHENTICATED


def test_a_mirror_reads_with_a_key_a_password_or_a_token_and_says_what_it_lacks(
    secured: Secured, tmp_path: Path
) -> None:
    """Each mirror sees what its principal may consume, and no more."""
    for topic in ("KEY.T", "USER.T", "TOKEN.T"):
        secured.client.create_topic(topic, 1)
        secured.client.publish(topic, topic)
    pair = secured.principal("m.key", consume="topic:KEY.*")
    write_key_file(tmp_path / "m.key", pair, "a mirror")
    token, _ = secured.security.add_token("m.token")
    secured.security.set_password("m.user", "correct horse")
    secured.security.grant("m.token", Rule(rights=("consume",), resource="topic:TOKEN.*"))
    secured.security.grant("m.user", Rule(rights=("consume",), resource="topic:USER.*"))
    (tmp_path / "token").write_text(token + "\n")
    (tmp_path / "password").write_text("correct horse\n")
    server = secured.server.public_key
    credentials: dict[str, dict[str, str]] = {
        "key": {"key_file": str(tmp_path / "m.key")},
        "user": {"server_key": server, "user": "m.user", "password_file": str(tmp_path / "password")},
        "token": {"server_key": server, "token_file": str(tmp_path / "token")},
        "late": {"key_file": str(tmp_path / "late.key")},
    }
    with Broker(tmp_path / "here") as here:
        for name, options in credentials.items():
            here.create_mirror(name, "KEY.*" if name == "late" else "*", source=secured.endpoint, **options)

        def state(name: str) -> tuple[str, str, list[str]]:
            found = next(each for each in here.list_mirrors() if each.mirror == name)
            return found.state, found.reason, [each.topic for each in found.topics]

        wait_until(lambda: topics(here.client) == ["KEY.T", "TOKEN.T", "USER.T"])
        wait_until(lambda: all(list(here.read(topic)) for topic in topics(here.client)))
        assert [state(name)[2] for name in ("key", "user", "token")] == [["KEY.T"], ["USER.T"], ["TOKEN.T"]]
        wait_until(lambda: state("late")[0] == "unreachable")
        assert "late.key" in state("late")[1]
        write_key_file(tmp_path / "late.key", pair, "a mirror")
        wait_until(lambda: state("late")[0] == "running")
        secured.security.remove_credential("m.key", pair.public_key)
        wait_until(lambda: state("key")[1] != "")


def test_no_stranger_is_served_while_the_gateway_is_frozen_dead_or_restarting(secured: Secured) -> None:
    secured.client.kill("gateway/0", signal="SIGSTOP")
    with RawDealer(secured.endpoint, keys_of(secured)) as stranger, RawDealer(secured.endpoint) as plain:
        for client in (stranger, plain):
            client.send(op="list_topics", id=1)
        assert plain.reply(500) is None
        assert stranger.reply(0) is None
        secured.broker.kill("gateway/0", signal="SIGCONT")
        assert stranger.reply() == ErrorCode.UNAUTHENTICATED
        assert plain.reply(0) is None
    for _ in range(2):
        secured.client.kill("gateway/0")
        answer = None
        while answer != ErrorCode.UNAUTHENTICATED:  # until the next gateway answers
            assert answer in (None, ErrorCode.ACTOR_UNAVAILABLE), "it starts"
            with (
                RawDealer(secured.endpoint, keys_of(secured)) as stranger,
                RawDealer(secured.endpoint) as plain,
            ):
                for client in (stranger, plain):
                    client.send(op="list_topics", id=1)
                answer = stranger.reply()
                assert plain.reply(0) is None


def audited(secured: Secured, *options: str) -> list[dict[str, Any]]:
    done = command(
        "--key", str(secured.admin_key), "audit", "--json", *options, "--connect", secured.endpoint
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def be_refused(secured: Secured) -> None:
    """Have a principal refused fifty times, once. A gateway that is killed within the window loses its refusals."""
    if secured.nosy is None:
        secured.nosy = secured.principal("nosy", consume="topic:*")
        with RawDealer(secured.endpoint, keys_of(secured, secured.nosy)) as raw:
            for number in range(50):
                assert raw.ask(op="delete_topic", id=number, topic="ORDERS") == ErrorCode.FORBIDDEN


def test_acts_of_the_brokers_own_user_are_in_the_audit_too(secured: Secured) -> None:
    [control] = supervisors_at(secured.endpoint)
    with AdminLink(control, lambda: False) as link:
        link.kill("gateway/0")
        with pytest.raises(ProtocolError):
            link.revive("gateway/7")

    def found() -> list[tuple[str, str, str, str]]:
        kept = [each for each in audited(secured, "--principal", "internal") if ".supervisor." in each["id"]]
        return [(each["op"], each["resource"], each["outcome"], each.get("error", "")) for each in kept]

    expected = [
        ("kill", "actor:gateway/0", "done", ""),
        ("revive", "actor:gateway/7", "failed", "UNKNOWN_ACTOR"),
    ]
    until(lambda: found()[-2:] == expected, "they are written once")


def test_acts_are_in_the_audit_also_when_the_gateway_is_killed(secured: Secured) -> None:
    secured.client.create_topic("AUDITED", 1)
    secured.client.kill("gateway/0")
    secured.client.delete_topic("AUDITED")

    def outcomes() -> dict[tuple[str, str], list[str]]:
        found: dict[tuple[str, str], list[str]] = {}
        for each in audited(secured, "--principal", "admin", "--since", "10m"):
            found.setdefault((each["op"], each["resource"]), []).append(each["outcome"])
        return found

    until(lambda: len(outcomes().get(("delete_topic", "topic:AUDITED"), [])) >= 2, "the outcome is written")
    found = outcomes()
    assert found[("create_topic", "topic:AUDITED")] == ["begun", "done"]
    assert found[("kill", "actor:gateway/0")][-1] == "begun"
    # The one that found no gateway was sent again, perhaps.
    assert found[("delete_topic", "topic:AUDITED")][-1] in ("done", "failed")
    be_refused(secured)


def test_hosted_handlers_and_the_embedding_program_are_the_broker(secured: Secured, tmp_path: Path) -> None:
    secured.broker.create_topic("WORK", 1)
    secured.broker.subscribe("workers", "WORK", handler=Marks(os.fspath(tmp_path / "seen")))
    secured.broker.publish("WORK", "k", "v")
    until((tmp_path / "seen").exists, "the handler has run")


class Marks:
    def __init__(self, path: str) -> None:
        self._path = path

    def __call__(self, _message: object, _context: object) -> None:
        Path(self._path).touch()


def test_clients_for_asyncio_take_the_same_credentials(secured: Secured) -> None:
    pair = secured.principal("async", produce="topic:ORDERS")

    async def main() -> None:
        async with planaria.aio.connect(secured.endpoint, key=pair) as client:
            await client.publish("ORDERS", "x")
            with pytest.raises(ProtocolError, match="lacks"):
                await client.delete_topic("ORDERS")

    asyncio.run(main())


def test_clients_and_commands_find_the_broker_by_a_file(
    secured: Secured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, _ = secured.security.add_token("filed")
    secured.security.grant("filed", Rule(rights=("produce",), resource="topic:ORDERS"))
    file = tmp_path / "client.toml"
    server_key = secured.server.public_key
    file.write_text(f'url = "{secured.endpoint}"\nserver_key = "{server_key}"\ntoken = "{token}"\n')
    file.chmod(0o600)
    monkeypatch.setenv("PLANARIA_CONFIG", os.fspath(file))
    with Client() as client:
        assert topics(client) == ["ORDERS"]

    async def main() -> None:
        async with planaria.aio.connect() as client:
            await client.publish("ORDERS", "x")

    asyncio.run(main())
    done = command("topic", "list", "--json", PLANARIA_CONFIG=os.fspath(file))
    assert (done.returncode, [each["topic"] for each in json.loads(done.stdout)["topics"]]) == (0, ["ORDERS"])


def test_an_expired_key_is_refused_without_any_change_of_the_table(secured: Secured) -> None:
    pair = new_key_pair("brief", secured.server.public_key)
    secured.security.add_key("brief", pair.public_key, expires_ms=time.time_ns() // 1_000_000 + 1_500)
    secured.security.grant("brief", Rule(rights=("produce",), resource="topic:ORDERS"))
    with RawDealer(secured.endpoint, keys_of(secured, pair)) as raw:
        until(lambda: raw.ask(op="list_topics", id=1) == ErrorCode.UNAUTHENTICATED, "it has expired")


SHOP = """
from planaria import App, Context, Message

app = App("shop")

@app.subscribe("JOBS", group="billing", delivery="exactly-once", dead_letter="JOBS.dlq")
def charge(order: Message, context: Context) -> None:
    context.publish("PAID", order.value)
"""


def test_workers_and_deployments_have_the_rights_of_their_credentials(
    secured: Secured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over TCP, for a broker with authentication closes the sockets of its actors to clients."""
    (tmp_path / "shop.py").write_text(SHOP)
    for topic in ("JOBS", "JOBS.dlq", "PAID"):
        secured.client.create_topic(topic)
    pair = secured.principal("worker", consume="topic:JOBS")
    write_key_file(tmp_path / "worker.key", pair, "the worker")
    token, _ = secured.security.add_token("worker")
    monkeypatch.setenv("PLANARIA_KEY", str(tmp_path / "worker.key"))

    def refused() -> str:
        with WorkerProcess(tmp_path, secured.endpoint) as worker:
            assert worker.process.wait(TIMEOUT_S) == 1
            return worker.log()

    assert refused() == (
        "planaria: dead_letter: there is no topic 'JOBS.dlq', or none that these credentials may see\n"
    )
    secured.security.grant("worker", Rule(rights=("produce",), resource="topic:JOBS.dlq"))
    assert refused() == "planaria: worker lacks consume or queue or manage on group:billing (FORBIDDEN)\n"
    for right, resource in (("consume", "group:billing"), ("produce", "topic:PAID")):
        secured.security.grant("worker", Rule(rights=(right,), resource=resource))  # type: ignore[arg-type]
    secured.client.publish("JOBS", b"one")

    def paid() -> int:
        return secured.client.describe_topic("PAID").partitions[0].log_end_offset

    monkeypatch.delenv("PLANARIA_KEY")
    monkeypatch.setenv("PLANARIA_TOKEN", token)
    monkeypatch.setenv("PLANARIA_SERVER_KEY", secured.server.public_key)
    with WorkerProcess(tmp_path, secured.endpoint) as worker:
        worker.until_logged("FORBIDDEN: worker lacks produce on transaction:")
        secured.security.grant("worker", Rule(rights=("produce",), resource="transaction:*"))
        until(paid, "the job is handled")
        assert worker.stop() == 0
    secured.client.publish("JOBS", b"two")
    options = ("--handler", "shop:charge", "--app-dir", str(tmp_path), "--no-check")
    # Another group: the worker that has stopped keeps its partition of this one until its session ends.
    deploy = ("deploy", "shipping", "JOBS", *options, "--connect", secured.endpoint)
    denied = command("--key", str(tmp_path / "worker.key"), *deploy)
    assert (denied.returncode, denied.stderr.count("\n")) == (1, 1)
    assert "worker lacks" in denied.stderr
    admin = ("--key", str(secured.admin_key))
    before = paid()
    assert command(*admin, *deploy).returncode == 0
    until(lambda: paid() > before, "the deployment handles the next one, as the broker")
    assert command(*admin, "deploy", "delete", "shipping", "--yes", *deploy[-2:]).returncode == 0


def test_refusals_are_in_the_audit_and_only_operators_read_it(secured: Secured, tmp_path: Path) -> None:
    """Last, because the window that `be_refused` opens takes its time."""
    be_refused(secured)
    assert secured.nosy is not None
    key = tmp_path / "nosy.key"
    write_key_file(key, secured.nosy, "")
    done = command("--key", str(key), "audit", "--connect", secured.endpoint)
    assert (done.returncode, done.stdout) == (1, "")
    assert "nosy lacks operate on cluster" in done.stderr

    def counted() -> int:
        found = audited(secured, "--principal", "nosy")
        return sum(each["count"] for each in found if each.get("op") == "delete_topic")

    until(lambda: counted() == 50, "the window has ended")
    table = command("--key", str(secured.admin_key), "audit", "--connect", secured.endpoint, columns=200)
    assert "refused FORBIDDEN" in table.stdout
    assert code_of(lambda: secured.client.delete_topic("__audit")) == ErrorCode.FORBIDDEN

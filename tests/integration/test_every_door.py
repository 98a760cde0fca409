"""Every public request at every door of a broker with authentication: by strangers, and by principals with each right,
without it, when it is denied, and when it is revoked while the request waits. tests/support/rights_matrix.py says which
rights permit it."""

import base64
import json
import os
import signal
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from msgspec.structs import astuple

from doors import Doors, Raw
from live_trees import until, until_state
from patience import TIMEOUT_S
from planaria import Client
from planaria.actors.gateway.machine import REQUESTS
from planaria.transport.protocol.errors import ErrorCode, ProtocolError
from planaria.transport.security.key_files import read_key_file
from planaria.transport.security.rights import Rule
from raw_dealer import RawDealer
from rights_matrix import EXAMPLES, HOLDERS, NOBODY, Example, Holder, holder_of
from rights_of_calls import CALLS
from tls_client import PlainTls

pytestmark = pytest.mark.processes

DOORS = ("curve", "token", "tls", "certificate")
GREETING = Example("hello", "", {})
UNLISTED = {"hello", "cancel"}
"""Requests that need no principal, or have no answer."""
BARRIER = 10_000
FROZEN = ("partition/", "coordinator/", "transactions/", "scheduler/")
UNFROZEN = """
    create_topic alter_topic delete_topic describe_topic delete_group set_quota remove_quota list_quotas deploy
    change_deployment list_deployments read_deployment_output create_mirror change_mirror promote_mirror list_mirrors
    cluster_status change_node reassign_partitions plan_rebalance elect_leader add_credential remove_credential
    alter_principal remove_principal list_principals add_rule remove_rule list_rules test_access
"""
"""Requests that the controller answers, which has to revoke the rights meanwhile."""
ANOTHER = Holder("client", frozenset())
"""The principal of the certificate."""


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    made = Doors(tmp_path_factory.mktemp("doors"))
    try:
        of_calls = [holder_of(needs) for needs, _ in CALLS]
        for holder in {each.name: each for each in (*HOLDERS, *of_calls, ANOTHER)}.values():
            made.add(holder)
        yield made
    finally:
        made.close()


def send(client: Raw, examples: list[Example]) -> None:
    for number, example in enumerate(examples):
        client.send(op=example.op, id=number, **example.fields)


def errors(client: Raw, examples: list[Example]) -> list[dict[str, str]]:
    """Return the errors in the answers to these requests, empty ones for success."""
    found: dict[int, dict[str, str]] = {}
    while len(found) < len(examples):
        answer = client.answer()
        missing = [example for number, example in enumerate(examples) if number not in found]
        assert answer is not None, f"not answered: {missing}"
        found[answer["id"]] = answer.get("error", {"code": ""})
    return [found[number] for number in range(len(examples))]


def codes(client: Raw, examples: list[Example]) -> set[str]:
    send(client, examples)
    return {error["code"] for error in errors(client, examples)}


def lacks_right(error: dict[str, str]) -> bool:
    """Return True for a refusal for lack of a right; deployments are refused for lack of a proof as well."""
    assert error["code"] != ErrorCode.UNAUTHENTICATED
    return error["code"] == ErrorCode.FORBIDDEN and " lacks " in error["message"]


def holders_at(doors: Doors, door: str) -> Iterator[tuple[Holder, Raw]]:
    """Yield each holder and its connection. There is one certificate: its principal takes one role after the other."""
    if door == "certificate":
        with doors.raw(door, ANOTHER.name) as client:
            for holder in HOLDERS:
                doors.security.set_roles(ANOTHER.name, [holder.name])
                yield holder, client
        doors.security.set_roles(ANOTHER.name, [])
        return
    for holder in HOLDERS:
        with doors.raw(door, holder.name) as client:
            yield holder, client


def test_the_matrix_has_every_request() -> None:
    public = {str(kind.__struct_config__.tag) for kind in REQUESTS}
    assert {example.op for example in EXAMPLES} == public - UNLISTED


@pytest.mark.parametrize("door", DOORS)
def test_a_stranger_is_served_nothing(doors: Doors, door: str) -> None:
    with doors.stranger(door) as client:
        assert codes(client, [GREETING, *EXAMPLES]) == {ErrorCode.UNAUTHENTICATED}


def test_the_sockets_of_actors_serve_no_client_anything(doors: Doors) -> None:
    token = doors.tokens[holder_of("cluster:admin").name]
    greeting = Example("hello", "", {"token": token})
    actors = {actor.address: actor.endpoint for actor in doors.broker.status().actors if actor.endpoint}
    assert "partition/T/0" in actors
    for address, endpoint in actors.items():
        if endpoint.startswith("ipc://"):
            with RawDealer(endpoint) as client:
                found = codes(client, [greeting, *EXAMPLES])
            assert found <= {ErrorCode.UNAUTHENTICATED, ErrorCode.UNKNOWN_OP}, address


@pytest.mark.parametrize("door", DOORS)
def test_each_right_permits_what_the_matrix_says_and_no_more(doors: Doors, door: str) -> None:
    for holder, client in holders_at(doors, door):
        send(client, EXAMPLES)
        found = zip(EXAMPLES, errors(client, EXAMPLES), strict=True)
        wrong = [each for each, error in found if lacks_right(error) == holder.permits(each.needs)]
        assert not wrong, holder


@pytest.mark.parametrize("door", ["curve", "token", "tls"])
def test_the_client_may_with_exactly_the_rights_of_the_matrix(doors: Doors, door: str) -> None:
    with doors.client(door, NOBODY.name) as nobody, ExitStack() as stack:
        clients: dict[str, Client] = {}
        for number, (needs, call) in enumerate(CALLS):
            holder = holder_of(needs)
            if holder.name not in clients:
                clients[holder.name] = stack.enter_context(doors.client(door, holder.name))
            call(clients[holder.name], f"{door}-{number}")
            if needs:
                with pytest.raises(ProtocolError, match=" lacks ") as refused:
                    call(nobody, f"nobody-{door}-{number}")
                assert refused.value.code == ErrorCode.FORBIDDEN


@contextmanager
def frozen_actors(doors: Doors) -> Iterator[None]:
    """Stop the supervisor and all actors but the gateway and the controller: they answer nothing."""
    status = doors.broker.status()
    stopped = [each.pid for each in status.actors if each.address.startswith(FROZEN) and each.pid is not None]
    stopped.append(status.supervisor_pid)
    try:
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)


def answers_until(client: Raw, last: int) -> dict[int, dict[str, str]]:
    """Return the errors in the answers to requests, by number, up to the answer to this one."""
    found: dict[int, dict[str, str]] = {}
    while last not in found:
        answer = client.answer()
        assert answer is not None, f"after {sorted(found)}"
        found[answer["id"]] = answer.get("error", {"code": "", "message": ""})
    return found


def test_requests_in_flight_end_at_every_door_when_their_right_is_revoked(doors: Doors) -> None:
    """Requests to the controller are answered before or after: it is the one that revokes."""
    with doors.raw("curve", NOBODY.name) as client:
        poll = {"after_version": client.ask(op="metadata", id=1, topics=[])["version"], "max_wait_ms": 60_000}
    of: dict[str, list[Example]] = {}
    for op, needs, fields in map(astuple, EXAMPLES):
        if needs:
            of.setdefault(holder_of(needs).name, []).append(
                Example(op, needs, fields | poll if op == "metadata" else fields)
            )
    with ExitStack() as stack:
        clients = [
            (name, stack.enter_context(doors.raw(door, name)))
            for door in ("curve", "token", "tls")
            for name in of
        ]
        with frozen_actors(doors):
            answered = {}
            for name, client in clients:
                send(client, of[name])
                client.send(op="list_groups", id=BARRIER)
                answered[client] = answers_until(client, BARRIER)
            for name in of:
                doors.security.set_roles(name, [])
            for name, client in clients:
                found = answered[client]
                in_flight = {
                    number for number, each in enumerate(of[name]) if each.op not in UNFROZEN.split()
                }
                assert not in_flight & set(found), "they were answered"
                while in_flight - set(found):
                    answer = client.answer()
                    assert answer is not None, [of[name][number].op for number in in_flight - set(found)]
                    found[answer["id"]] = answer.get("error", {"code": ""})
                assert all(lacks_right(found[number]) for number in in_flight)
                send(client, of[name])
                assert all(map(lacks_right, errors(client, of[name])))
        for name in of:
            doors.security.set_roles(name, [name])


def test_requests_that_wait_end_at_every_door_when_the_principal_is_disabled(doors: Doors) -> None:
    doors.security.set_roles(ANOTHER.name, [holder_of("topic:consume").name])
    with ExitStack() as stack:
        clients = [stack.enter_context(doors.raw(door, ANOTHER.name)) for door in DOORS]
        for client in clients:
            client.send(op="fetch", id=1, topic="T.empty", partition=0, offset=0, max_wait_ms=60_000)
            client.send(op="list_groups", id=BARRIER)
            assert set(answers_until(client, BARRIER)) == {BARRIER}
        doors.security.disable(ANOTHER.name)
        try:
            for client in clients:
                assert client.reply() == ErrorCode.UNAUTHENTICATED
                assert codes(client, [GREETING, *EXAMPLES]) == {ErrorCode.UNAUTHENTICATED}
        finally:
            doors.security.disable(ANOTHER.name, False)


def test_the_audit_has_the_address_of_a_client_behind_the_tls_door(doors: Doors) -> None:
    doors.security.grant("client", Rule(rights=("manage",), resource="topic:FAR"))
    with PlainTls(doors.url, doors.files["ca.crt"], source="127.0.0.2") as client:
        client.ask(op="hello", id=1, token=doors.tokens["client"])
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
    assert by_http(doors, f"Bearer {doors.tokens['client']}") == 200
    bad_token = doors.tokens["client"][:-4] + "ZZZZ"
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
    secret_keys = [admin.secret_key, doors.pairs["client"].secret_key, doors.server_secret]
    secrets = [
        password,
        wrong,
        *shown,
        max(doors.tokens["client"].split("_"), key=len),
        max(bad_token.split("_"), key=len),
        *secret_keys,
    ]
    audit = [message.data for message in doors.admin.read("__audit")]
    seen = doors.log.read_text() + repr((doors.broker.status(), doors.security.principals(), audit))
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            seen += process.read_bytes().decode(errors="replace")
    assert [secret for secret in secrets if secret in seen] == []

"""Administrative acts and refusals become durable records, in order and once, whatever the partition does."""

from typing import Any

import msgspec
import pytest

from gateway_driver import GatewayDriver
from planaria.actors.gateway.access import Access
from planaria.actors.gateway.acts import details_of, resource_of
from planaria.actors.gateway.audit import MAX_RECORDS_PER_CALL, MAX_WAITING, RETRY_MS, Audit
from planaria.actors.gateway.keys import ActsWatch, AuditCall, AuditStart
from planaria.actors.gateway.refusals import MAX_KINDS, MAX_KINDS_OF_PRINCIPAL, WINDOW_MS, Refusal, Refusals
from planaria.actors.gateway.tickets import Tickets
from planaria.transport.addresses import AUDIT_TOPIC, Address
from planaria.transport.audit_record import AuditRecord, decode_record
from planaria.transport.batch import decode_records, parse_header
from planaria.transport.codec import encode_header
from planaria.transport.machine import Call, Disconnected, Received, Sender
from planaria.transport.protocol.control import AwaitActs, AwaitActsReply, EnsureInternalActors, OperatorAct
from planaria.transport.protocol.data import Produce, ProducedBatch, ProduceReply
from planaria.transport.protocol.deployments import Deploy, DeploymentSpec
from planaria.transport.protocol.errors import ErrorBody, ErrorCode
from planaria.transport.protocol.message import Done, ErrorReply
from planaria.transport.protocol.operations import Kill, Revive
from planaria.transport.protocol.security import AddCredential, AddRule
from planaria.transport.protocol.topics import AlterTopic, DeleteTopic, TopicConfigChange
from planaria.transport.request_context import RequestContext
from planaria.transport.security.credentials import TokenRecord
from planaria.transport.security.new_credentials import hash_password
from planaria.transport.security.rights import Rule

DONE = encode_header(Done(id=1))


@pytest.fixture
def gateway() -> GatewayDriver:
    gateway = GatewayDriver(is_audited=True).start(ORDERS=1)
    start = gateway.calls[0]
    assert start.key == AuditStart()
    assert start.request == EnsureInternalActors(topic=AUDIT_TOPIC)
    gateway.answer(Done(), call=start)
    gateway.calls.remove(acts_watch(gateway))
    return gateway


def audit_calls(gateway: GatewayDriver) -> list[Call]:
    return [call for call in gateway.calls if call.key == AuditCall()]


def records_of(call: Call) -> list[AuditRecord]:
    found = []
    for frame in call.payload:
        [(_, value, _, headers)] = decode_records(frame, parse_header(frame))
        assert headers is not None
        assert "dedup-id" in headers
        record = decode_record(value or b"")
        assert record is not None
        found.append(record)
    return found


def written(gateway: GatewayDriver, *errors: ErrorBody | None) -> list[AuditRecord]:
    """Let the partition take the records in flight."""
    [call] = audit_calls(gateway)
    records = records_of(call)
    batches = [ProducedBatch(0, error=error) for error in errors or [None] * len(records)]
    gateway.answer(ProduceReply(batches=batches, high_watermark=1), call=call)
    return records


def forwarded(gateway: GatewayDriver) -> Call:
    [call] = [call for call in gateway.calls if call.key != AuditCall()]
    return call


def test_the_beginning_of_an_act_leaves_in_front_of_it_and_its_outcome_follows(
    gateway: GatewayDriver,
) -> None:
    number = gateway.ask(DeleteTopic(topic="ORDERS"))
    assert [type(call.key).__name__ for call in gateway.calls] == ["AuditCall", "Forwarded"]
    gateway.answer(DONE, call=forwarded(gateway))
    assert number in gateway.replies, "no request waits for the audit"
    [begun] = written(gateway)
    [ended] = written(gateway)
    assert (begun.op, begun.resource, begun.outcome) == ("delete_topic", "topic:ORDERS", "begun")
    assert (ended.id, ended.op, ended.outcome) == (begun.id, "delete_topic", "done")
    assert not audit_calls(gateway)


@pytest.mark.parametrize(
    ("code", "outcome"),
    [("UNKNOWN_TOPIC", "failed"), ("TIMED_OUT", "unknown"), ("ACTOR_UNAVAILABLE", "unknown")],
)
def test_an_act_that_fails_has_its_error(gateway: GatewayDriver, code: str, outcome: str) -> None:
    gateway.ask(DeleteTopic(topic="ORDERS"))
    gateway.fail(code, forwarded(gateway))
    written(gateway)
    [ended] = written(gateway)
    assert (ended.outcome, ended.error) == (outcome, code)


@pytest.mark.parametrize("as_json", [True, False])
def test_a_refusal_that_an_actor_has_encoded_is_a_failure(gateway: GatewayDriver, as_json: bool) -> None:
    gateway.ask(DeleteTopic(topic="ORDERS"), as_json=as_json)
    refusal = ErrorReply(id=1, error=ErrorBody(ErrorCode.UNKNOWN_TOPIC, "there is none", False))
    gateway.answer(encode_header(refusal, as_json), call=forwarded(gateway))
    written(gateway)
    [ended] = written(gateway)
    assert (ended.outcome, ended.error) == ("failed", "UNKNOWN_TOPIC")


def test_an_act_whose_requester_is_gone_has_an_unknown_outcome(gateway: GatewayDriver) -> None:
    gateway.ask(DeleteTopic(topic="ORDERS"))
    gateway.give(Disconnected(b"client"))
    written(gateway)
    assert [each.outcome for each in written(gateway)] == ["unknown"]


def test_a_kill_of_the_gateway_itself_is_recorded_in_front_of_it(gateway: GatewayDriver) -> None:
    gateway.ask(Kill(address=Address.parse("gateway/0")))
    assert [(each.op, each.resource) for each in written(gateway)] == [("kill", "actor:gateway/0")]


def test_records_wait_while_the_partition_takes_none_and_are_written_once(gateway: GatewayDriver) -> None:
    gateway.ask(DeleteTopic(topic="ORDERS"))
    first = audit_calls(gateway)[0]
    assert first.is_endless
    gateway.fail("PARTITION_OFFLINE", first)
    assert not audit_calls(gateway)
    gateway.advance(1_000)
    again = audit_calls(gateway)[0]
    assert again.payload == first.payload, "with the same dedup ids"
    full = ErrorBody(ErrorCode.STORAGE_FULL, "full", True)
    written(gateway, full)
    gateway.advance(1_000)
    assert [each.outcome for each in written(gateway)] == ["begun"]


def test_records_beyond_the_room_are_counted(gateway: GatewayDriver) -> None:
    audit = gateway.machine.audit
    assert isinstance(audit, Audit)
    gateway.ask(DeleteTopic(topic="ORDERS"))
    for _ in range(MAX_WAITING + 7):
        audit._add(AuditRecord(id="x", time_ms=1, outcome="done"))
    found: list[AuditRecord] = []
    while audit_calls(gateway):
        part = written(gateway)
        assert len(part) <= MAX_RECORDS_PER_CALL
        found += part
    lost = [each for each in found if each.outcome == "lost"]
    assert len(found) - len(lost) == MAX_WAITING + 1
    assert [each.count for each in lost] == [7]


def test_a_stop_writes_the_window_and_waits_for_the_partition(gateway: GatewayDriver) -> None:
    gateway.ask(Produce(topic="__offsets", partition=0), b"x")
    assert not audit_calls(gateway), "counted until the window ends"
    gateway.stop()
    assert not gateway.stopped
    assert [each.error for each in written(gateway)] == ["FORBIDDEN"]
    assert gateway.stopped


def test_a_stop_does_not_wait_for_a_partition_that_is_gone(gateway: GatewayDriver) -> None:
    gateway.ask(Produce(topic="__offsets", partition=0), b"x")
    gateway.stop()
    gateway.advance(5_000)
    assert gateway.stopped


def test_a_flood_of_refusals_is_one_record(gateway: GatewayDriver) -> None:
    for _ in range(1_000):
        gateway.ask(Produce(topic="__offsets", partition=0), b"x")
    gateway.advance(WINDOW_MS)
    [record] = written(gateway)
    assert (record.op, record.count, record.outcome) == ("produce", 1_000, "refused")
    gateway.advance(WINDOW_MS)
    assert not audit_calls(gateway)


def test_one_principal_cannot_fill_the_window_of_the_others() -> None:
    refusals = Refusals()
    for number in range(10_000):
        refusals.count(Refusal("greedy", "fetch", f"topic:{number}", "FORBIDDEN"), "10.0.0.1", number)
        refusals.count(Refusal("", "fetch", f"topic:{number}", "UNAUTHENTICATED"), "10.0.0.2", number)
    refusals.count(Refusal("other", "fetch", "topic:X", "FORBIDDEN"), "10.0.0.3", 1)
    found = refusals.take()
    assert len(found) == MAX_KINDS_OF_PRINCIPAL + 3
    assert sum(each.count for each in found) == 20_001
    assert [each.count for each in found if not each.principal] == [10_000]
    assert [each.resource for each in found if each.principal == "other"] == ["topic:X"]


def test_many_principals_do_not_fill_the_disk() -> None:
    refusals = Refusals()
    for number in range(10_000):
        refusals.count(Refusal(f"p{number}", "fetch", "topic:X", "FORBIDDEN"), "", number)
    found = refusals.take()
    assert len(found) == MAX_KINDS + 1
    assert sum(each.count for each in found) == 10_000


def secrets() -> list[Any]:
    token = TokenRecord(token_id="0123456789ab", sha256="f" * 64, created_ms=1)
    password = hash_password("correct horse", 1, 0)
    spec = DeploymentSpec(handler="m:f", topics=["ORDERS"], environment={"API_TOKEN": "hunter2"})
    return [
        (AddCredential(principal="shop", token=token), token.sha256),
        (AddCredential(principal="shop", password=password), password.scrypt),
        (AddCredential(principal="shop", password=password), password.salt),
        (Deploy(group="g", spec=spec, proof="s3cret"), "hunter2"),
        (Deploy(group="g", spec=spec, proof="s3cret"), "s3cret"),
    ]


def test_no_record_has_a_secret() -> None:
    for request, secret in secrets():
        assert secret not in msgspec.json.encode(details_of(request)).decode()


def test_details_are_the_arguments_and_are_bounded() -> None:
    change = AlterTopic(topic="ORDERS", config=TopicConfigChange(retention_ms=1_000))
    assert details_of(change) == {"config": {"retention_ms": 1_000}}
    assert resource_of(change) == "topic:ORDERS"
    rule = AddRule(subject="role:readers", rule=Rule(rights=("consume",), resource="topic:*"))
    assert resource_of(rule) == "role:readers"
    large = Deploy(
        group="g",
        spec=DeploymentSpec(handler="m:f", topics=["T"] * 100, options={"x": "y" * 9_999}),
        proof="",
    )
    assert len(msgspec.json.encode(details_of(large))) < 10_000


def test_without_the_option_nothing_is_recorded() -> None:
    gateway = GatewayDriver().start(ORDERS=1)
    gateway.ask(DeleteTopic(topic="ORDERS"))
    gateway.ask(Produce(topic="__offsets", partition=0), b"x")
    gateway.advance(WINDOW_MS)
    assert [type(call.key).__name__ for call in gateway.calls] == ["Forwarded"]


def test_the_id_of_each_start_is_another() -> None:
    names = {_first_id(1), _first_id(2)}
    assert len(names) == 2


def _first_id(incarnation: int) -> str:
    gateway = GatewayDriver(incarnation, is_audited=True).start(ORDERS=1)
    gateway.ask(DeleteTopic(topic="ORDERS"))
    return records_of(audit_calls(gateway)[0])[0].id


def test_a_user_who_does_not_exist_is_not_named() -> None:
    access = Access("i" * 40, "a" * 40, takes_sessions=True)
    audit = Audit("x", {}, Tickets({}), access, "", is_on=True)
    audit.refuse_handshake("10.0.0.9", 5)
    audit.end_window()
    [effect] = audit.flush(1)[-1:]
    assert isinstance(effect, Call)
    [record] = records_of(effect)
    assert (record.op, record.principal, record.address) == ("handshake", "", "10.0.0.9")


def acts_watch(gateway: GatewayDriver) -> Call:
    [call] = [call for call in gateway.calls if call.key == ActsWatch()]
    return call


def test_acts_over_the_supervisors_socket_are_confirmed_once_they_are_durable() -> None:
    gateway = GatewayDriver(is_audited=True).start(ORDERS=1)
    gateway.answer(Done(), call=gateway.calls[0])
    watch = acts_watch(gateway)
    assert watch.request == AwaitActs(after=0)
    acts = [
        OperatorAct(1, "b1.supervisor.1", gateway.now - 7, Kill(address="gateway/0")),
        OperatorAct(2, "b1.supervisor.2", gateway.now, Revive(address="x"), ErrorCode.UNKNOWN_ACTOR),
    ]
    gateway.answer(AwaitActsReply(acts=acts), call=watch)
    busy = ErrorBody(ErrorCode.PARTITION_OFFLINE, "", True)
    first = written(gateway, None, busy)
    assert [(each.op, each.resource, each.principal, each.outcome, each.error) for each in first] == [
        ("kill", "actor:gateway/0", "internal", "done", ""),
        ("revive", "actor:x", "internal", "failed", "UNKNOWN_ACTOR"),
    ]
    assert first[0].time_ms == first[1].time_ms - 7
    assert not [call for call in gateway.calls if call.key == ActsWatch()], "the second is not durable"
    gateway.advance(RETRY_MS)
    assert [each.id for each in written(gateway)] == ["b1.supervisor.2"]
    assert acts_watch(gateway).request == AwaitActs(after=2)


def test_the_address_is_that_of_the_client_that_an_actor_asks_for(gateway: GatewayDriver) -> None:
    request = DeleteTopic(id=1, topic="ORDERS")
    sender = Sender((b"http/0.1", b""), 1)
    context = RequestContext(connection=b"http/0.1", address="10.9.9.9")
    gateway.give(Received(sender, request, (), encode_header(request), context))
    [record] = records_of(audit_calls(gateway)[0])
    assert (record.op, record.address) == ("delete_topic", "10.9.9.9")

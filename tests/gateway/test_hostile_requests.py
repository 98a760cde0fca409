"""For all requests of clients and answers of actors, the gateway answers each request once and does not crash."""

import contextlib
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from example_counts import examples
from gateway_driver import DECODER, GatewayDriver
from planaria.actors.gateway.machine import REQUESTS
from planaria.transport.codec import encode_header
from planaria.transport.machine import Received, Sender
from planaria.transport.protocol.data import FetchReply, ProducedBatch, ProduceReply
from planaria.transport.protocol.errors import ProtocolError
from planaria.transport.protocol.message import Done
from planaria.transport.protocol.operations import KillReply, StatusReply
from planaria.transport.protocol.session import Cancel

NAMES = st.sampled_from(["ORDERS", "NEW", "NOPE", "__offsets", "", "g", "../x", "a/b", "\x00"]) | st.text(
    max_size=9
)
NUMBERS = st.sampled_from([0, 1, 2, -1, 2**31, 2**63 - 1, 2**63, 2**64, -(2**63)]) | st.integers()
SCALARS = st.none() | st.booleans() | NUMBERS | NAMES | st.floats()
TEXTS = st.text(max_size=3) | st.none()
RECORDS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "key_text": TEXTS,
            "value_text": TEXTS,
            "value": st.sampled_from([None, "", "AAAA", "not base64!"]),
            "headers": st.dictionaries(TEXTS.filter(bool), st.text(max_size=3), max_size=2),
            "timestamp_ms": st.sampled_from([0, 1, 2**53, 2**63, -1]),
        },
    ),
    min_size=1,
    max_size=4,
)
OFFSETS = st.sampled_from([0, 5, 2**63 - 1, 2**63, -1])
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "topic": NAMES,
    "group": NAMES,
    "address": NAMES,
    "member_id": NAMES,
    "partition": st.sampled_from([0, 0, 1, 2, -1, 2**64]),
    "partitions": st.sampled_from([1, 3, 0, {"ORDERS": [0]}]),
    "topics": st.lists(NAMES, max_size=3) | st.none(),
    "records": RECORDS,
    "offset": OFFSETS,
    "before_offset": OFFSETS,
    "max_bytes": st.sampled_from([1, 2**20, 2**63, 0]),
    "min_bytes": st.sampled_from([0, 2**62]),
    "max_records": st.sampled_from([1, 500]),
    "max_wait_ms": st.sampled_from([0, 500, 60_000, 2**40]),
    "after_version": st.sampled_from([None, 0, 2**40, 2**70]),
    "generation": OFFSETS,
    "format": st.sampled_from(["records", "batches", None]),
    "acks": st.sampled_from([0, 1, "all", 2]),
    "at": st.sampled_from(["earliest", "latest"]) | NUMBERS,
    "offsets": st.sampled_from([[], [{"topic": "ORDERS", "partition": 0, "offset": 2**70}]]),
    "config": st.sampled_from([{}, {"retention_ms": -1}, {"flush": "never"}]),
    "version": st.sampled_from([1, 2, -(2**70)]),
}
BY_OP = {str(struct.__struct_config__.tag): struct for struct in REQUESTS if struct is not Cancel}


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """Draw a header of a real op, with most of its fields plausible."""
    op = draw(st.sampled_from(sorted(BY_OP)))
    request: dict[str, Any] = {"op": op, "id": draw(st.integers(0, 2**80))}
    for field in msgspec.structs.fields(BY_OP[op]):
        if field.name != "id" and (field.required or draw(st.integers(0, 3)) == 0):
            request[field.name] = draw(FIELDS.get(field.name, SCALARS))
    return msgspec.json.encode(request)


ANSWERS = st.sampled_from(["raw", "failed", "down", "typed"])
HAPPENINGS = st.sampled_from(["answer", "up", "down", "advance", "topics"])


@examples(300)
@given(st.lists(st.tuples(headers(), HAPPENINGS, ANSWERS), max_size=25), st.booleans())
def test_every_request_is_answered_once(steps: list[tuple[bytes, str, str]], with_topics: bool) -> None:
    gateway = GatewayDriver().start(**({"ORDERS": 2} if with_topics else {}))
    asked = 0
    for header, happening, answer in steps:
        with contextlib.suppress(ProtocolError):
            request = DECODER.decode(header)
            asked += getattr(request, "acks", None) != 0
            sender = Sender((b"client",), 1_000 + asked, True)
            gateway.give(Received(sender, request, (), header))
        happen(gateway, happening, answer)
    while gateway.calls:
        answer_one(gateway, "failed")
    gateway.advance(120_000)
    while gateway.calls:
        answer_one(gateway, "failed")
    gateway.stop()
    gateway.advance(10_000)
    assert len(gateway.replies) == asked
    assert gateway.stopped
    assert len(gateway.machine._tickets) == 0
    assert len(gateway.machine._router._waiting_room) == 0
    for body in gateway.replies.values():
        if not isinstance(body, bytes) and isinstance(body, Done | KillReply):
            encode_header(body, True)


def happen(gateway: GatewayDriver, happening: str, answer: str) -> None:
    match happening:
        case "answer" if gateway.calls:
            answer_one(gateway, answer)
        case "up":
            gateway.up("partition/NEW/0")
            gateway.up("coordinator/g")
        case "down":
            gateway.down("partition/ORDERS/1")
            gateway.down("coordinator/g", quarantined=answer == "down")
        case "advance":
            gateway.advance(1_700)
        case "topics" if gateway.is_watching:
            gateway.set_topics(**({"ORDERS": 2, "NEW": 2} if answer == "raw" else {"NEW": 1}))


def answer_one(gateway: GatewayDriver, answer: str) -> None:
    call = gateway.calls[0]
    if call.reply_type is None and answer != "failed":
        gateway.answer(b'{"id":1}', b"frame")
    elif answer == "failed" or call.reply_type in (None, StatusReply, KillReply):
        gateway.fail()
    elif call.reply_type is ProduceReply:
        gateway.answer(ProduceReply(batches=[ProducedBatch(0)] * (answer == "typed"), high_watermark=1))
    elif call.reply_type is FetchReply:
        reply = FetchReply(topic="", partition=0, log_start_offset=0, high_watermark=0, next_offset=0)
        gateway.answer(reply, *([b"no batch"] * (answer == "raw")))
    elif call.reply_type is Done:
        gateway.answer(Done())
    else:
        gateway.fail()

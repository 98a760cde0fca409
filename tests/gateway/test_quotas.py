"""Clients under a quota wait at the gateway, in order, and no others do."""

import msgspec
import pytest

from gateway_driver import DECODER, GatewayDriver
from planaria.actors.gateway.quotas import MAX_HOLD_MS, Quotas, forget_oldest
from planaria.transport.codec import encode_header
from planaria.transport.machine import Disconnected
from planaria.transport.protocol.data import (
    Fetch,
    FetchReply,
    Produce,
    ProducedBatch,
    ProduceReply,
    Publish,
    PublishRecord,
)
from planaria.transport.protocol.errors import ErrorBody, ErrorCode
from planaria.transport.protocol.message import Request
from planaria.transport.protocol.quotas import Quota
from planaria.transport.protocol.session import Hello, Metadata
from planaria.transport.protocol.topics import ListTopics
from planaria.transport.request_context import RequestContext
from planaria.transport.token_bucket import BURST_S, TokenBucket

RATE = 100_000
BURST = int(RATE * BURST_S)


@pytest.fixture
def gateway() -> GatewayDriver:
    gateway = GatewayDriver()
    gateway.quotas = {"greedy": Quota(produce_bytes=RATE, fetch_bytes=RATE)}
    gateway.start(ORDERS=2)
    for client in (b"greedy", b"other"):
        gateway.reply(Hello(client_id=client.decode()), client=client)
    return gateway


def produce(
    gateway: GatewayDriver, size_bytes: int = 10_000, acks: object = "all", client: bytes = b"greedy"
) -> int:
    return gateway.ask(
        Produce(topic="ORDERS", partition=0, acks=acks),  # type: ignore[arg-type]
        bytes(size_bytes),
        client=client,
    )


def use_up(gateway: GatewayDriver, size_bytes: int = BURST) -> None:
    """Use up a full bucket and `size_bytes` more."""
    produce(gateway, size_bytes)
    gateway.answer(PRODUCED)


PRODUCED = encode_header(ProduceReply(id=1, batches=[ProducedBatch(0)], high_watermark=1))
FETCHED = encode_header(
    FetchReply(id=1, topic="ORDERS", partition=0, log_start_offset=0, high_watermark=9, next_offset=9)
)


def test_over_its_quota_a_client_waits_and_is_told_how_long(gateway: GatewayDriver) -> None:
    use_up(gateway, 2 * BURST)
    number = produce(gateway)
    assert gateway.calls == []
    gateway.advance(190)
    assert gateway.calls == []
    gateway.advance(20)
    assert len(gateway.calls) == 1
    gateway.answer(PRODUCED)
    reply = msgspec.msgpack.decode(gateway.replies[number], type=ProduceReply)
    assert 190 <= reply.throttle_ms <= 210  # type: ignore[operator]
    assert reply.batches == [ProducedBatch(0)]


def test_nobody_else_waits(gateway: GatewayDriver) -> None:
    use_up(gateway, 2 * BURST)
    number = produce(gateway, client=b"other")
    gateway.answer(PRODUCED)
    assert gateway.replies[number] == PRODUCED


def test_requests_keep_their_order(gateway: GatewayDriver) -> None:
    use_up(gateway)
    numbers = []
    for size_bytes in (5_000, 1, 20_000, 1, 1):
        numbers.append(produce(gateway, size_bytes))
        gateway.advance(3)
    gateway.advance(2_000)
    assert [len(call.payload[0]) for call in gateway.calls] == [5_000, 1, 20_000, 1, 1]


def test_what_would_wait_too_long_is_refused_and_not_charged(gateway: GatewayDriver) -> None:
    use_up(gateway, BURST + 2 * RATE)
    for _ in range(3):
        refusal = gateway.replies[produce(gateway)]
        assert (refusal.code, refusal.retriable) == ("BACKPRESSURE", True)
        assert refusal.retry_after_ms == pytest.approx(2_000 - MAX_HOLD_MS / 2, abs=2)
    gateway.advance(refusal.retry_after_ms)
    produce(gateway)
    assert gateway.calls == []
    gateway.advance(MAX_HOLD_MS / 2 + 2)  # type: ignore[arg-type]
    assert len(gateway.calls) == 1


def test_over_some_time_the_rate_is_the_quota(gateway: GatewayDriver) -> None:
    """Holds for any requests, however often they are refused and sent again."""
    written, waiting = 0, 0
    started = gateway.now
    while gateway.now < started + 10_000:
        while waiting < 5:
            produce(gateway)
            waiting += 1
        refused = [number for number, reply in gateway.replies.items() if hasattr(reply, "code")]
        for number in refused:
            del gateway.replies[number]
            waiting -= 1
        while gateway.calls:
            written += len(gateway.calls[0].payload[0])
            waiting -= 1
            gateway.answer(PRODUCED)
        gateway.advance(10)
    assert written == pytest.approx(10 * RATE, rel=0.05)


def test_without_an_answer_what_would_wait_is_lost(gateway: GatewayDriver) -> None:
    produce(gateway, BURST + 5_000, acks=0)
    produce(gateway, acks=0)
    assert len(gateway.casts) == 1
    gateway.advance(60)
    produce(gateway, acks=0)
    assert len(gateway.casts) == 2


def test_a_fetch_is_charged_with_what_it_brought(gateway: GatewayDriver) -> None:
    fetch = Fetch(topic="ORDERS", partition=0, offset=0)
    gateway.ask(fetch, client=b"greedy")
    gateway.answer(FETCHED, bytes(BURST + 50_000))
    number = gateway.ask(fetch, client=b"greedy")
    assert gateway.calls == []
    gateway.advance(520)
    gateway.answer(FETCHED)
    assert msgspec.msgpack.decode(gateway.replies[number], type=FetchReply).throttle_ms > 400  # type: ignore[operator]
    gateway.advance(2_000)
    gateway.ask(fetch, client=b"greedy")
    gateway.answer(FETCHED, bytes(BURST + 3 * RATE))
    refusal = gateway.replies[gateway.ask(fetch, client=b"greedy")]
    assert (refusal.code, refusal.retriable) == ("OVERLOADED", True)
    assert refusal.retry_after_ms > 0


def test_many_fetches_at_once_do_not_all_pass(gateway: GatewayDriver) -> None:
    fetch = Fetch(topic="ORDERS", partition=0, offset=0)
    for _ in range(20):  # the average size of a fetch becomes known
        gateway.ask(fetch, client=b"greedy")
        gateway.advance(300)
        gateway.answer(FETCHED, bytes(10_000))
    for _ in range(10):
        gateway.ask(fetch, client=b"greedy")
    assert len(gateway.calls) <= 4


def test_requests_are_counted_too(gateway: GatewayDriver) -> None:
    gateway.quotas = {"greedy": Quota(produce_requests=10)}
    gateway.set_topics(ORDERS=2)
    for _ in range(12):
        produce(gateway, 1)
    gateway.advance(500)
    assert len(gateway.calls) == pytest.approx(2 + 5, abs=1)


def test_each_client_has_the_default_for_itself(gateway: GatewayDriver) -> None:
    gateway.quotas = {"default": Quota(produce_bytes=RATE), "greedy": Quota()}
    gateway.set_topics(ORDERS=2)
    for client in (b"greedy", b"other", b"nameless", b"as nameless"):
        gateway.calls.clear()
        produce(gateway, 2 * BURST, client=client)
        produce(gateway, 2 * BURST, client=client)
        expected = {b"greedy": 2, b"other": 1, b"nameless": 1, b"as nameless": 0}
        assert len(gateway.calls) == expected[client], client


def test_a_quota_changes_while_it_is_used(gateway: GatewayDriver) -> None:
    use_up(gateway, BURST + 2 * RATE)
    assert gateway.replies[produce(gateway)].code == "BACKPRESSURE"
    gateway.quotas = {}
    gateway.set_topics(ORDERS=2)
    produce(gateway)
    assert len(gateway.calls) == 1


def test_who_is_under_a_quota_is_shown_no_way_past_the_gateway(gateway: GatewayDriver) -> None:
    assert gateway.reply(Metadata(), client=b"other").topics[0].partitions[0].endpoint is not None
    seen = gateway.reply(Metadata(), client=b"greedy")
    assert seen.topics[0].partitions[0].online
    assert seen.topics[0].partitions[0].endpoint is None
    waiting = gateway.ask(
        Metadata(topics=["ORDERS"], after_version=seen.version, max_wait_ms=60_000), client=b"greedy"
    )
    gateway.quotas = {}
    gateway.set_topics(ORDERS=2)
    assert gateway.replies[waiting].topics[0].partitions[0].endpoint is not None


def test_a_name_in_the_request_counts_and_its_context_says_that_it_was_admitted(
    gateway: GatewayDriver,
) -> None:
    named = Produce(topic="ORDERS", partition=0, client_id="greedy")
    gateway.ask(named, bytes(2 * BURST), client=b"other")
    (call,) = gateway.calls
    assert DECODER.decode(call.request) == msgspec.structs.replace(named, id=3)
    assert call.context == RequestContext(client_id="greedy", connection=b"other", is_admitted=True)
    gateway.answer(PRODUCED)
    gateway.ask(named, bytes(1), client=b"third")
    assert gateway.calls == []


def test_what_is_held_ends_with_the_gateway(gateway: GatewayDriver) -> None:
    use_up(gateway, 2 * BURST)
    number = produce(gateway)
    gateway.stop(within_ms=1_000)
    gateway.advance(1_000)
    assert gateway.stopped
    assert number in gateway.replies


def test_names_and_buckets_are_bounded() -> None:
    known = {number: number for number in range(10)}
    forget_oldest(known, 3)
    assert list(known) == [7, 8, 9]
    quotas = Quotas()
    quotas.on_hello(b"c", "x" * 10_000)
    assert len(quotas._names[b"c"]) == 256


def test_a_bucket_fills_no_further_than_its_burst() -> None:
    bucket = TokenBucket(1_000, now=0)
    assert bucket.wait_ms(1_000_000) == 0
    bucket.charge(1_000 * BURST_S + 500)
    assert bucket.wait_ms(1_000_000) == 500
    assert bucket.wait_ms(1_000_499) == 1
    assert bucket.wait_ms(1_000_500) == 0


def counted(greeted: bool | msgspec.UnsetType) -> list[Request]:
    return [
        Produce(topic="ORDERS", partition=0, greeted=greeted),
        Publish(topic="ORDERS", records=[PublishRecord(value_text="v")], greeted=greeted),
        Fetch(topic="ORDERS", partition=0, offset=0, greeted=greeted),
        Metadata(topics=["ORDERS"], greeted=greeted),
    ]


def is_refused(gateway: GatewayDriver, request: Request, client: bytes) -> bool:
    number = gateway.ask(request, *([b"batch"] if isinstance(request, Produce) else []), client=client)
    found = gateway.replies.get(number)
    return isinstance(found, ErrorBody) and found.code == ErrorCode.HELLO_REQUIRED and found.retriable


@pytest.mark.parametrize("number", range(4))
def test_who_said_hello_on_a_connection_that_is_gone_is_asked_to_say_it_again(
    gateway: GatewayDriver, number: int
) -> None:
    request, simple = counted(True)[number], counted(msgspec.UNSET)[number]
    assert not is_refused(gateway, request, b"greedy")
    gateway.give(Disconnected(b"greedy"))
    assert is_refused(gateway, request, b"greedy")
    assert is_refused(gateway, request, b"new connection")
    assert not is_refused(gateway, simple, b"new connection"), "a simple client need not know of it"
    gateway.reply(Hello(client_id="greedy"), client=b"new connection")
    assert not is_refused(gateway, request, b"new connection")
    gateway.reply(Hello(), client=b"without a name")
    assert not is_refused(gateway, request, b"without a name")


def test_without_quotas_and_for_what_they_do_not_count_no_greeting_is_required() -> None:
    gateway = GatewayDriver().start(ORDERS=1)
    assert not any(is_refused(gateway, request, b"new connection") for request in counted(True))
    gateway = GatewayDriver()
    gateway.quotas = {"greedy": Quota(produce_bytes=RATE)}
    gateway.start(ORDERS=1)
    assert not is_refused(gateway, ListTopics(greeted=True), b"new connection")

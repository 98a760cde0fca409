"""Connections and requests in flight stay within the limits of their principal and address, and no others are refused."""

import pytest

from gateway_driver import GatewayDriver
from planaria.actors.gateway.limits import Limits
from planaria.transport.codec import encode_header
from planaria.transport.machine import Connected, Disconnected
from planaria.transport.protocol.data import Fetch, FetchReply
from planaria.transport.protocol.errors import ErrorBody, ErrorCode, ProtocolError
from planaria.transport.protocol.quotas import Quota
from planaria.transport.protocol.session import Hello

FETCHED = encode_header(
    FetchReply(id=1, topic="ORDERS", partition=0, log_start_offset=0, high_watermark=9, next_offset=9)
)
A, B, C = b"a", b"b", b"c"


def limits(**quotas: Quota) -> Limits:
    made = Limits()
    made.configure({name.replace("__", ":"): quota for name, quota in quotas.items()})
    return made


def is_refused(made: Limits, connection: bytes, client: str = "shop", host: str = "10.0.0.1") -> bool:
    try:
        made.enter(connection, client, host)
    except ProtocolError as error:
        refusal = error.body
    else:
        return False
    assert (refusal.code, refusal.retriable) == (ErrorCode.THROTTLED, True)
    return True


def test_the_first_connections_have_the_places_until_they_end() -> None:
    made = limits(shop=Quota(connections=2))
    assert [is_refused(made, each) for each in (A, B, C, A, C)] == [False, False, True, False, True]
    assert not is_refused(made, C, client="other")
    made.on_disconnected(A)
    assert not is_refused(made, C)
    assert is_refused(made, A)
    assert (made.open_connections, made.refused) == (2, 3)


def test_a_lower_limit_ends_the_places_of_the_newest() -> None:
    made = limits(shop=Quota(connections=3))
    assert not any(is_refused(made, each) for each in (A, B, C))
    made.configure({"shop": Quota(connections=1)})
    assert [is_refused(made, each) for each in (A, B, C)] == [False, True, True]
    made.configure({})
    assert not any(is_refused(made, each) for each in (A, B, C))
    assert made.open_connections == 0


def test_requests_count_until_they_are_answered() -> None:
    made = limits(shop=Quota(requests_in_flight=2))
    first, second = made.enter(A, "shop", "h"), made.enter(B, "shop", "h")
    assert is_refused(made, A)
    assert first is not None
    assert second is not None
    first()
    assert not is_refused(made, A)
    assert made.enter(A, "other", "h") is None


def test_the_default_is_for_each_by_itself_and_not_for_the_broker() -> None:
    made = limits(default=Quota(requests_in_flight=1), big=Quota(requests_in_flight=2), free=Quota())
    assert [is_refused(made, A, name) for name in ("x", "y", "x")] == [False, False, True]
    assert [is_refused(made, A, "big") for _ in range(3)] == [False, False, True]
    for name in ("free", "admin", "internal"):
        assert not any(is_refused(made, A, name) for _ in range(5))


def test_addresses_have_limits_of_their_own() -> None:
    made = limits(address__default=Quota(connections=1), **{"address__10.0.0.9": Quota(connections=2)})
    assert [is_refused(made, each, str(each), "10.0.0.1") for each in (A, B)] == [False, True]
    assert not is_refused(made, B, "b", "10.0.0.2")
    made.on_disconnected(B)
    assert [is_refused(made, each, "x", "10.0.0.9") for each in (b"1", b"2", b"3")] == [False, False, True]


def test_a_request_refused_by_one_limit_is_not_counted_by_the_other() -> None:
    made = limits(shop=Quota(requests_in_flight=5), address__default=Quota(requests_in_flight=1))
    assert not is_refused(made, A)
    assert all(is_refused(made, A) for _ in range(9))
    assert made._open == {"shop": 1, "address:10.0.0.1": 1}


@pytest.fixture
def gateway() -> GatewayDriver:
    gateway = GatewayDriver()
    gateway.quotas = {"greedy": Quota(requests_in_flight=2)}
    gateway.start(ORDERS=1)
    for client in (b"greedy", b"other"):
        gateway.give(Connected(client, "10.0.0.1"))
        gateway.reply(Hello(client_id=client.decode()), client=client)
    return gateway


def fetch(gateway: GatewayDriver, client: bytes = b"greedy") -> int:
    return gateway.ask(Fetch(topic="ORDERS", partition=0, offset=9, max_wait_ms=5_000), client=client)


def test_a_client_beyond_its_limit_is_refused_until_an_answer_comes(gateway: GatewayDriver) -> None:
    first, _, third = fetch(gateway), fetch(gateway), fetch(gateway)
    refusal = gateway.replies[third]
    assert isinstance(refusal, ErrorBody)
    assert (refusal.code, refusal.retriable) == (ErrorCode.THROTTLED, True)
    assert "client 'greedy' is limited to 2 requests in flight" in refusal.message
    assert fetch(gateway, b"other") not in gateway.replies
    gateway.answer(FETCHED)
    assert first in gateway.replies
    assert fetch(gateway) not in gateway.replies
    assert gateway.machine.quotas.limits.refused == 1


def test_requests_of_a_connection_that_is_gone_do_not_count(gateway: GatewayDriver) -> None:
    fetch(gateway), fetch(gateway)
    gateway.give(Disconnected(b"greedy"))
    gateway.reply(Hello(client_id="greedy"), client=b"again")
    number = gateway.ask(Fetch(topic="ORDERS", partition=0, offset=9, max_wait_ms=5_000), client=b"again")
    assert number not in gateway.replies


def test_a_request_that_finds_no_room_is_not_counted() -> None:
    gateway = GatewayDriver(limits={"max_per_connection": 1})
    gateway.quotas = {"greedy": Quota(requests_in_flight=5)}
    gateway.start(ORDERS=1)
    gateway.reply(Hello(client_id="greedy"), client=b"greedy")
    fetch(gateway), fetch(gateway), fetch(gateway)
    assert gateway.machine.quotas.limits._open == {"greedy": 1}

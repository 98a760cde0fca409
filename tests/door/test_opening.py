"""The first bytes of a connection: however they arrive, it gets the name that the door gives it, or is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planaria.actors.door.opening import MAX_READY_BYTES, Opening, OpeningRefused

NAME = b"V" + b"n" * 60
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)


def prop(name: bytes, value: bytes) -> bytes:
    return bytes([len(name)]) + name + len(value).to_bytes(4, "big") + value


def command(body: bytes, *, is_long: bool = False) -> bytes:
    if is_long:
        return b"\x06" + len(body).to_bytes(8, "big") + body
    return bytes([4, len(body)]) + body


def ready(*properties: bytes, is_long: bool = False) -> bytes:
    return command(b"\x05READY" + b"".join(properties), is_long=is_long)


DEALER = prop(b"Socket-Type", b"DEALER")
RENAMED = GREETING + ready(DEALER, prop(b"Identity", NAME))


def passed(*parts: bytes) -> bytes:
    """Return the bytes that pass when these parts arrive one after the other."""
    opening, out = Opening(NAME), b""
    for part in parts:
        out += part if opening.is_over else opening.take(part)
    assert opening.is_over
    return out


@pytest.mark.parametrize(
    "own",
    [
        ready(DEALER),
        ready(DEALER, is_long=True),
        ready(DEALER, prop(b"Identity", b"V-of-another")),
        ready(prop(b"identity", b"a"), prop(b"IDENTITY", b"b"), DEALER, prop(b"X-Identity", b"c")),
        ready(prop(b"socket-type", b"DEALER"), prop(b"Identity", b"")),
        ready(DEALER, prop(b"Resource", b"r" * 300), is_long=True),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 1_000])
def test_a_client_has_the_name_that_the_door_gives_it(own: bytes, size: int) -> None:
    after = b"\x00\x05hello" + GREETING
    whole = GREETING + own + after
    assert passed(*(whole[at : at + size] for at in range(0, len(whole), size))) == RENAMED + after


@pytest.mark.parametrize(
    "first",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x01\x00",  # ZMTP 1.0
        GREETING[:10] + b"\x01" + bytes(53),  # ZMTP 2.0
        GREETING[:12] + b"CURVE".ljust(20, b"\0") + bytes(32),
        GREETING + b"\x00\x05hello",
        GREETING + command(b"\x05ERROR\x00"),
        GREETING + command(b"\x04PING"),
        GREETING + ready(),
        GREETING + ready(prop(b"Socket-Type", b"SUB")),
        GREETING + ready(DEALER[:-1]),
        GREETING + ready(b"\xff"),
        GREETING + b"\x06" + (MAX_READY_BYTES + 1).to_bytes(8, "big"),
        GREETING + b"\x06" + b"\xff" * 8,
    ],
)
@pytest.mark.parametrize("size", [1, 1_000])
def test_other_first_bytes_are_refused_before_they_reach_the_gateway(first: bytes, size: int) -> None:
    opening, out = Opening(NAME), b""
    is_refused = False
    for at in range(0, len(first), size):
        try:
            out += opening.take(first[at : at + size])
        except OpeningRefused:
            is_refused = True
            break
    assert is_refused
    assert first.startswith(out)
    assert len(out) <= len(GREETING)


@given(st.lists(st.binary(max_size=40), max_size=12), st.integers(0, 100))
def test_random_bytes_never_pass_under_another_name(parts: list[bytes], kept: int) -> None:
    opening, out = Opening(NAME), b""
    try:
        for part in [(GREETING + ready(DEALER))[:kept], *parts]:
            out += part if opening.is_over else opening.take(part)
    except OpeningRefused:
        return
    assert not opening.is_over or (out.startswith(GREETING) and NAME in out[: len(RENAMED)])

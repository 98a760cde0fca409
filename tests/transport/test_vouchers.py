"""Vouchers of relayed connections: only who has the secret of this start makes one."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planaria.transport.security.credentials import KEY_PATTERN
from planaria.transport.security.principals import is_principal_name
from planaria.transport.security.vouchers import Voucher, Vouchers, vouched_principal

OURS, OTHERS = Vouchers(b"secret of this start"), Vouchers(b"secret of another start")
LONGEST = Voucher(b"12345678", "2001:db8::ffff:1:2", "p" * 200, 2**53)


@pytest.mark.parametrize(
    "voucher",
    [
        LONGEST,
        Voucher(b"\0" * 8, "10.1.2.3"),
        Voucher(b"\xff" * 8, "::1", "shop@eu-1.x_y", 1_790_000_000_000),
    ],
)
def test_a_voucher_is_read_as_it_was_made(voucher: Voucher) -> None:
    name = OURS.name_of(voucher)
    assert len(name) <= 255, "ZeroMQ's limit"
    assert name[0] != 0, "ZeroMQ's own names begin so"
    assert OURS.read(name) == voucher
    assert OTHERS.read(name) is None


@given(st.integers(0, 248), st.integers(1, 255))
def test_a_voucher_with_any_other_byte_is_none(at: int, change: int) -> None:
    name = bytearray(OURS.name_of(LONGEST))
    name[at] ^= change
    assert OURS.read(bytes(name)) is None


@given(st.binary(max_size=255))
def test_a_name_that_a_client_chose_is_no_voucher(name: bytes) -> None:
    assert OURS.read(name) is None
    assert OURS.read(b"\x56" + name) is None


def test_the_key_of_a_connection_has_its_principal_and_no_curve_key_looks_like_it() -> None:
    assert vouched_principal(LONGEST.key) == ("p" * 200, 2**53)
    assert vouched_principal(Voucher(bytes(8), "::1").key) is None
    assert vouched_principal("") is None
    assert re.fullmatch(KEY_PATTERN, LONGEST.key[:40]) is None


def test_names_of_certificates_that_no_principal_can_have_are_not_taken() -> None:
    assert is_principal_name("shop@eu-1.x_y")
    for name in ("", "a:b", "a b", "é", "x" * 201, "a\n", "role:a"):
        assert not is_principal_name(name)

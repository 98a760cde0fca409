"""The criteria of `planaria find`."""

import json
from typing import Any

import pytest

from planaria import Message
from planaria.supervisor.cli.matching import criteria_of


def message(value: Any, key: bytes | None = None, **headers: str) -> Message:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Message("T", 0, 0, key, data, 0, headers or None)


@pytest.mark.parametrize(
    ("field", "is_found"),
    [
        ("customer.id=7", True),
        ("customer.id=7.0", False),
        ("customer.id=8", False),
        ("customer.name=Anna Ä", True),
        ("customer.name=anna", False),
        ("items.1.sku=x=y", True),
        ("items.2.sku=x", False),
        ("items.-1.sku=x", False),
        ('items.0={"sku": 1}', True),
        ("paid=true", True),
        ("paid=True", False),
        ("note=null", True),
        ("missing=null", False),
        ("customer=7", False),
        ("zip=007", True),
        ("zip=7", False),
    ],
)
def test_a_path_into_the_json(field: str, is_found: bool) -> None:
    found = message(
        {
            "customer": {"id": 7, "name": "Anna Ä"},
            "items": [{"sku": 1}, {"sku": "x=y"}],
            "paid": True,
            "note": None,
            "zip": "007",
        }
    )
    assert criteria_of(None, (), [field]).match(found) is is_found


def test_all_criteria_must_hold() -> None:
    wanted = criteria_of("k", ["a=1", "b=x=y"], ["=5"])
    assert wanted.match(message(5, b"k", a="1", b="x=y", c="2"))
    for other in (
        message(5, b"other", a="1", b="x=y"),
        message(5, None, a="1", b="x=y"),
        message(5, b"k", a="1"),
        message(5, b"k", a="1", b="x"),
        message(6, b"k", a="1", b="x=y"),
        message(b"\xff", b"k", a="1", b="x=y"),
    ):
        assert not wanted.match(other)


def test_criteria_without_an_equals_sign_are_refused() -> None:
    for headers, fields in ((["a"], []), ([], ["a"])):
        with pytest.raises(ValueError, match="no = between"):
            criteria_of(None, headers, fields)
    assert criteria_of(None, (), ()).is_empty

"""The options of a subscription: what is refused, in which words, and that they survive the way to the process."""

from typing import Any

import cloudpickle
import msgspec
import pytest

from planaria.transport.subscription import (
    HandlerSource,
    InvalidSubscription,
    SubscriberOptions,
    child_spec,
    source_of,
)


def options(**changed: Any) -> SubscriberOptions:
    return SubscriberOptions(
        **{
            "group": "billing",
            "topics": ["ORDERS"],
            "handler": HandlerSource(path="shop.billing:charge"),
            "endpoint": "tcp://127.0.0.1:5570",
            **changed,
        }
    )


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"delivery": "exactly-once", "group": "g" * 236}, "group: at most 235 characters with exactly-once"),
        ({"delivery": "sometimes"}, "delivery: 'sometimes' is unknown"),
        ({"dead_letter": "ORDERS"}, "dead_letter: 'ORDERS' is subscribed to"),
        ({"dead_letter": ""}, "dead_letter: must not be empty"),
        ({"retries": -1}, "retries: must be at least 0, not -1"),
        ({"backoff_ms": 0}, "backoff_ms: must be at least 1"),
        ({"backoff_ms": 50, "backoff_max_ms": 49}, "backoff_max_ms: must not be less than backoff_ms"),
        ({"handler_timeout_ms": 0}, "handler_timeout_ms: must be at least 1"),
        ({"session_timeout_ms": 99}, "session_timeout_ms: must be at least 100"),
        ({"max_records": 0}, "max_records: must be at least 1"),
        ({"auto_offset_reset": "newest"}, "auto_offset_reset: 'newest' is unknown"),
        ({"topics": []}, "topics: name at least one"),
        ({"topics": ["A", "A"]}, "topics: one is named twice"),
        ({"group": ""}, "group: must not be empty"),
    ],
)
def test_refuses(changed: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidSubscription) as caught:
        options(**changed)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "source",
    [{}, {"pickled": b"x", "path": "a:b"}, {"path": "no_function"}, {"path": "a:b:c"}, {"path": "a b:c"}],
)
def test_refuses_a_handler_that_is_none_or_two(source: dict[str, Any]) -> None:
    with pytest.raises(InvalidSubscription, match="handler: "):
        HandlerSource(**source)


def test_a_function_travels_by_value_and_a_path_by_name() -> None:
    offset = 41
    pickled = source_of(lambda number: number + offset).pickled
    assert pickled is not None
    assert cloudpickle.loads(pickled)(1) == 42
    assert source_of("shop.billing:charge") == HandlerSource(path="shop.billing:charge")


def test_refuses_a_handler_that_cannot_travel() -> None:
    generator = (number for number in range(3))
    with pytest.raises(InvalidSubscription, match="cannot be sent to another process"):
        source_of(lambda _: next(generator))
    with pytest.raises(InvalidSubscription, match="is not callable"):
        source_of(42)  # type: ignore[arg-type]


def test_options_survive_the_child_spec() -> None:
    original = options(handler=HandlerSource(pickled=b"\x80\x00\xff"), retries=2, dead_letter="ORDERS.dlq")
    spec = child_spec(original, 1, "planaria.actors.subscriber.process:main")
    travelled = msgspec.msgpack.decode(msgspec.msgpack.encode(spec), type=type(spec))
    assert travelled.address == "subscriber/billing/1"
    assert travelled.restart == "permanent"
    assert msgspec.convert(travelled.arguments, SubscriberOptions) == original

"""The options of a subscription: refusals, their texts, and their transport to the process."""

from typing import Any

import cloudpickle
import msgspec
import pytest

from planaria.transport.codec import RequestDecoder, encode_header
from planaria.transport.protocol.control import StartChild
from planaria.transport.subscription import (
    HandlerSource,
    InvalidSubscription,
    SubscriberOptions,
    check_enforceable,
    child_spec,
    options_of,
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
        ({"group": "g" * 201}, "is not a valid name: 1 to 200 of the characters"),
        ({"delivery": "sometimes"}, "delivery: 'sometimes' is unknown"),
        ({"dead_letter": "ORDERS"}, "dead_letter: 'ORDERS' is subscribed to"),
        ({"dead_letter": ""}, "dead_letter: must not be empty"),
        ({"retries": -1}, "retries: must be at least 0, not -1"),
        ({"backoff_ms": 0}, "backoff_ms: must be at least 1"),
        ({"backoff_ms": 50, "backoff_max_ms": 49}, "backoff_max_ms: must not be less than backoff_ms"),
        ({"handler_timeout_ms": 0}, "handler_timeout_ms: must be at least 1"),
        ({"session_timeout_ms": 99}, "session_timeout_ms: must be from 100 to 1800000, not 99"),
        ({"session_timeout_ms": 1_800_001}, "session_timeout_ms: must be from 100 to 1800000, not 1800001"),
        ({"group": "a b"}, "group: 'a b' is not a valid name"),
        ({"topics": ["A", "a/b"]}, "topics: 'a/b' is not a valid name"),
        ({"dead_letter": "a b"}, "dead_letter: 'a b' is not a valid name"),
        ({"dead_letter": "__offsets"}, "dead_letter: '__offsets' is an internal topic"),
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
    ("given", "complaint"),
    [
        ({"retry": 1}, "unknown option 'retry', the nearest is 'retries'; known are auto_offset_reset, "),
        ({"group": "g"}, "unknown option 'group', the nearest is "),
        ({"retries": "x"}, "retries: expected `int`, got `str`, 'x'"),
        ({"retries": None}, "retries: expected `int`, got `null`, None"),
        ({"retries": True}, "retries: expected `int`, got `bool`, True"),
        ({"backoff_ms": "1s"}, "backoff_ms: expected `int | array`, got `str`, '1s'"),
        ({"backoff_ms": [10, "x"]}, "backoff_ms: expected `int`, got `str`, [10, 'x']"),
        ({"cpu_limit": "1"}, "cpu_limit: expected `float | null`, got `str`, '1'"),
        ({"retries": 10**30}, "retries: must have at most 64 bits, not 1000"),
        ({"backoff_ms": [10**30]}, "backoff_ms: must have at most 64 bits, not [1000"),
        ({"dead_letter": 5}, "dead_letter: expected `str | null`, got `int`, 5"),
    ],
)
def test_refuses_what_is_unknown_or_of_another_type(given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidSubscription) as caught:
        options_of(given)
    assert str(caught.value).startswith(complaint)


@pytest.mark.parametrize("budget", ["memory_limit", "cpu_limit"])
def test_a_budget_that_the_machine_cannot_enforce_is_refused(budget: str) -> None:
    wanted = options(**{budget: 64 * 1024 * 1024 if budget == "memory_limit" else 1.0})
    check_enforceable(wanted, is_linux=True, has_thread_clocks=True)
    check_enforceable(options(), is_linux=False, has_thread_clocks=False)
    with pytest.raises(InvalidSubscription, match=f"^{budget}: "):
        check_enforceable(wanted, is_linux=False, has_thread_clocks=False)


def test_takes_what_can_stand_for_an_option() -> None:
    given = {"backoff_ms": (10, 20), "cpu_limit": 1, "delivery": "sometimes", "dead_letter": None}
    assert options_of(given) == {**given, "backoff_ms": [10, 20]}


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
    order = RequestDecoder([StartChild]).decode(encode_header(StartChild(spec=spec)))
    assert isinstance(order, StartChild)
    travelled = order.spec
    assert travelled.address == "subscriber/billing/1"
    assert travelled.restart == "permanent"
    assert msgspec.convert(travelled.arguments, SubscriberOptions) == original

"""Options: unknown or wrong ones are refused in one line that names them, before anything is sent."""

from typing import Any

import pytest

from planaria.transport.addresses import TopicPartition
from planaria.transport.client.client import Client
from planaria.transport.client.options import (
    ClientOptions,
    ConsumerOptions,
    InvalidOption,
    ProducerOptions,
    as_topics,
    checked,
)


def refusal(kind: Any, **given: Any) -> str:
    with pytest.raises(InvalidOption) as refused:
        checked(kind, given)
    return str(refused.value)


def test_a_wrong_choice_names_the_right_ones() -> None:
    told = refusal(ConsumerOptions, auto_offset_reset="earlist")
    assert told == "auto_offset_reset: 'earlist' is unknown; choose one of earliest, latest, error"
    assert refusal(ConsumerOptions, assignor="best").endswith("choose one of sticky, range, round_robin")
    assert refusal(ProducerOptions, acks=2) == "acks: 2 is unknown; choose one of 0, 1, all"
    assert refusal(ProducerOptions, compression="gzip").endswith("choose one of none, zstd, lz4")


@pytest.mark.parametrize(
    ("kind", "given", "told"),
    [
        (ProducerOptions, {"linger_ms": -1}, "linger_ms: expected `int` >= 0"),
        (ProducerOptions, {"batch_bytes": "big"}, "batch_bytes: expected `int`, got `str`"),
        (ProducerOptions, {"request_timeout_ms": 1.5}, "request_timeout_ms: expected `int`, got `float`"),
        (ConsumerOptions, {"session_timeout_ms": 5}, "session_timeout_ms: expected `int` >= 100"),
        (ConsumerOptions, {"fetch_max_wait_ms": 90_000}, "fetch_max_wait_ms: expected `int` <= 60000"),
        (
            ConsumerOptions,
            {"instance_id": "\ud800"},
            "instance_id: cannot be encoded as UTF-8: 'utf-8' codec can't encode",
        ),
        (
            ClientOptions,
            {"client_id": "\ud800"},
            "client_id: cannot be encoded as UTF-8: 'utf-8' codec can't encode",
        ),
        (
            ConsumerOptions,
            {"fetch_max_bytes": 2**63},
            "fetch_max_bytes: expected `int` <= 9223372036854775807",
        ),
        (ConsumerOptions, {"on_lost": "f"}, "on_lost: expected `Callable`, got `str`"),
        (ConsumerOptions, {"partitions": [("T", "0")]}, "partitions: expected `int`, got `str`"),
        (ConsumerOptions, {"autocommit": True}, "autocommit: no such option; the nearest is auto_commit"),
    ],
)
def test_what_is_wrong_is_named(kind: Any, given: dict[str, Any], told: str) -> None:
    assert refusal(kind, **given).startswith(told)


def test_what_is_right_is_taken() -> None:
    options = checked(
        ConsumerOptions, {"partitions": (TopicPartition("T", 0),), "on_lost": print, "assignor": None}
    )
    assert (options.partitions, options.on_lost) == ([("T", 0)], print)
    assert checked(ProducerOptions, {"acks": 0}).acks == 0


def test_topics_are_one_name_or_several() -> None:
    assert as_topics("ORDERS") == ["ORDERS"]
    assert as_topics(("A", "B")) == ["A", "B"]
    with pytest.raises(InvalidOption):
        as_topics("")


def test_a_client_refuses_before_it_connects(endpoint: str) -> None:
    with pytest.raises(InvalidOption, match="request_timeout_ms"):
        Client(endpoint, request_timeout_ms=0)
    for malformed in ("tcp://a", f"{endpoint},b", [endpoint, "b:1"], [], 5570):
        with pytest.raises(InvalidOption, match="endpoint: "):
            Client(malformed)  # type: ignore[arg-type]
    with Client(endpoint) as client:
        with pytest.raises(InvalidOption, match="compression"):
            client.producer(compression="gzip")
        with pytest.raises(InvalidOption, match="auto_offset_reset"):
            client.consumer("g", "T", auto_offset_reset="first")

"""A message of every shape is stored as it was at its publish, and its size is counted."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum, StrEnum
from typing import Any, NamedTuple, get_args, get_type_hints
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import planaria
from planaria import aio
from planaria.transport.batch import parse_header, verify
from planaria.transport.client.accumulator import Accumulator
from planaria.transport.client.batches import HeldPartitions
from planaria.transport.client.content import ContentEncoder, encode_value
from planaria.transport.client.messages import Message, messages_of
from planaria.transport.client.options import InvalidOption
from planaria.transport.client.placement import BATCH_OVERHEAD_BYTES
from planaria.transport.client.producer_batch import PartitionQueue
from planaria.transport.client.publish_arguments import with_attributes
from planaria.transport.partitioner import partition_for_key


class Text(str):
    """As numpy's and many a template library's text is one."""

    __slots__ = ()


class Colour(StrEnum):
    RED = "red"


class Partitions:
    def __init__(self, count: int) -> None:
        self.count = count

    def partitions_of(self, topic: str, least: int = 1) -> int:
        return self.count

    def check_partition(self, topic: str, partition: int | None) -> None:
        assert partition is None or 0 <= partition < self.count

    def largest_batch_of(self, topic: str) -> int:
        return 1 << 20

    def choose_partition(self, topic: str) -> int:
        return 0


def gathering(partitions: int = 1, batch_bytes: int = 1 << 20) -> Accumulator:
    """Return an accumulator whose publishers seal the batches that they fill."""
    return Accumulator(
        batch_bytes=batch_bytes,
        batch_records=10_000,
        buffer_bytes=1 << 30,
        max_block_ms=50,
        destinations=Partitions(partitions),
        held=HeldPartitions(is_patient=True),
        notify=lambda _: None,
        notify_identified=lambda _: None,
        now_ms=lambda: 0,
        may_wait=lambda: False,
    )


def taken(accumulator: Accumulator) -> dict[int, list[Message]]:
    """Seal everything, and return the messages that a consumer finds, by partition."""
    found: dict[int, list[Message]] = {}
    for lane in accumulator.lanes():
        assert isinstance(lane, PartitionQueue)
        for batch in accumulator.take(lane, 1_000, 0, True)[0]:
            frame = batch.build()
            assert len(frame) <= batch.size_bytes + BATCH_OVERHEAD_BYTES
            verify(frame)
            found.setdefault(batch.partition, []).extend(
                messages_of("T", batch.partition, parse_header(frame), frame, 0)
            )
    return found


def stored(**message: Any) -> Message:
    accumulator = gathering()
    accumulator.publish("T", **message)
    [found] = taken(accumulator)[0]
    return found


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
HEADERS = st.none() | st.dictionaries(TEXT.filter(lambda name: name != "content-type"), TEXT, max_size=4)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
JSON = st.recursive(
    SCALARS, lambda part: st.lists(part, max_size=3) | st.dictionaries(TEXT, part, max_size=3)
)
VALUES = st.none() | st.binary(max_size=300) | JSON
KEYS = st.none() | st.binary(max_size=20) | TEXT
TIMES = st.none() | st.integers(0, 2**40)


@given(
    st.lists(st.tuples(VALUES, KEYS, HEADERS, TIMES), min_size=1, max_size=30),
    st.sampled_from([1, 3]),
    st.sampled_from([60, 1 << 20]),
)
def test_every_shape_is_found_as_it_was_published(
    published: list[tuple[Any, Any, Any, int | None]], partitions: int, batch_bytes: int
) -> None:
    accumulator = gathering(partitions, batch_bytes)
    expected: dict[int, list[Any]] = {}
    for value, key, headers, time_ms in published:
        if time_ms is None:
            accumulator.publish("T", value, key=key, headers=headers)
        else:
            accumulator.publish("T", value, key=key, headers=headers, timestamp_ms=time_ms)
        name = key.encode() if isinstance(key, str) else key
        partition = 0 if name is None else partition_for_key(name, partitions)
        expected.setdefault(partition, []).append((value, name, headers or {}, time_ms))
    found = taken(accumulator)
    assert found.keys() == expected.keys()
    for partition, messages in found.items():
        assert len(messages) == len(expected[partition])
        for message, (value, name, headers, time_ms) in zip(messages, expected[partition], strict=True):
            declared = dict(message.headers)
            is_json = declared.pop("content-type", None) is not None
            assert (message.data, type(message.data)) == (value, type(value))
            assert is_json == (value is not None and not isinstance(value, bytes))
            assert (message.key, declared) == (name, headers)
            assert time_ms is None or message.timestamp == time_ms


def change_dict(value: dict[str, Any]) -> None:
    value["a"] = 2
    value["items"].append(4)


def change_bytes(value: bytearray) -> None:
    value[0] = 1


@pytest.mark.parametrize("headers", [None, {"n": "1"}])
@pytest.mark.parametrize(
    ("make", "change", "expected"),
    [
        (lambda: {"a": 1, "items": [3]}, change_dict, {"a": 1, "items": [3]}),
        (lambda: bytearray(b"x"), change_bytes, b"x"),
    ],
)
def test_a_value_that_changes_afterwards(
    make: Callable[[], Any], change: Callable[[Any], None], expected: Any, headers: dict[str, str] | None
) -> None:
    accumulator = gathering()
    value = make()
    accumulator.publish("T", value, key="k", headers=headers)
    change(value)
    [found] = taken(accumulator)[0]
    assert found.data == expected


@pytest.mark.parametrize("value", [b"x", None, {"a": 1}, bytearray(b"x")])
@pytest.mark.parametrize("headers", [{"n": "1"}, {}])
def test_headers_that_change_from_message_to_message(value: Any, headers: dict[str, str]) -> None:
    """The copy that equal headers share is of the texts at each publish."""
    accumulator = gathering()
    expected = []
    for number in (1, 2, 2, 3, 1):
        accumulator.publish("T", value, headers=headers)
        expected.append(dict(headers))
        headers["n"] = str(number)
    headers.clear()
    found = [dict(message.headers) for message in taken(accumulator)[0]]
    for each in found:
        each.pop("content-type", None)
    assert found == expected


@pytest.mark.parametrize("timestamp_ms", [None, 5])
def test_a_key_that_changes_afterwards(timestamp_ms: int | None) -> None:
    accumulator = gathering()
    key = bytearray(b"k")
    accumulator.publish("T", b"v", key=key, timestamp_ms=timestamp_ms)  # type: ignore[arg-type]
    key[0] = 1
    assert taken(accumulator)[0][0].key == b"k"


@pytest.mark.parametrize("value", [b"v", {"a": 1}])
@pytest.mark.parametrize("timestamp_ms", [None, 5])
def test_text_of_a_subclass_is_stored_as_text(value: Any, timestamp_ms: int | None) -> None:
    """It could not be encoded in the network thread, which every producer and consumer of the client shares."""
    for text in (Text("red"), Colour.RED):
        found = stored(value=value, key=text, headers={text: "x", "n": text}, timestamp_ms=timestamp_ms)
        assert (found.key, found.headers["red"], found.headers["n"]) == (b"red", "x", "red")


@pytest.mark.parametrize("text", ["\u00e9" * 500, "\U0001f600" * 500])
def test_headers_that_are_not_ascii_count_with_their_encoded_size(text: str) -> None:
    accumulator = gathering()
    for _ in range(20):
        accumulator.publish("T", b"", headers={text: text})
    [lane] = accumulator.lanes()
    [batch] = accumulator.take(lane, 1_000, 0, True)[0]
    assert len(batch.build()) <= batch.size_bytes + BATCH_OVERHEAD_BYTES


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("depth", [0, 1, 3, 4, 5, 8])
def test_a_number_without_json_is_refused_at_any_depth(number: float, depth: int) -> None:
    """The check in C and the one in Python refuse the same numbers, and `publish` does as the encoder."""
    publish = gathering().publish
    publish("T", {"opens": "a batch"})
    for kind in ("list", "dict"):
        for data in ({"note": "n" * 600}, {}):
            value: Any = number
            for _ in range(depth):
                value = [value] if kind == "list" else {"a": value, **data}
            with pytest.raises(InvalidOption, match="cannot be encoded as JSON"):
                encode_value(value, None)
            with pytest.raises(InvalidOption, match="cannot be encoded as JSON"):
                publish("T", value)


def test_a_value_of_a_rare_type_leaves_the_next_ones_checked() -> None:
    encoder = ContentEncoder()
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    for _ in range(3):
        assert encoder.encode({"at": moment}, None)[0] == b'{"at":"2030-01-01T00:00:00Z"}'
        for wrong in ({"a": float("nan")}, {"at": moment, 1: 2}):
            with pytest.raises(InvalidOption):
                encoder.encode(wrong, None)


def test_dicts_of_any_kind_are_published_in_turns() -> None:
    """Whether `publish` encodes them alone or hands them to the encoder, which remembers the kind of the last ones."""
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    accumulator, expected = gathering(), []
    for value in ({"a": 1}, {"at": moment}, {"null": None}, {"a": "n" * 600}) * 3:
        accumulator.publish("T", value)
        expected.append(msgspec.json.decode(msgspec.json.encode(value)))
        for wrong in ({"a": float("inf")}, {1: 2}, {"a": object()}, {"a": "\ud800"}):
            with pytest.raises(InvalidOption):
                accumulator.publish("T", wrong)
    assert [message.data for message in taken(accumulator)[0]] == expected


class Level(Enum):
    LOW = 1


class Place(NamedTuple):
    name: str


@dataclass
class Point:
    x: float


@pytest.mark.parametrize(
    "value",
    [
        {"level": Level.LOW, "colour": Colour.RED, "none": None},
        {"id": UUID(int=7), "price": Decimal("1.50"), "at": datetime(2030, 1, 1, tzinfo=UTC)},
        {"place": Place("here"), "point": Point(0.5), "pair": (1, 2), "set": {3}, "data": b"\xff"},
        2**64 - 1,
        -0.0,
    ],
)
def test_values_are_written_as_msgspec_writes_them(value: Any) -> None:
    """Whichever of the two encoders is faster for them."""
    expected = msgspec.json.decode(msgspec.json.encode(value))
    for encoder in (ContentEncoder(), ContentEncoder()):
        for _ in range(2):
            data = encoder.encode(value, None)[0]
            assert data is not None
            assert msgspec.json.decode(data) == expected
            encoder.encode({"plain": 1}, None)


def test_expiry_and_priority_travel_as_headers_beside_those_of_the_program() -> None:
    headers = {"source": "web", "priority": "1"}
    when = datetime(2030, 1, 1, tzinfo=UTC)
    assert with_attributes(headers, when, 9) == {
        "source": "web",
        "priority": "9",
        "expires-at-ms": "1893456000000",
    }
    assert headers == {"source": "web", "priority": "1"}
    assert with_attributes(None, None, 0) == {"priority": "0"}
    assert with_attributes(headers, None, None) is headers


@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {
                "value": st.one_of(
                    st.none(), st.binary(max_size=40), st.just({"a": 1}), st.just(b"v" * 70_000)
                )
            },
            optional={
                "key": st.sampled_from(["a", "b", b"c"]),
                "headers": st.sampled_from([None, {"h": "1"}]),
                "partition": st.sampled_from([None, 0, 1, 2]),
                "timestamp_ms": st.sampled_from(
                    [None, 5, 1_800_000_000_000, datetime(2030, 1, 1, tzinfo=UTC)]
                ),
                "priority": st.sampled_from([None, 3]),
            },
        ),
        max_size=40,
    )
)
def test_messages_with_any_details_keep_their_order_and_what_was_given(rows: list[dict[str, Any]]) -> None:
    """Whether a batch is open for them or not, and through which of the methods they come."""
    accumulator, expected = gathering(3), [list[dict[str, Any]]() for _ in range(3)]
    for number, row in enumerate(rows):
        publish = accumulator.publish if number % 2 else accumulator.publish_in_detail
        handle = publish("T", **row)
        expected[handle._batch.partition].append(row)
        given, key = row.get("partition"), row.get("key")
        if given is None and key is not None:
            given = partition_for_key(key if isinstance(key, bytes) else key.encode(), 3)
        assert handle._batch.partition == (given or 0)
    found = taken(accumulator)
    for partition, messages in enumerate(expected):
        for row, message in zip(messages, found.get(partition, []), strict=True):
            key, at, headers = row.get("key"), row.get("timestamp_ms"), row.get("headers") or {}
            assert message.data == row["value"]
            assert message.key == (key.encode() if isinstance(key, str) else key)
            if isinstance(at, datetime):
                at = int(at.timestamp() * 1000)
            assert at is None or message.timestamp == at
            added = {} if row.get("priority") is None else {"priority": "3"}
            if isinstance(row["value"], dict):
                added["content-type"] = "application/json"
            assert message.headers == headers | added


@pytest.mark.parametrize(
    "details",
    [
        {"partition": 3},
        {"partition": -1},
        {"partition": True},
        {"partition": "0"},
        {"timestamp_ms": -1},
        {"timestamp_ms": "1"},
    ],
)
def test_a_partition_or_a_time_that_does_not_exist_is_refused_beside_an_open_batch(
    details: dict[str, Any],
) -> None:
    accumulator = gathering(3)
    for partition in range(3):
        accumulator.publish("T", b"", partition=partition)
    with pytest.raises((InvalidOption, AssertionError)):
        accumulator.publish("T", b"", **details)
    assert sum(map(len, taken(accumulator).values())) == 3


@pytest.mark.parametrize(
    "given",
    [
        {"priority": 10}, {"priority": True}, {"priority": "1"}, {"expires_at": 0}, {"expires_at": 1.5},
        {"expires_at": "tomorrow"}, {"headers": 5, "priority": 1},
    ],
)  # fmt: skip
def test_expiry_and_priority_that_mean_nothing_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption):
        gathering().publish("T", b"", **given)


@pytest.mark.parametrize(
    "publish",
    [
        planaria.Producer.publish, planaria.Client.publish, planaria.Transaction.publish, planaria.Broker.publish,
        planaria.Context.publish, aio.AsyncProducer.publish, aio.AsyncProducer.publish_nowait,
        aio.AsyncClient.publish, aio.AsyncClient.publish_nowait, aio.AsyncTransaction.publish,
        aio.AsyncTransaction.publish_nowait,
    ],
)  # fmt: skip
def test_every_way_to_publish_takes_expiry_and_priority(publish: Callable[..., Any]) -> None:
    parameters = inspect.signature(publish).parameters
    details = [each.annotation for each in parameters.values() if each.kind is each.VAR_KEYWORD]
    typed = get_type_hints(get_args(details[0])[0]) if details else {}
    assert {"expires_at", "priority"} <= parameters.keys() | typed.keys()

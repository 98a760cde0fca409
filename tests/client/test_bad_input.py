"""A program's mistake is reported at once, in one line that names it, and harms nothing else of the client."""

import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from planaria import PlanariaError, UnknownTopic
from planaria.transport.client.client import Client
from planaria.transport.client.options import InvalidOption


def is_unharmed(client: Client) -> bool:
    return client.publish("T", b"v", headers={"a": "b"}).offset >= 0


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"headers": {"a": b"b"}}, "headers: 'a' must be text, not b'b'"),
        ({"headers": {1: "b"}}, "headers: a name must be text, not 1"),
        ({"headers": [("a", "b")]}, "headers: must be a dict of text to text, not list"),
        ({"headers": {"a": "\ud800"}}, "headers: 'a' cannot be encoded as UTF-8"),
        ({"partition": "0"}, "partition: must be a number, not '0'"),
        ({"partition": True}, "partition: must be a number, not True"),
        ({"timestamp_ms": 10**30}, "timestamp_ms: must be a datetime or milliseconds since 1970"),
        ({"timestamp_ms": -1}, "timestamp_ms: must be a datetime or milliseconds since 1970, not -1"),
        ({"timestamp_ms": 1.5}, "timestamp_ms: must be a datetime or milliseconds since 1970, not 1.5"),
        ({"dedup_id": 7}, "dedup_id: must be text, not 7"),
        ({"dedup_id": "\ud800"}, "dedup_id: cannot be encoded as UTF-8"),
        ({"delay": "1"}, "delay: must be seconds or a timedelta, not '1'"),
        ({"delay": 1, "scheduled_id": 7}, "scheduled_id: must be text, not 7"),
        ({"delay": 1, "scheduled_id": "\ud800"}, "scheduled_id: cannot be encoded as UTF-8"),
        ({"deliver_at": 10**30}, "deliver_at: must be a time within a year"),
        ({"deliver_at": 1.5}, "deliver_at: must be a datetime, or whole milliseconds since 1970, not 1.5"),
        (
            {"deliver_at": "noon"},
            "deliver_at: must be a datetime, or whole milliseconds since 1970, not 'noon'",
        ),
        ({"deliver_at": datetime.min}, "deliver_at: 0001-01-01 00:00:00 cannot be used"),
    ],
)
def test_what_no_message_can_hold(client: Client, given: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        client.publish("T", b"v", **given)
    assert str(refused.value).startswith(told)
    assert is_unharmed(client)


@pytest.mark.parametrize("topic", ["", "a b", 5, "\ud800", "x" * 201, "..", ["T"], {"T": 1}, None, b"T"])
def test_what_no_topic_can_be_called(client: Client, topic: Any) -> None:
    producer = client.producer()
    for attempt in (
        lambda: client.publish(topic, b"v"),
        lambda: producer.publish(topic, b"v"),
        lambda: producer.publish(topic, b"v", key=b"k"),
        lambda: producer.publish(topic, "v", partition=0),
        lambda: producer.publish(topic, b"v", dedup_id="i"),
        lambda: producer.publish(topic, b"v", delay=1),
        lambda: client.consumer("g", [topic]),
        lambda: client.share_consumer("g", [topic]),
        lambda: client.consumer(partitions=[(topic, 0)]),
        lambda: client.consumer("g", "T").seek(topic, 0, 0),
        lambda: client.consumer("g", "T").pause((topic, 0)),
        lambda: client.consumer("g", "T").committed([(topic, 0)]),
        lambda: client.consumer("g", "T").end_offsets([(topic, 0)]),
    ):
        with pytest.raises(
            InvalidOption,
            match=r"is not a valid name: 1 to 200 of the characters|^partitions: expected `str`",
        ):
            attempt()
    assert is_unharmed(client)


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda client: client.create_topic("N", retention_ms=10**30), "create_topic"),
        (lambda client: client.delete_topic("\ud800"), "delete_topic"),
        (lambda client: client.describe_topic(object()), "describe_topic"),
        (
            lambda client: client.delete_records("T", "x"),
            "delete_records: 'T', 'x' are not a topic and the number",
        ),
        (lambda client: client.delete_records("T", [0]), "delete_records: "),
        (lambda client: client.list_offsets(["T"], 0), "list_offsets: "),
        (lambda client: client.reset_offsets("g", {("T", 0): 10**30}), "offset: must be a number"),
        (
            lambda client: client.create_topic("N", retention=5),
            "retention: no such option; the nearest is retention_",
        ),
        (
            lambda client: client.alter_topic("T", cleanup_=5),
            "cleanup_: no such option; the nearest is cleanup",
        ),
        (
            lambda client: client.set_quota("c", produce_byte=5),
            "produce_byte: no such option; the nearest is produce_bytes",
        ),
        (lambda client: client.consumer("", "T"), "group: '' is not a valid name"),
        (lambda client: client.consumer("g"), "topics: a member of a group needs at least one"),
        (lambda client: client.consumer(), "topics: a consumer without partitions needs at least one"),
        (
            lambda client: client.consumer(None, []),
            "topics: a consumer without partitions needs at least one",
        ),
        (
            lambda client: client.consumer(partitions=[]),
            "partitions: a consumer of partitions needs at least",
        ),
        (
            lambda client: client.consumer("g", "T", partitions=[("T", 0)]),
            "partitions: cannot be combined with topics",
        ),
        (lambda client: client.consumer(partitions=[("T", -1)]), "a partition must be a number from 0 up"),
        (lambda client: client.consumer(partitions=["T"]), "partitions: "),
        (lambda client: client.share_consumer("g", []), "topics: a member of a group needs at least one"),
        (lambda client: client.share_consumer("a b", "T"), "group: 'a b' is not a valid name"),
        (
            lambda client: client.share_consumer("g", "T", max_bytes=2**25),
            "max_bytes: expected `int` <= 16777216",
        ),
    ],
)
def test_what_cannot_be_asked(client: Client, ask: Callable[[Client], object], told: str) -> None:
    with pytest.raises(InvalidOption, match=told):
        ask(client)
    assert is_unharmed(client)


@pytest.mark.parametrize("partition", [-1, 100, 2**40])
def test_a_partition_that_is_not_there_is_the_brokers_to_refuse(client: Client, partition: int) -> None:
    with pytest.raises(PlanariaError) as refused:
        client.list_offsets("T", partition)
    assert not isinstance(refused.value, InvalidOption)
    assert is_unharmed(client)


@pytest.mark.parametrize("offset", [-1, "5", 2**63])
def test_a_seek_to_what_is_no_offset(client: Client, offset: Any) -> None:
    with client.consumer(None, "T", auto_offset_reset="earliest") as consumer:
        with pytest.raises(InvalidOption, match="offset: must be a number from 0 up"):
            consumer.seek("T", 0, offset)
        assert consumer.position("T", 0) == 0


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"verdict": "nack"}, "verdict: 'nack' is unknown; choose one of accept, release, fail, reject"),
        ({"verdict": "fail", "delay": -1}, "delay: must be 0 to 31622400 seconds, not -1"),
        ({"verdict": "fail", "delay": float("nan")}, "delay: must be 0 to 31622400 seconds, not nan"),
        ({"verdict": "reject", "reason": 5}, "reason: must be text, not 5"),
    ],
)
def test_a_verdict_that_is_none(client: Client, given: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        client.share_consumer("g", "T").acknowledge([], **given)
    assert str(refused.value) == told


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({("T", 0): "x"}, "offset: must be a number from 0 up, not 'x'"),
        ({("T", 0): -1}, "offset: must be a number from 0 up, not -1"),
        ({("T", 0): None}, "offset: must be a number from 0 up, not None"),
        ({("T", "0"): 1}, "offsets: a partition must be a number from 0 up, not '0'"),
        ({"T": 1}, "offsets: must be (topic, partition), not 'T'"),
        ({5: 1}, "offsets: must be (topic, partition), not 5"),
        ({("a b", 0): 1}, "offsets: 'a b' is not a valid name"),
        ([("T", 0)], "offsets: must be a dict by (topic, partition), not [('T', 0)]"),
        (5, "offsets: must be a dict by (topic, partition), not 5"),
    ],
)
def test_offsets_that_cannot_be_committed(client: Client, given: Any, told: str) -> None:
    with client.consumer("g", partitions=[("T", 0)]) as consumer:
        for attempt in (
            lambda: consumer.commit(given),
            lambda: client.reset_offsets("g", given),
        ):
            with pytest.raises(InvalidOption) as refused:
                attempt()
            assert str(refused.value).startswith(told)
        for metadata in (5, {("T", 0): 5}):
            with pytest.raises(InvalidOption, match="metadata: must be"):
                consumer.commit({("T", 0): 1}, metadata)  # type: ignore[arg-type,dict-item]
    assert is_unharmed(client)


def test_a_consumer_without_a_group_commits_nothing(client: Client) -> None:
    with client.consumer(None, "T") as consumer:
        for commit in (consumer.commit, consumer._commit_for_transaction):
            with pytest.raises(PlanariaError, match="a consumer without a group has nowhere to commit to"):
                commit()


def test_publishing_outside_a_transaction(client: Client) -> None:
    with (
        client.producer(transactional_id="t") as producer,
        pytest.raises(PlanariaError, match="within a transaction"),
    ):
        producer.publish("T", b"v")


def test_a_topic_of_the_brokers_own_is_not_to_be_created(client: Client) -> None:
    with pytest.raises(
        UnknownTopic, match="unknown topic '__mine'; names that begin with __ are the broker's own"
    ):
        client.publish("__mine", b"v")


@pytest.mark.parametrize("count", [0, -1, "5"])
def test_polls_for_nothing(client: Client, count: Any) -> None:
    with client.consumer(None, "T") as consumer:
        for poll in (
            lambda: consumer.poll(0, count),
            lambda: consumer.poll_batches(0, count),
            lambda: client.share_consumer("g", "T").poll(0, count),
        ):
            with pytest.raises(InvalidOption, match="must be at least 1"):
                poll()


@pytest.mark.parametrize(
    "endpoint",
    ["localhost:5570", "http://localhost:5570", "", "tcp://localhost", "tcp://127.0.0.1:99999", 5570],
)
def test_an_endpoint_that_is_none(endpoint: Any) -> None:
    with pytest.raises(PlanariaError, match="is not of the form tcp://HOST:PORT"):
        Client(endpoint)


@pytest.mark.parametrize(("codec", "library"), [("zstd", "zstandard"), ("lz4", "lz4")])
def test_a_codec_that_is_not_installed(
    client: Client, monkeypatch: pytest.MonkeyPatch, codec: Any, library: str
) -> None:
    monkeypatch.delitem(sys.modules, "lz4.frame", raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(InvalidOption, match=f"compression: {codec} batches need the extra"):
        client.producer(compression=codec)
    assert is_unharmed(client)

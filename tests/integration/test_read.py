"""`client.read` returns what is there and ends, whatever the ends of the partitions look like and whoever is killed."""

import time
from datetime import UTC, datetime, timedelta

import pytest

import planaria.aio
from event_loops import LOOPS
from planaria import Broker, InvalidOption, UnknownTopic

pytestmark = pytest.mark.processes

RECORDS = 5_000


def fill(broker: Broker) -> None:
    """Leave in T: 0 records then an aborted tail, 1 a deleted beginning, 2 an open transaction, 3 nothing."""
    broker.create_topic("T", 4)
    with broker.producer() as producer:
        for number in range(RECORDS):
            producer.publish(
                "T", b"%d" % number, partition=number % 2, timestamp_ms=1_700_000_000_000 + number
            )
    broker.delete_records("T", 1, 100)
    with broker.producer(transactional_id="aborted") as producer:
        doomed = producer.transaction()
        doomed.publish("T", b"no", partition=0).result()
        doomed.abort()


def test_a_read_ends_at_the_end_as_of_now(broker: Broker) -> None:
    fill(broker)
    expected = {0: list(range(RECORDS // 2)), 1: list(range(100, RECORDS // 2))}
    with broker.producer(transactional_id="open") as producer:
        tx = producer.transaction()
        tx.publish("T", b"not yet", partition=2).result()
        read = broker.read("T")
        for partition in range(4):
            broker.client.publish("T", b"later", partition=partition)
        broker.kill("partition/T/0")
        found: dict[int, list[int]] = {}
        for message in read:
            found.setdefault(message.partition, []).append(message.offset)
        assert found == expected
        uncommitted = [each.value for each in broker.read("T", partitions=[2], isolation="read_uncommitted")]
        assert uncommitted == [b"not yet", b"later"]
        tx.abort()
    check_points(broker)

    async def main() -> None:
        async with planaria.aio.connect(broker.endpoint) as client:
            ends = {0: RECORDS // 2, 1: RECORDS // 2, 2: 0, 3: 0}
            offsets = [(each.partition, each.offset) async for each in client.read("T", until=ends)]
            assert sorted(offsets) == [(number, offset) for number in (0, 1) for offset in expected[number]]
            async with client.read("T") as messages:
                assert (await anext(messages)).topic == "T"
                again = client.read("T")
                async for _ in again:
                    break
                assert (
                    len([each async for each in again]) == len(offsets) + 3
                )  # one is read, four were published later
            assert [each async for each in client.read("T", since="now")] == []

    for run in LOOPS.values():
        run(main)


def check_points(broker: Broker) -> None:
    def offsets(**points: object) -> list[int]:
        return [each.offset for each in broker.read("T", partitions=[0], **points)]  # type: ignore[arg-type]

    assert offsets(since={0: 10}, until={0: 13}) == [10, 11, 12]
    assert offsets(since={0: 13}, until={0: 13}) == []
    assert offsets(since={0: 10**12}) == []
    at = datetime.fromtimestamp(1_700_000_000, UTC)
    later = at + timedelta(milliseconds=8)
    assert offsets(since=at, until=later) == [0, 1, 2, 3]
    assert offsets(since=later, until={0: 6}) == [4, 5]
    assert offsets(since=1_700_000_000_008, until="2023-11-14T22:13:20.012Z") == [4, 5]
    (last,) = (each for each in broker.read("T", partitions=[0], since="1h"))
    assert last.value == b"later"
    assert offsets(since=timedelta(hours=1), until=int(time.time() * 1000) - 3_600_000) == []
    for wrong in (17, "beginning of time", None, {0: -1}, True):
        with pytest.raises(InvalidOption):
            broker.read("T", since=wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="until"):
        broker.read("T", until="beginning")
    with pytest.raises(UnknownTopic):
        broker.read("NONE")

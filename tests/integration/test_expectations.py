"""Expected offsets and versions through real processes: by every way to publish, over kills and a restart."""

import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import planaria.aio
from event_loops import on_asyncio
from planaria import Broker, Conflict, InvalidOption, ProtocolError
from planaria.transport.addresses import GATEWAY
from planaria.transport.protocol.data import Publish, PublishRecord, PublishReply

pytestmark = pytest.mark.processes

RECORDS = 80


def test_a_lone_writer_never_conflicts_with_itself(broker: Broker) -> None:
    """Its partition is killed all the time, so answers are lost and messages sent again."""
    broker.create_topic("T", 1, key_versions=True)
    is_done = threading.Event()

    def kill() -> None:
        while not is_done.wait(0.1):
            with suppress(ProtocolError):  # it is being restarted
                broker.kill("partition/T/0")

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with broker.producer() as producer:
            versions = dict.fromkeys((b"a", b"b"), -1)
            for number in range(RECORDS):
                key = b"ab"[number % 2 : number % 2 + 1]
                delivery = producer.publish("T", b"%d" % number, key=key, expected_key_version=versions[key])
                versions[key] = delivery.result().offset or 0
    finally:
        is_done.set()
        killer.join()
    assert [int(each.value or b"") for each in broker.read("T")] == list(range(RECORDS))


def test_every_way_to_publish_and_a_restart(data_dir: Path) -> None:
    with Broker(data_dir) as broker:
        broker.create_topic("T", 1, key_versions=True)
        broker.create_topic("PLAIN", 2)
        refusals(broker)
        client = broker.client
        assert client.publish("T", b"0", key="k", expected_key_version=-1, expected_offset=0).offset == 0
        assert conflict(lambda: client.publish("T", b"no", key="k", expected_key_version=-1)) == 0
        assert conflict(lambda: broker.publish("T", "k", b"no", expected_offset=7)) == 1
        with broker.producer() as producer:
            sent = [
                producer.publish("T", b"%d" % number, key="k", expected_key_version=number - 1)
                for number in (1, 2, 5, 3)
            ]
            assert [conflict(delivery.result) for delivery in sent] == [None, None, 2, None]

        async def main() -> None:
            async with planaria.aio.connect(broker.endpoint) as tasks:
                handle = tasks.publish_nowait("PLAIN", b"0", partition=1, expected_offset=0)
                assert (await handle).offset == 0
                with pytest.raises(Conflict) as caught:
                    await tasks.publish("PLAIN", b"no", partition=1, expected_offset=0)
                assert caught.value.present == 1

        on_asyncio(main)
        request = Publish(
            topic="T",
            records=[
                PublishRecord(key_text="k", value_text="no", expected_key_version=1),
                PublishRecord(key_text="k", value_text="4", expected_key_version=3),
            ],
        )
        first, second = client._network.call(GATEWAY, request, PublishReply, timeout_ms=30_000).records
        assert first.error is not None
        assert (first.error.code, first.error.present, second.offset) == ("CONFLICT", 3, 4)
    with Broker(data_dir) as broker:
        assert conflict(lambda: broker.client.publish("T", b"no", key="k", expected_key_version=3)) == 4
        assert broker.client.publish("T", b"5", key="k", expected_key_version=4).offset == 5
        assert [each.value for each in broker.read("T")] == [b"0", b"1", b"2", b"3", b"4", b"5"]


def conflict(publish: Any) -> int | None:
    """Return what is there, None if the message was published."""
    try:
        publish()
    except Conflict as error:
        return error.present
    return None


def refusals(broker: Broker) -> None:
    with pytest.raises(InvalidOption, match="no key"):
        broker.client.publish("T", b"", expected_key_version=0)
    with pytest.raises(InvalidOption, match="needs a partition"):
        broker.client.publish("T", b"", expected_offset=0)
    with pytest.raises(InvalidOption, match="delayed"):
        broker.client.publish("T", b"", key="k", expected_offset=0, delay=5)
    for wrong in (-2, "1", True):
        with pytest.raises(InvalidOption, match="expected_key_version"):
            broker.client.publish("T", b"", key="k", expected_key_version=wrong)  # type: ignore[arg-type]
    with pytest.raises(ProtocolError, match="without key_versions"):
        broker.client.publish("PLAIN", b"", key="k", expected_key_version=0)
    with pytest.raises(ProtocolError, match="compressed"), broker.producer(compression="zstd") as producer:
        producer.publish("T", b"").result()
    with pytest.raises(ProtocolError, match="key_versions"):
        broker.alter_topic("PLAIN", key_versions=True)
    with pytest.raises(ProtocolError, match="partitions"):
        broker.alter_topic("T", partitions=2)

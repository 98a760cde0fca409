"""`client.table` through real processes: restored, kept current, and waited for, by threads and tasks."""

import threading
from typing import Any

import pytest

import planaria.aio
from event_loops import LOOPS
from patience import TIMEOUT_S
from planaria import Broker, Client, Closed, InvalidOption, TimedOut, UnknownTopic

pytestmark = pytest.mark.processes


def test_a_table_is_restored_kept_current_and_waited_for(broker: Broker) -> None:
    broker.create_topic("T", 2, cleanup="compact")
    for number in range(20):
        broker.publish("T", f"k{number % 5}", {"n": number})
    broker.publish("T", "k0", None)
    with broker.producer(transactional_id="x") as producer:
        doomed = producer.transaction()
        for partition in (0, 1):
            doomed.publish("T", b"no", key="k1", partition=partition).result()
        doomed.abort()
    with Client(broker.endpoint) as client, client.table("T") as table:
        assert dict(table) == {f"k{number - 15}".encode(): {"n": number} for number in range(16, 20)}
        assert (len(table), "k1" in table, b"k0" in table, None in table) == (4, True, False, False)
        assert table.get("k0") is None
        broker.kill("partition/T/0")
        threads = [threading.Thread(target=write_and_read, args=(client, table, name)) for name in "abc"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [table[name] for name in "abc"] == [9, 9, 9]
        expected = table.snapshot()
        for run in LOOPS.values():
            run(lambda: tasks(broker.endpoint, expected))
        refusals(client, table)
        waiting = threading.Timer(0.2, table.close)
        waiting.start()
        with pytest.raises(Closed):
            table.wait_for(10**6, partition=0)
        waiting.join()
        with pytest.raises(Closed):
            table.get("a")


def write_and_read(client: Client, table: Any, name: str) -> None:
    for number in range(10):
        table.wait_for(client.publish("T", number, key=name), timeout=TIMEOUT_S)
        assert table[name] == number
    message = table.message(name)
    assert message is not None
    table.wait_for(message)
    table.wait_for(message.offset, message.partition)


async def tasks(endpoint: str, expected: dict[bytes, Any]) -> None:
    async with planaria.aio.connect(endpoint) as client, client.table("T") as table:
        found = table.snapshot()
        found.pop(b"task", None)
        assert found == expected
        await table.wait_for(await client.publish("T", "done", key="task"))
        assert (table["task"], len(table)) == ("done", len(expected) + 1)
        with pytest.raises(TimedOut):
            await table.wait_for(10**6, partition=0, timeout=0)
        other = await client.table("T")
        assert dict(other.items()) == dict(table)
        await other.close()


def refusals(client: Client, table: Any) -> None:
    with pytest.raises(TimedOut):
        table.wait_for(10**6, partition=0, timeout=0)
    for wrong in ((3, None), (-1, 0), ("x", 0)):
        with pytest.raises(InvalidOption):
            table.wait_for(*wrong)
    client.create_topic("PLAIN", 1)
    elsewhere = client.publish("PLAIN", b"")
    with pytest.raises(InvalidOption, match="message of T"):
        table.wait_for(elsewhere)
    with pytest.raises(UnknownTopic):
        client.table("NONE")

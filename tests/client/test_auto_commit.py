"""Automatic commits of a poll that waits: the machine's times, and both shells that wait for them."""

import asyncio
import threading
from collections import deque
from typing import Any

from client_reading import fill
from fake_broker import FakeBroker
from planaria import aio
from planaria.transport.addresses import TopicPartition
from planaria.transport.batch import build, stamp
from planaria.transport.client.client import Client
from planaria.transport.client.commits import LEAST_PAUSE_S, AutoCommit
from planaria.transport.client.consuming import Consuming
from planaria.transport.client.fetching import Chunk, Located
from planaria.transport.machine import Answered, Call, Failed
from planaria.transport.protocol.errors import ErrorBody, ErrorCode
from planaria.transport.protocol.groups import CommitOffsetsReply

P = TopicPartition("T", 0)


def three_messages_returned(interval_s: float) -> Consuming:
    """Return a machine that has returned three messages, and whose next poll has begun."""
    machine = Consuming(
        group="g", is_member=False, auto_commit=AutoCommit(True, interval_s, 0.0), request_timeout_ms=1_000
    )
    machine.begin({P: 0})
    epoch, _ = machine.posts.popleft().starts[P]
    records = [(None, b"%d" % offset, 0, None) for offset in range(3)]
    frame = bytes(stamp(build(records, first_timestamp_ms=5, max_timestamp_ms=5), 0, 0))
    machine.accept(deque([Located(P, epoch, 0), Chunk(P, epoch, (frame,), len(frame), 3)]))
    machine.begin_poll()
    assert len(look(machine, 1.0) or []) == 3
    machine.begin_poll()
    return machine


def look(machine: Consuming, now_s: float) -> list[Any] | None:
    """Return the messages that a poll finds now."""
    return machine.found(lambda: machine.reader.take(10), now_s)


def take_commit(machine: Consuming) -> Call | None:
    """Return the commit that was posted, if one was."""
    calls = [event for event in machine.posts if isinstance(event, Call)]
    machine.posts.clear()
    return calls[0] if calls else None


def test_a_poll_waits_until_the_next_commit_is_due_and_makes_it() -> None:
    machine = three_messages_returned(5.0)
    assert look(machine, 2.0) is None
    assert machine.commits.longest_wait_s(None, 2.0) == 3.0
    assert machine.commits.longest_wait_s(1.0, 2.0) == 1.0
    assert look(machine, 4.9) is None
    assert take_commit(machine) is None
    assert look(machine, 5.0) is None
    commit = take_commit(machine)
    assert commit is not None
    assert [item.offset for item in commit.request.offsets] == [3]
    assert machine.commits.longest_wait_s(None, 5.0) is None  # its answer is mail
    machine.accept(deque([Answered(commit.key, CommitOffsetsReply(), ())]))
    assert look(machine, 11.0) is None
    assert take_commit(machine) is None
    assert machine.commits.longest_wait_s(None, 11.0) is None


def test_a_refused_commit_of_a_poll_that_waits_is_repeated_after_a_pause() -> None:
    machine = three_messages_returned(0.0)
    assert look(machine, 2.0) is None
    commit = take_commit(machine)
    assert commit is not None
    assert look(machine, 2.0) is None
    assert take_commit(machine) is None  # one is in flight
    machine.accept(deque([Failed(commit.key, ErrorBody(ErrorCode.TIMED_OUT, "slow"))]))
    assert machine.commits.longest_wait_s(None, 2.0) == LEAST_PAUSE_S
    assert look(machine, 2.1) is None
    assert take_commit(machine) is not None


def test_without_automatic_commits_a_poll_waits_for_mail_alone() -> None:
    machine = Consuming(
        group=None, is_member=False, auto_commit=AutoCommit(False, 1.0, 0.0), request_timeout_ms=1_000
    )
    machine.begin_poll()
    assert machine.commits.longest_wait_s(None, 2.0) is None
    assert machine.commits.longest_wait_s(4.0, 2.0) == 4.0


def test_a_loop_over_a_quiet_topic_commits(client: Client, broker: FakeBroker) -> None:
    fill(client, 3)
    consumer = client.consumer("g", ["T"], auto_offset_reset="earliest", auto_commit_interval_ms=1_000)
    loop = threading.Thread(target=lambda: list(consumer))
    loop.start()
    while broker.count("commit_offsets") == 0:
        client.list_groups()
    consumer.stop()
    loop.join()
    assert consumer.committed([P]) == {P: 3}


def test_a_task_s_loop_over_a_quiet_topic_commits(client: Client, broker: FakeBroker) -> None:
    fill(client, 3)

    async def main() -> None:
        async with aio.connect(broker.endpoint) as found:
            options: Any = {"auto_offset_reset": "earliest", "auto_commit_interval_ms": 1_000}
            async with found.consumer("g", ["T"], **options) as consumer:

                async def read() -> None:
                    async for _ in consumer:
                        pass

                loop = asyncio.create_task(read())
                while broker.count("commit_offsets") == 0:
                    await found.list_groups()
                consumer.stop()
                await loop
                assert await consumer.committed([P]) == {P: 3}

    asyncio.run(main())

"""The consumer against a fake broker: positions, commits, rebalances, restarts."""

import threading
from typing import Any

import pytest

from client_reading import fill, read
from fake_broker import FakeBroker
from planaria.transport.client.client import Client
from planaria.transport.client.errors import Closed, CommitFailed, MemberFenced, NoOffset, OffsetOutOfRange
from planaria.transport.client.options import InvalidOption
from planaria.transport.protocol.data import Fetch, ListOffsets
from planaria.transport.protocol.errors import ErrorCode, PlanariaError


def poll_until(consumer: Any, is_done: Any) -> None:
    for _ in range(1_000):
        consumer.poll(0.02)
        if is_done():
            return
    raise AssertionError("it never came to that")


def test_a_free_standing_consumer_reads_everything_in_order(client: Client, broker: FakeBroker) -> None:
    fill(client, 100)
    fill(client, 50, partition=1)
    with client.consumer(topics=["T"], auto_offset_reset="earliest") as consumer:
        messages = read(consumer, 150)
        assert [m.data["n"] for m in messages if m.partition == 0] == list(range(100))
        assert [m.offset for m in messages if m.partition == 1] == list(range(50))
        assert messages[0].key == b"k"
        assert (consumer.position("T", 0), consumer.position("T", 1)) == (100, 50)
        assert consumer.poll(0) == []
    with pytest.raises(Closed):
        consumer.poll(0)


def test_an_automatic_commit_never_undoes_a_later_one(client: Client, broker: FakeBroker) -> None:
    fill(client, 10)
    consumer = client.consumer("g", ["T"], auto_offset_reset="earliest", auto_commit_interval_ms=0)
    while not consumer.poll(0.02, max_messages=5):
        pass
    broker.fault("commit_offsets", ErrorCode.ACTOR_UNAVAILABLE)
    assert len(consumer.poll(10, max_messages=5)) == 5  # the first five are committed without its knowledge
    while broker.count("commit_offsets") == 0:
        client.list_groups()
    consumer.commit()
    for _ in range(100):  # far longer than the first retry would wait
        assert consumer.committed([("T", 0)]) == {("T", 0): 10}


def test_latest_starts_at_the_end(client: Client, broker: FakeBroker) -> None:
    fill(client, 10)
    consumer = client.consumer(partitions=[("T", 0)])
    assert consumer.position("T", 0, 10) == 10
    fill(client, 1, start=10)
    assert [m.offset for m in read(consumer, 1)] == [10]


def test_reset_by_error(client: Client, broker: FakeBroker) -> None:
    consumer = client.consumer("g", partitions=[("T", 0)], auto_offset_reset="error")
    with pytest.raises(NoOffset):
        consumer.poll(10)
    consumer.seek("T", 0, 7)
    with pytest.raises(OffsetOutOfRange):
        consumer.poll(10)
    fill(client, 3)
    consumer.seek("T", 0, 1)
    assert [m.offset for m in read(consumer, 2)] == [1, 2]


def test_what_is_not_committed_is_read_again(client: Client, broker: FakeBroker) -> None:
    fill(client, 6)
    fill(client, 4, partition=1)
    broker.offsets["g", "T", 0] = 2
    consumer = client.consumer("g", partitions=[("T", 0), ("T", 1)], auto_commit=False)
    assert consumer.position("T", 1, 10) == 4, "nothing is committed here, so it began at the end"
    fill(client, 3, start=4, partition=1)
    first = {(m.partition, m.offset) for m in read(consumer, 7)}
    consumer.seek_to_committed()
    assert {(m.partition, m.offset) for m in read(consumer, 7)} == first
    consumer.commit()
    consumer.seek_to_committed()
    assert consumer.poll(0) == []
    assert consumer.position("T", 0, 10) == 6


def test_an_offset_out_of_range_is_reset(client: Client, broker: FakeBroker) -> None:
    fill(client, 5)
    consumer = client.consumer(partitions=[("T", 0)], auto_offset_reset="earliest")
    consumer.seek("T", 0, 99)
    assert [m.offset for m in read(consumer, 5)] == [0, 1, 2, 3, 4]


def test_seek_and_pause(client: Client, broker: FakeBroker) -> None:
    fill(client, 5)
    fill(client, 5, partition=1)
    consumer = client.consumer(topics=["T"], auto_offset_reset="earliest")
    read(consumer, 10)
    consumer.pause(("T", 1))
    assert consumer.paused() == [("T", 1)]
    consumer.seek("T", 0, 3)
    consumer.seek("T", 1, 3)
    assert [(m.partition, m.offset) for m in read(consumer, 2)] == [(0, 3), (0, 4)]
    consumer.resume(("T", 1))
    assert [(m.partition, m.offset) for m in read(consumer, 2)] == [(1, 3), (1, 4)]
    with pytest.raises(PlanariaError, match="not assigned"):
        consumer.seek("T", 2, 0)


def test_a_group_member_goes_on_where_the_group_was(client: Client, broker: FakeBroker) -> None:
    fill(client, 10)
    with client.consumer("g", ["T"], auto_offset_reset="earliest") as consumer:
        assert [m.offset for m in read(consumer, 10)] == list(range(10))
        consumer.commit({("T", 0): 4})
        assert consumer.committed() == {("T", 0): 4}
        assert consumer.committed([("T", 1)]) == {}
        broker.do(lambda: None)
    assert broker.offsets["g", "T", 0] == 10, "close commits what was handed out"
    assert broker.members == {}, "and leaves"
    fill(client, 2, start=10)
    with client.consumer("g", ["T"], auto_offset_reset="earliest") as consumer:
        assert [m.offset for m in read(consumer, 2)] == [10, 11]


def test_automatic_commits_never_cover_what_was_just_handed_out(client: Client, broker: FakeBroker) -> None:
    fill(client, 10)
    consumer = client.consumer("g", ["T"], auto_offset_reset="earliest", auto_commit_interval_ms=0)
    first: list[Any] = []
    while not first:
        first = consumer.poll(10, max_messages=4)
    assert ("g", "T", 0) not in broker.offsets
    assert len(consumer.poll(10, max_messages=4)) == 4
    poll_until(consumer, lambda: broker.offsets.get(("g", "T", 0), 0) >= 4)


def end_badly(consumer: Any) -> None:
    """Leave its block by an exception."""
    error = ZeroDivisionError()
    consumer.__exit__(type(error), error, None)


def test_a_block_that_fails_does_not_commit_the_last_messages(client: Client, broker: FakeBroker) -> None:
    fill(client, 10)
    consumer = client.consumer("g", ["T"], auto_offset_reset="earliest")
    while not consumer.poll(10, max_messages=4):
        pass
    assert len(consumer.poll(10, max_messages=4)) == 4
    end_badly(consumer)
    assert broker.offsets["g", "T", 0] == 4


def test_an_iteration_commits_what_was_asked_past(client: Client, broker: FakeBroker) -> None:
    fill(client, 10)
    with client.consumer("g", ["T"], auto_offset_reset="earliest") as consumer:
        for message in consumer:
            if message.offset == 3:
                break
        assert consumer.position("T", 0) == 4
        assert [m.offset for m in consumer.poll(10)] == [4, 5, 6, 7, 8, 9]
        consumer.seek("T", 0, 0)
        for message in consumer:
            if message.offset == 3:
                break
    assert broker.offsets["g", "T", 0] == 4
    consumer = client.consumer("g", ["T"])
    for message in consumer:
        if message.offset == 6:
            end_badly(consumer)
            break
    assert broker.offsets["g", "T", 0] == 6


def test_a_revoked_partition_is_committed_called_back_and_only_then_released(
    client: Client, broker: FakeBroker
) -> None:
    fill(client, 10)
    fill(client, 10, partition=1)
    log: list[Any] = []
    consumer = client.consumer(
        "g",
        ["T"],
        auto_offset_reset="earliest",
        on_assigned=lambda tps: log.append(("assigned", tps)),
        on_revoked=lambda tps: log.append(
            ("revoked", tps, dict(broker.offsets), broker.members["member-1"]["owned"])
        ),
    )
    read(consumer, 20)
    broker.assign("member-1", {"T": [1]})
    poll_until(consumer, lambda: broker.members["member-1"]["owned"] == {"T": [1]})
    assert log == [
        ("assigned", [("T", 0), ("T", 1)]),
        ("revoked", [("T", 0)], {("g", "T", 0): 10}, {"T": [0, 1]}),
    ]
    assert consumer.assignment() == [("T", 1)]
    fill(client, 1, start=10)
    fill(client, 1, partition=1, start=10)
    assert [(m.partition, m.offset) for m in read(consumer, 1)] == [(1, 10)]
    broker.assign("member-1", {"T": [0, 1]})
    assert [(m.partition, m.offset) for m in read(consumer, 1)] == [(0, 10)]


def test_a_fenced_member_drops_everything_and_joins_again(client: Client, broker: FakeBroker) -> None:
    fill(client, 10)
    lost: list[Any] = []
    consumer = client.consumer("g", ["T"], auto_offset_reset="earliest", on_lost=lost.append)
    read(consumer, 10)
    broker.do(broker.members.clear)
    broker.assign("member-1", {})
    poll_until(consumer, lambda: lost and consumer.assignment() == [])
    assert lost == [[("T", 0), ("T", 1)]]
    assert ("g", "T", 0) not in broker.offsets, "a fenced member cannot commit"


def test_who_was_lost_and_came_back_does_not_commit_what_was_reached_before(
    client: Client, broker: FakeBroker
) -> None:
    fill(client, 10)
    consumer = client.consumer("g", ["T"], auto_offset_reset="earliest", auto_commit=False)
    read(consumer, 10)
    broker.do(broker.members.clear)
    broker.assign("member-1", {"T": [0, 1]})
    # It was lost, has rejoined and got the same partitions, and the program was not notified.
    wait_for(
        lambda: (
            consumer._bridge._membership.identity.losses == 1
            and consumer._bridge._membership.state == "member"
        )
    )
    for commit in (consumer.commit, lambda: consumer.commit({("T", 0): 3})):
        with pytest.raises(CommitFailed, match="lost"):
            commit()
    assert ("g", "T", 0) not in broker.offsets
    assert [m.offset for m in read(consumer, 10)] == list(range(10))
    consumer.commit()
    assert broker.offsets["g", "T", 0] == 10


def test_a_program_that_does_not_poll_loses_its_partitions(client: Client, broker: FakeBroker) -> None:
    fill(client, 10)
    lost = threading.Event()
    consumer = client.consumer(
        "g", ["T"], auto_offset_reset="earliest", max_poll_interval_ms=60, on_lost=lambda _: lost.set()
    )
    read(consumer, 10)
    wait_for(lambda: broker.count("leave_group") == 1)
    assert [m.offset for m in read(consumer, 10)] == list(range(10)), "joined again, nothing was committed"
    assert lost.is_set()


def wait_for(is_done: Any) -> None:
    pause = threading.Event()
    for _ in range(1_000):
        if is_done():
            return
        pause.wait(0.01)
    raise AssertionError("it never came to that")


def test_heartbeats_go_on_while_the_program_is_busy(client: Client, broker: FakeBroker) -> None:
    consumer = client.consumer("g", ["T"], session_timeout_ms=150)
    poll_until(consumer, lambda: len(consumer.assignment()) == 2)
    beats = broker.count("group_heartbeat")
    wait_for(lambda: broker.count("group_heartbeat") > beats + 3)
    consumer.poll(0)
    assert len(consumer.assignment()) == 2


def test_a_partition_restart_goes_unnoticed(client: Client, broker: FakeBroker) -> None:
    fill(client, 10)
    consumer = client.consumer(partitions=[("T", 0)], auto_offset_reset="earliest")
    read(consumer, 10)
    broker.kill_partition("T", 0)
    broker.start_partition("T", 0)
    fill(client, 10, start=10)
    assert [m.offset for m in read(consumer, 10)] == list(range(10, 20))


def test_a_gateway_restart_goes_unnoticed(remote_broker: FakeBroker) -> None:
    with Client(remote_broker.endpoint) as client:
        fill(client, 10)
        consumer = client.consumer("g", ["T"], auto_offset_reset="earliest")
        read(consumer, 10)
        remote_broker.kill_gateway()
        remote_broker.start_gateway()
        fill(client, 10, start=10)
        assert [m.offset for m in read(consumer, 10)] == list(range(10, 20))


def test_damaged_data_is_named(client: Client, broker: FakeBroker) -> None:
    fill(client, 10)
    header, frame = broker.partitions["T", 0].batches[0]
    damaged = bytearray(frame)
    damaged[70] ^= 1
    broker.do(lambda: broker.partitions["T", 0].batches.__setitem__(0, (header, bytes(damaged))))
    consumer = client.consumer(partitions=[("T", 0)], auto_offset_reset="earliest")
    with pytest.raises(PlanariaError, match="corrupt data in T/0 at offset 0"):
        consumer.poll(10)


def test_a_topic_may_be_named_alone(client: Client, broker: FakeBroker) -> None:
    fill(client, 3)
    with client.consumer("g", "T", auto_offset_reset="earliest") as consumer:
        assert len(read(consumer, 3)) == 3


def test_a_static_member_leaves_only_when_told_to(client: Client, broker: FakeBroker) -> None:
    for options, leaves in (({}, 0), ({"leave_group": True}, 1)):
        consumer = client.consumer("g", ["T"], instance_id="i")
        poll_until(consumer, lambda consumer=consumer: len(consumer.assignment()) == 2)
        consumer.close(**options)
        assert broker.count("leave_group") == leaves


def test_a_static_member_that_was_replaced_says_so(client: Client, broker: FakeBroker) -> None:
    consumer = client.consumer("g", ["T"], instance_id="i")
    poll_until(consumer, lambda: len(consumer.assignment()) == 2)
    broker.fault("group_heartbeat", ErrorCode.FENCED_MEMBER, times=10)  # a coordinator refuses every one
    broker.assign("member-1", {"T": [0]})  # ends the parked heartbeat
    with pytest.raises(MemberFenced):
        poll_until(consumer, lambda: False)
    joins = broker.count("group_heartbeat")
    for _ in range(3):  # the first updates it, and none restores the position
        with pytest.raises(MemberFenced):
            poll_until(consumer, lambda: False)
    assert broker.count("group_heartbeat") == joins
    with pytest.raises(MemberFenced):
        consumer.commit()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("name", ["on_assigned", "on_revoked", "on_lost"])
def test_a_callback_that_raises_does_not_leave_a_change_half_done(
    client: Client, broker: FakeBroker, name: str, error: type[BaseException]
) -> None:
    called: list[str] = []

    def callback(kind: str) -> Any:
        def call(tps: Any) -> None:
            called.append(kind)
            if kind == name:
                raise error("of the program")

        return call

    callbacks = {kind: callback(kind) for kind in ("on_assigned", "on_revoked", "on_lost")}
    consumer = client.consumer("g", ["T"], **callbacks)

    def poll() -> None:
        try:
            consumer.poll(0.02)
        except error as raised:
            told.append(raised)

    told: list[BaseException] = []
    while len(consumer.assignment()) < 2:
        poll()
    broker.assign("member-1", {"T": [0]})
    while broker.members["member-1"]["owned"] != {"T": [0]}:
        poll()
    assert consumer.assignment() == [("T", 0)]
    broker.fault("group_heartbeat", ErrorCode.UNKNOWN_MEMBER)
    broker.assign("member-1", {"T": [0]})  # no change; the heartbeat after it is refused
    while called[-1] != "on_assigned" or "on_lost" not in called:
        poll()
    assert [raised.args for raised in told] == [("of the program",)] * called.count(name)
    consumer.close()


def test_a_consumer_that_a_callback_closes_hands_out_nothing(client: Client, broker: FakeBroker) -> None:
    fill(client, 5)
    consumer = client.consumer(
        "g", ["T"], auto_offset_reset="earliest", on_assigned=lambda _: consumer.close()
    )
    assert consumer.poll(10) == []
    with pytest.raises(Closed):
        consumer.poll(0)
    assert broker.members == {}


def test_a_refused_group_raises(client: Client, broker: FakeBroker) -> None:
    broker.fault("group_heartbeat", ErrorCode.GROUP_FULL)
    consumer = client.consumer("g", ["T"])
    with pytest.raises(PlanariaError, match="GROUP_FULL"):
        consumer.poll(10)


@pytest.mark.parametrize("isolation", ["read_committed", "read_uncommitted"])
def test_what_isolation_a_consumer_asks_for(client: Client, broker: FakeBroker, isolation: str) -> None:
    fill(client, 5)
    consumer = client.consumer(
        partitions=[("T", 0)], auto_offset_reset="earliest", fetch_max_wait_ms=20, isolation=isolation
    )
    assert len(read(consumer, 5)) == 5
    assert consumer.end_offsets([("T", 0)]) == {("T", 0): 5}
    asked = [request for request in broker.seen if isinstance(request, Fetch | ListOffsets)]
    assert {request.isolation for request in asked} == {isolation}


def test_an_unknown_isolation_is_refused_by_name(client: Client) -> None:
    with pytest.raises(InvalidOption, match="isolation"):
        client.consumer(partitions=[("T", 0)], isolation="serializable")

"""The roles of a partition's replica: how it gets one, what each of them answers, and how a follower begins."""

from typing import Any
from unittest import mock

import msgspec
import pytest

from planaria.actors.partition.follower import BUSY_BYTES, CommittedRecordsMissing
from planaria.actors.partition.in_sync import DOWN_GRACE_MS
from planaria.actors.partition.timers import FetchAgain, InSyncDue
from planaria.transport.machine import Disconnected, Received, Sender, TimerFired
from planaria.transport.protocol.data import Fetch, ListOffsets, Produce
from planaria.transport.protocol.errors import ErrorBody, ErrorCode
from planaria.transport.protocol.message import Done
from planaria.transport.protocol.replication import (
    Follow,
    Lead,
    Member,
    ReplicaFetch,
    ReplicaReported,
    ReportLogEnd,
)
from planaria.transport.protocol.session import Cancel
from planaria.transport.protocol.topics import (
    ConfigurePartition,
    DeleteRecords,
    DescribePartition,
    TopicConfig,
)
from planaria.transport.request_context import direct_context
from simulated_replicas import (
    CLIENT,
    FOR_EVER_MS,
    NODES,
    STORE,
    ReplicaWorld,
    a_batch,
    address_of,
    ask,
    settle,
)


def lead(leader_epoch: int, revision: int = 1, in_sync: str = "abc") -> Lead:
    return Lead(
        topic="ORDERS",
        topic_id="t1",
        partition=0,
        leader_epoch=leader_epoch,
        replicas={name: f"{name}1" for name in NODES},
        in_sync=tuple(Member(name, f"{name}1") for name in in_sync),
        min_in_sync_replicas=2,
        trusted_until_ms=FOR_EVER_MS,
        revision=revision,
    )


@pytest.fixture
def world() -> ReplicaWorld:
    world = ReplicaWorld(0)
    world.is_quiet = True
    return world


@pytest.fixture
def led(world: ReplicaWorld) -> ReplicaWorld:
    """Node a leads, b and c follow, and five records are committed."""
    world.claim()
    settle(world)
    ask(world.nodes["a"], produce(), a_batch(b"0", b"1", b"2"), a_batch(b"3", b"4"))
    settle(world)
    return world


def produce(acks: Any = "all") -> Produce:
    return Produce(topic="ORDERS", partition=0, acks=acks)


@pytest.mark.parametrize(
    "request_",
    [
        Fetch(topic="ORDERS", partition=0, offset=0),
        ListOffsets(topic="ORDERS", partition=0, at="latest"),
        DeleteRecords(topic="ORDERS", partition=0, before_offset=0),
        produce(),
    ],
)
def test_without_a_role_a_replica_refuses_what_a_leader_answers(world: ReplicaWorld, request_: Any) -> None:
    error = ask(world.nodes["a"], request_)
    assert (error.code, error.retriable) == (ErrorCode.NOT_LEADER, True)
    assert ask(world.nodes["a"], DescribePartition()).description.leader_epoch == -1


def test_a_follower_names_the_leader(led: ReplicaWorld) -> None:
    error = ask(led.nodes["b"], produce(), a_batch(b"x"))
    assert (error.code, error.leader) == (ErrorCode.NOT_LEADER, "a")
    assert ask(led.nodes["b"], produce(acks=0), a_batch(b"x")) is None


def test_followers_have_the_leaders_bytes_and_its_high_watermark(led: ReplicaWorld) -> None:
    logs = [[frame for _, frame in node.disk.batches] for node in led.nodes.values()]
    assert logs[0] == logs[1] == logs[2]
    assert len(logs[0]) == 2
    assert led.nodes["a"].machine._role.watermarks.high_watermark == 5


def followers_messages(led: ReplicaWorld, *batches: bytes) -> list[str]:
    """Return the names of the messages that follower b sends for an append, until it waits again."""
    ask(led.nodes["a"], produce(), *batches)
    led._deliver("a", "b")
    sent = [type(message[3]).__name__ for message in led.links["b", "a"]]
    settle(led)
    return sent


def test_a_follower_reports_one_small_batch_by_its_next_fetch(led: ReplicaWorld) -> None:
    assert followers_messages(led, a_batch(b"x")) == ["ReplicaFetch"]
    assert led.nodes["a"].machine._role.watermarks.high_watermark == 6


def test_a_follower_of_a_busy_leader_fetches_before_it_syncs(led: ReplicaWorld) -> None:
    for batches in ([a_batch(b"x"), a_batch(b"y")], [a_batch(bytes(BUSY_BYTES))]):
        assert followers_messages(led, *batches) == ["ReplicaFetch", "ReplicaDurable"]
    assert led.nodes["a"].machine._role.watermarks.high_watermark == 8


def test_a_replica_that_was_taken_for_dead_and_is_not_joins_again_though_nothing_is_written(
    led: ReplicaWorld,
) -> None:
    reported = ReplicaReported(
        topic="ORDERS", topic_id="t1", partition=0, replica="b", is_up=False, is_node=True
    )
    assert ask(led.nodes["a"], reported) == Done()
    led._deliver("a", STORE)
    assert led.record.in_sync_nodes == {"a", "c"}
    settle(led)  # b fetches again
    assert led.record.in_sync_nodes == {"a", "b", "c"}


@pytest.mark.parametrize("name", ["a", "b"], ids=["a leader", "another replica"])
def test_a_report_about_a_replica_is_answered_if_it_is_a_call(led: ReplicaWorld, name: str) -> None:
    """A call of another actor has an envelope and no id. Unanswered, it would not be repeated at the next leader."""
    report = ReplicaReported(topic="ORDERS", topic_id="t1", partition=0, replica="c", is_up=True)
    node = led.nodes[name]
    assert node.loop is not None
    with mock.patch.object(node, "gather"):
        for route, answers in (((b"controller.0",), 0), ((b"controller.0", b"1"), 1)):
            node.turn(Received(Sender(route, None), report, context=direct_context(route[0], report)))
            found = [reply for reply in node.loop.replies if reply.to.route == route]
            assert len(found) == answers


def test_a_replica_whose_fetch_is_withdrawn_leaves_if_it_is_not_back_soon(led: ReplicaWorld) -> None:
    """A link withdraws the fetches of a connection that is lost."""
    leader = led.nodes["a"]
    [call] = led.nodes["b"].calls.values()
    number = next(number for number, each in led.nodes["b"].calls.items() if each is call)
    route = b"b.%d" % led.nodes["b"].incarnation
    led.cut.add(("b", "a"))
    leader.turn(
        Received(Sender((route,), number, kind=Cancel), Cancel(), context=direct_context(route, Cancel()))
    )
    led.now += DOWN_GRACE_MS
    leader.turn(TimerFired(InSyncDue()))
    settle(led)
    assert led.record.in_sync_nodes == {"a", "c"}


def test_an_older_role_changes_nothing_and_the_same_one_is_confirmed(world: ReplicaWorld) -> None:
    node = world.nodes["a"]
    for request, epoch in ((lead(4, 7), 4), (lead(4, 7), 4), (lead(4, 6), 4), (lead(3, 9), 4)):
        reply = ask(node, request)
        assert (reply.role, reply.leader_epoch, reply.highest_leader_epoch) == ("leader", epoch, 4)
    assert ask(node, lead(5, 8)).leader_epoch == 5
    assert node.machine._role.leader_epoch == 5


def test_an_epoch_that_was_used_is_not_led_again_by_the_next_process(world: ReplicaWorld) -> None:
    node = world.nodes["a"]
    assert ask(node, lead(4)).role == "leader"
    node.crash()
    node.start()
    reply = ask(node, lead(4, 2))
    assert (reply.role, reply.highest_leader_epoch) == ("undecided", 4)
    assert ask(node, lead(5, 3)).role == "leader"


def test_requests_that_wait_are_refused_when_the_role_ends(led: ReplicaWorld) -> None:
    node = led.nodes["a"]
    led.cut.update({("b", "a"), ("c", "a")})
    assert ask(node, produce(), a_batch(b"x")) is None, "it waits for the followers"
    led.record = led.record.__class__(
        replicas=NODES, leader="b", leader_epoch=9, claim="b/1", in_sync=led.record.in_sync
    )
    led.revision += 1
    led.assign("a")
    settle(led)
    answers = [message[3] for message in led.links["a", CLIENT]]
    assert [body.code for body in answers if isinstance(body, ErrorBody)] == [ErrorCode.NOT_LEADER]


def test_a_new_leader_looks_up_no_end_before_its_replicas_have_confirmed_it(led: ReplicaWorld) -> None:
    node = led.nodes["b"]
    latest = ListOffsets(topic="ORDERS", partition=0, at="latest")
    node.crash()
    node.start()
    assert ask(node, lead(7)).role == "leader"
    error = ask(node, latest)
    assert (error.code, error.retriable) == (ErrorCode.PARTITION_OFFLINE, True)
    assert ask(node, ListOffsets(topic="ORDERS", partition=0, at="earliest")).offset == 0
    assert ask(node, Fetch(topic="ORDERS", partition=0, offset=5, max_wait_ms=1_000)) is None, "it waits"
    for name in "ac":
        fetch = ReplicaFetch(
            topic="ORDERS", topic_id="t1", partition=0, replica=name, data_id=f"{name}1", leader_epoch=7,
            fetch_offset=5, last_epoch=node.machine._log.epochs.last, durable_offset=5,
        )  # fmt: skip
        ask(node, fetch)
    assert ask(node, latest).offset == 5


def test_below_the_minimum_acks_all_is_refused_before_the_append(world: ReplicaWorld) -> None:
    node = world.nodes["a"]
    ask(node, lead(1, in_sync="a"))
    error = ask(node, produce(), a_batch(b"x"))
    assert (error.code, error.retriable) == (ErrorCode.NOT_ENOUGH_REPLICAS, True)
    assert node.disk.batches == []
    reply = ask(node, produce(acks=1), a_batch(b"x"))
    assert (reply.batches[0].base_offset, reply.high_watermark) == (0, 0)


@pytest.mark.parametrize("start", [3, 4, 5])
def test_a_replica_behind_the_leaders_start_begins_there(led: ReplicaWorld, start: int) -> None:
    """Also where that start lies inside a batch, which it then has whole."""
    leader, late = led.nodes["a"], led.nodes["c"]
    late.crash()
    late.disk.batches, late.disk.durable, late.disk.snapshot = [], 0, None
    assert (
        ask(leader, DeleteRecords(topic="ORDERS", partition=0, before_offset=start)).log_start_offset == start
    )
    late.start()
    led.assign("c")
    settle(led)
    assert (late.disk.log_start_offset, late.disk.end_offset) == (start, 5)
    expected = [frame for header, frame in leader.disk.batches if header.next_offset > start]
    assert [frame for _, frame in late.disk.batches] == expected


def test_a_pause_that_ends_in_the_turn_of_a_reply_fetches_no_batch_twice(
    led: ReplicaWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower = led.nodes["b"]
    turn = follower.turn
    monkeypatch.setattr(follower, "turn", lambda *events: turn(*events, TimerFired(FetchAgain())))
    ask(led.nodes["a"], produce(), a_batch(b"x"))
    settle(led)
    assert follower.disk.end_offset == 6


def test_a_fetch_of_another_epoch_or_replica_is_refused(led: ReplicaWorld) -> None:
    def code(**changed: Any) -> str:
        fields: dict[str, Any] = {
            "topic": "ORDERS", "topic_id": "t1", "partition": 0, "replica": "b", "data_id": "b1", "max_wait_ms": 0,
            "leader_epoch": 1, "fetch_offset": 5, "last_epoch": 1, "durable_offset": 5,
        }  # fmt: skip
        body = ask(led.nodes["a"], ReplicaFetch(**fields | changed))
        return str(body.code) if isinstance(body, ErrorBody) else repr(body.diverging)

    assert code() == "None"
    assert code(leader_epoch=0) == ErrorCode.FENCED_LEADER_EPOCH
    assert code(leader_epoch=2) == ErrorCode.UNKNOWN_LEADER_EPOCH
    assert code(replica="d") == ErrorCode.UNKNOWN_LEADER_EPOCH
    assert code(data_id="b2") == ErrorCode.UNKNOWN_LEADER_EPOCH
    assert code(topic_id="t0") == ErrorCode.UNKNOWN_TOPIC_ID
    assert code(fetch_offset=6) == "Diverging(epoch=1, end_offset=5, given_up=())"
    assert code(last_epoch=0) == "Diverging(epoch=-1, end_offset=0, given_up=())"


def test_a_follower_that_leads_later_has_the_newest_configuration(led: ReplicaWorld) -> None:
    follower = led.nodes["b"]
    config = TopicConfig(max_message_bytes=60)
    assert ask(follower, ConfigurePartition(config=config)) is not None
    ask(follower, lead(9, revision=9))
    [refused] = ask(follower, produce(acks=1), a_batch(b"x" * 200)).batches
    assert refused.error.code == "MESSAGE_TOO_LARGE"


def follow(leader: str, leader_epoch: int, unclean_epochs: tuple[int, ...] = ()) -> Follow:
    return Follow(
        topic="ORDERS",
        topic_id="t1",
        partition=0,
        leader_epoch=leader_epoch,
        leader=leader,
        address=address_of(leader),
        unclean_epochs=unclean_epochs,
        revision=leader_epoch,
    )


@pytest.mark.parametrize("unclean", [(), (1,), (8,)], ids=["none", "an earlier one", "after the records"])
def test_a_follower_gives_up_committed_records_only_after_an_unclean_election(
    led: ReplicaWorld, unclean: tuple[int, ...]
) -> None:
    """Node c loses its records and leads, although b knows that five are committed."""
    holder, elected = led.nodes["b"], led.nodes["c"]
    ask(led.nodes["a"], produce(), a_batch(b"5"))
    settle(led)
    led.nodes["a"].crash()
    elected.crash()
    elected.disk.batches, elected.disk.durable, elected.disk.snapshot = [], 0, None
    led.checks.after_step = lambda: None  # type: ignore[method-assign]
    elected.start()
    reply = ask(holder, ReportLogEnd(topic="ORDERS", topic_id="t1", partition=0))
    assert (reply.last_epoch, reply.log_end_offset) == (1, 6)
    order = msgspec.structs.replace(lead(9, in_sync="c"), unclean_epochs=unclean, min_in_sync_replicas=1)
    assert ask(elected, order).role == "leader"
    ask(elected, produce(), a_batch(b"x"))
    if unclean != (8,):
        ask(holder, follow("c", 9, unclean))
        with pytest.raises(CommittedRecordsMissing, match="from offset 0 to 4"):
            settle(led)
        return
    ask(holder, follow("c", 9, unclean))
    settle(led)
    assert [frame for _, frame in holder.disk.batches] == [frame for _, frame in elected.disk.batches]
    assert holder.machine._role.watermarks.high_watermark <= 1


@pytest.mark.parametrize("acks", [0, 1])
def test_acks_of_one_disk_wait_for_the_session_and_are_refused_while_it_is_in_doubt(
    world: ReplicaWorld, acks: Any
) -> None:
    node = world.nodes["a"]
    world.checks.after_step = lambda: None  # type: ignore[method-assign]
    ask(node, msgspec.structs.replace(lead(1, in_sync="a"), min_in_sync_replicas=1, trusted_until_ms=0))
    assert ask(node, produce(acks), a_batch(b"waits")) is None
    assert node.disk.batches == []
    settle(world)
    assert len(node.disk.batches) == 1, "the controller has confirmed the session"
    world.trusted_until_ms = 0
    world.pass_time(1_000)
    ask(node, produce(acks), a_batch(b"asks again"))
    settle(world)
    before = len(node.disk.batches)
    reply = ask(node, produce(acks), a_batch(b"refused"))
    if acks:
        assert (reply.code, reply.retriable) == (ErrorCode.ACTOR_UNAVAILABLE, True)
    assert len(node.disk.batches) == before
    assert ask(node, produce(), a_batch(b"all")).high_watermark == before + 1


@pytest.mark.parametrize("is_late", [False, True])
def test_a_replica_whose_connection_has_ended_leaves_though_its_fetch_is_read_later(
    led: ReplicaWorld, is_late: bool
) -> None:
    leader = led.nodes["a"]
    [call] = led.nodes["b"].calls.values()
    led.nodes["b"].loop = None
    leader.turn(Disconnected(b"b.1"))
    if is_late:
        sender = Sender((b"b.1",), 99, kind=ReplicaFetch)
        context = direct_context(b"b.1", call.request)
        leader.turn(Received(sender, call.request, context=context))
    led.pass_time(DOWN_GRACE_MS + 1)
    settle(led)
    assert led.record.in_sync_nodes == {"a", "c"}

"""Followers' fetches that wait at the end of the leader's log, and the one timer for them."""

from planaria.actors.log.epochs import EpochTable
from planaria.actors.partition.effects import Read
from planaria.actors.partition.replica_fetches import ReplicaFetches
from planaria.actors.partition.replication import Watermarks
from planaria.actors.partition.timers import ReplicaFetchesExpire
from planaria.transport.machine import Received, Reply, Sender, SetTimer
from planaria.transport.protocol.replication import ReplicaFetch


def test_one_timer_ends_each_wait_when_it_is_over() -> None:
    marks = Watermarks(0, 5, 5)
    fetches = ReplicaFetches(1, marks, EpochTable())

    def fetch(number: int, offset: int, now: int) -> list[object]:
        common = {"topic": "ORDERS", "topic_id": "t1", "partition": 0, "replica": "b", "data_id": "b1"}
        request = ReplicaFetch(
            **common,  # type: ignore[arg-type]
            leader_epoch=1,
            fetch_offset=offset,
            last_epoch=1,
            durable_offset=offset,
            max_wait_ms=100,
        )
        return list(fetches.serve(Received(Sender((b"b",), number), request), request, now))

    due = SetTimer(ReplicaFetchesExpire(), 100)
    assert fetch(1, 5, now=0) == [due]
    marks.written_offset = 6
    assert [type(effect) for effect in fetches.on_written()] == [Read]
    assert fetch(2, 6, now=40) == [], "the timer is set, and early enough"
    assert fetch(3, 6, now=50) == []
    assert fetches.on_timer(100) == [SetTimer(ReplicaFetchesExpire(), 140)]
    expired, following = fetches.on_timer(140)
    assert isinstance(expired, Reply)
    assert expired.to.id == 2
    assert following == SetTimer(ReplicaFetchesExpire(), 150)
    assert [type(effect) for effect in fetches.on_timer(150)] == [Reply]
    assert fetch(4, 6, now=200) == [SetTimer(ReplicaFetchesExpire(), 300)], "no timer was left"

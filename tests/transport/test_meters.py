"""Counters of an actor: its report on its messages, answers and syncs."""

import msgspec

from manual_loop import context_of
from planaria.transport.actor import Actor
from planaria.transport.machine import Reply, Sender
from planaria.transport.meters import SYNC_BOUNDS_US, Meters, raw_report
from planaria.transport.protocol.data import Fetch
from planaria.transport.protocol.errors import ErrorBody
from planaria.transport.protocol.message import Done
from planaria.transport.protocol.operations import NO_REPORT, ActorReport
from planaria.transport.replies import Replies

READ = msgspec.msgpack.Decoder(ActorReport).decode


class Busy(Actor[object, object]):
    def alarms_now(self) -> tuple[str, ...]:
        return ("no dead-letter topic",)

    def gauges(self) -> dict[str, int]:
        return {"fetches_parked": 2}


def report(meters: Meters, is_ready: bool = True) -> ActorReport:
    actor = Busy(context_of("partition/T/0", 1, {}))
    return READ(raw_report(meters.report(actor, is_ready, {"calls_in_flight": 1})))


def test_answers_are_counted_by_operation_and_outcome() -> None:
    meters = Meters(lambda: 0)
    replies = Replies(meters)
    sender = Sender((b"c",), 1, False, Fetch)
    for body in (Done(), Done(), ErrorBody("TIMED_OUT", "late", True), b"\x81\xa2id\x01"):
        replies.make(Reply(sender, body))
    replies.make(Reply(Sender((b"c",), None), ErrorBody("INVALID_REQUEST", "no header")))
    found = report(meters)
    assert found.requests == {
        "fetch": {"done": 2, "TIMED_OUT": 1, "forwarded": 1},
        "unreadable": {"INVALID_REQUEST": 1},
    }
    assert found.counters["messages_out"] == 5
    assert found.counters["bytes_out"] > 5 * 4


def test_syncs_are_counted_by_duration() -> None:
    now_us = 0
    meters = Meters(lambda: now_us * 1_000)
    for took_us in (1, SYNC_BOUNDS_US[0], SYNC_BOUNDS_US[0] + 1, 2 * SYNC_BOUNDS_US[-1]):
        began_us = now_us
        now_us += took_us
        meters.on_synced(began_us * 1_000)
    syncs = report(meters).syncs
    assert (syncs.counts[0], syncs.counts[1], syncs.counts[-1]) == (2, 1, 1)
    assert sum(syncs.counts) == 4
    assert syncs.total_us == now_us


def test_a_report_has_the_queues_of_the_actor_once_it_is_ready() -> None:
    meters = Meters(lambda: 0)
    meters.on_received(100)
    assert report(meters, is_ready=False).gauges == {"calls_in_flight": 1}
    found = report(meters)
    assert found.gauges == {"calls_in_flight": 1, "fetches_parked": 2}
    assert found.alarms == ("no dead-letter topic",)
    assert (found.counters["messages_in"], found.counters["bytes_in"]) == (1, 100)


def test_no_report_reads_as_an_empty_one() -> None:
    assert READ(NO_REPORT) == ActorReport()

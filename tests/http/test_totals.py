"""Sums of counters over actors that die, sleep, and are deleted."""

from planaria.actors.http.totals import SeenActor, Totals
from planaria.transport.addresses import Address
from planaria.transport.protocol.operations import ActorReport, Durations

RECORDS = ("planaria_topic_records_in_total", ("T",))


def seen(number: int, incarnation: int, records: int | None, *, topic: str = "T") -> SeenActor:
    report = ActorReport()
    if records is not None:
        report = ActorReport(
            counters={"records_in": records},
            syncs=Durations(bounds_us=(100,), counts=(records, 0), total_us=50 * records),
        )
    return SeenActor(
        address=Address("partition", topic, number),
        pid=1,
        incarnation=incarnation,
        restarts=incarnation - 1,
        hangs=0,
        state="ready",
        uptime_ms=1,
        report=report,
    )


def test_a_sum_never_falls_when_an_actor_dies() -> None:
    totals = Totals(is_first=True)
    steps = [
        ([seen(0, 1, 10), seen(1, 1, 5)], 15),
        ([seen(0, 1, 12), seen(1, 1, 5)], 17),
        ([seen(0, 1, None), seen(1, 1, 6)], 18),  # it has died, and its report with it
        ([seen(0, 2, 3), seen(1, 1, 6)], 21),
        ([seen(0, 2, 3), seen(1, 1, None)], 21),  # it is asleep
        ([seen(0, 2, 4), seen(1, 2, 1)], 23),
    ]
    for actors, expected in steps:
        totals.update(actors)
        assert totals.samples()[RECORDS] == expected
    histogram = totals.histograms["planaria_fsync_seconds", ("partition",)]
    assert (histogram.counts, histogram.total_us) == ([23, 0], 50 * 23)
    assert totals.samples()["planaria_actor_restarts_total", ("partition",)] == 2


def test_a_successor_of_the_counting_process_begins_at_zero() -> None:
    totals = Totals(is_first=False)
    totals.update([seen(0, 3, 1_000)])
    assert totals.samples()[RECORDS] == 0
    totals.update([seen(0, 3, 1_004), seen(1, 1, 2)])
    assert totals.samples()[RECORDS] == 6
    assert totals.histograms["planaria_fsync_seconds", ("partition",)].counts == [6, 0]


def test_topics_that_are_gone_leave_nothing_behind() -> None:
    totals = Totals(is_first=True)
    totals.update([seen(0, 1, 1), seen(0, 1, 7, topic="U")])
    totals.update([seen(0, 1, 2)])
    assert [labels for name, labels in totals.samples() if name == RECORDS[0]] == [("T",)]
    totals.update([seen(0, 1, 2), seen(0, 2, 7, topic="U")])
    assert totals.samples()[RECORDS[0], ("U",)] == 7

"""The search for a batch in a log, beside transactions of other producers."""

from planaria.actors.scheduler.searches import Scan, Verdict, Wanted
from planaria.transport.addresses import TopicPartition
from planaria.transport.batch import build, stamp
from planaria.transport.machine import Call
from planaria.transport.protocol.data import Fetch, FetchReply, ListOffsetsReply

OPEN_FROM, END = 4, 6
"""A transaction is open from here on; the scheduler's batch is at the end."""
BATCH = build(
    [(b"key", b"value", 0, None)],
    first_timestamp_ms=0, max_timestamp_ms=0, producer_id=7, producer_epoch=2, base_sequence=3,
)  # fmt: skip


def answer(scan: Scan, call: Call) -> Verdict:
    """Answer as a partition does: committed readers see the log up to the open transaction."""
    request = call.request
    assert isinstance(request, Fetch)
    end = END if request.isolation == "read_uncommitted" else OPEN_FROM
    frames = (stamp(BATCH, END - 1, 0),) if request.offset < END == end else ()
    reply = FetchReply(
        topic="ORDERS", partition=0, log_start_offset=0, high_watermark=END, last_stable_offset=OPEN_FROM,
        next_offset=end,
    )  # fmt: skip
    return scan.on_fetched(reply, frames)


def searched(wanted: Wanted) -> Verdict:
    scan = Scan("search", TopicPartition("ORDERS", 0), wanted, 0)
    scan.begin()
    call = scan.on_begin(ListOffsetsReply(offset=0))
    for _ in range(5):
        verdict = answer(scan, call)
        if verdict != "reading":
            return verdict
        call = scan.fetch()
    return "reading"


def test_a_batch_behind_an_open_transaction_is_found() -> None:
    assert searched(Wanted(7, 2, 3, 1)) == "found"


def test_a_search_ends_although_a_transaction_stays_open() -> None:
    assert searched(Wanted(7, 2, 50, 1)) == "missing"

"""The part of the log that each kind of reader sees, and the waking of its fetches."""

from planaria.actors.log.transactions import Transactions
from planaria.actors.partition.replication import Watermarks
from planaria.actors.partition.views import Views
from planaria.transport.batch import COMMIT_MARKER, CONTROL, TRANSACTIONAL, BatchHeader, build, parse_header
from planaria.transport.machine import Received, Sender
from planaria.transport.producer_ids import transactional_producer_id
from planaria.transport.protocol.data import Fetch, Isolation

PRODUCER = transactional_producer_id(0, 1)


def batch(base_offset: int, sequence: int, is_control: bool = False) -> BatchHeader:
    frame = build(
        [(None, b"v", 0, None)],
        first_timestamp_ms=0,
        max_timestamp_ms=0,
        producer_id=PRODUCER,
        producer_epoch=0,
        base_sequence=COMMIT_MARKER if is_control else sequence,
        attributes=TRANSACTIONAL | (CONTROL if is_control else 0),
    )
    return parse_header(frame)._replace(base_offset=base_offset)


def fetch(isolation: Isolation) -> Received:
    request = Fetch(topic="ORDERS", partition=0, offset=2, isolation=isolation)
    return Received(Sender((b"peer",), 1), request)


def test_an_open_transaction_ends_the_committed_view_alone() -> None:
    marks, transactions = Watermarks(0, 2, 2), Transactions()
    views = Views(marks, transactions)
    for isolation in ("read_committed", "read_uncommitted"):
        fetched = fetch(isolation)
        views.of(isolation).parked.park(fetched, deadline=1_000, wake_at_bytes=100)
    transactions.apply(batch(2, 0))
    marks.high_watermark = 3
    assert (views.committed.end_offset, views.uncommitted.end_offset) == (2, 3)
    assert views.committed.known_offset == 3, "a fetch at 3 waits, and is not out of range"
    assert [len(view.advance(100)) for view in (views.uncommitted, views.committed)] == [1, 0]
    transactions.apply(batch(3, 0, is_control=True))
    marks.high_watermark = 4
    assert views.committed.end_offset == 4
    assert len(views.committed.advance(150)) == 1


def test_bytes_below_an_open_transaction_are_not_counted_so_all_fetches_wake() -> None:
    marks, transactions = Watermarks(0, 0, 0), Transactions()
    views = Views(marks, transactions)
    views.committed.parked.park(fetch("read_committed"), deadline=1_000, wake_at_bytes=1_000_000)
    marks.high_watermark = 2
    transactions.apply(batch(2, 0))
    marks.high_watermark = 3
    assert len(views.committed.advance(150)) == 1, "its end has moved from 0 to 2"
    assert views.committed.visible_bytes == 0

"""The pace of a producer, which decides whether a batch waits for more records. Pure. Called by `Batches`.

A batch whose partition has nothing in flight is sent at once: waiting would only delay it. While something is in flight
it gathers until that is acknowledged, so the messages of one round trip share a batch. From BULK_RECORDS_PER_MS on these
batches are many, and each costs producer and broker some 200 us beside its records. Then a batch waits up to `linger_ms`
for more.

    pace    a batch with nothing in flight                left by
    calm    is sent at once                               BULK_RECORDS_PER_MS over a window, or as many sooner -> bulk
    bulk    is sent when it is full or `linger_ms` old    a slower window, or SILENCE_MS without a batch -> calm
"""

WINDOW_MS = 10
BULK_RECORDS_PER_MS = 20
SILENCE_MS = 100


class Pace:
    """Records sealed in batches in the current window."""

    def __init__(self) -> None:
        self._began_ms = 0
        self._records = 0
        self._is_bulk = False

    def note(self, records: int, now_ms: int) -> None:
        """Count the records of a batch that was sealed."""
        took_ms = now_ms - self._began_ms
        self._records += records
        is_bulk = self._records >= BULK_RECORDS_PER_MS * max(took_ms, WINDOW_MS)
        if is_bulk or took_ms >= WINDOW_MS:
            self._is_bulk = is_bulk
            self._began_ms, self._records = now_ms, 0

    def is_bulk(self, now_ms: int) -> bool:
        return self._is_bulk and now_ms - self._began_ms <= SILENCE_MS

"""The state built from a scheduler's records: the pending messages, the targets, the producer id. Pure.

Called by the replay (`journal/replay.py`), record by record in the order of the log. Compaction does not change the
result, because each record concerns only its own key. The machine takes over the state at the end of the replay.
"""

from collections.abc import Sequence

import msgspec

from ...transport.addresses import TopicPartition
from ...transport.batch import BatchHeader, Record
from ..journal.identity import NO_START, Start
from ..journal.replay import InvalidRecord
from .pending_messages import PendingMessages, digest_of, entry_of
from .records import (
    ENDED,
    Ending,
    MessageKey,
    ProducerKey,
    StartKey,
    Target,
    TargetKey,
    decode_key,
    decode_message,
    decode_producer_id,
    decode_start,
    decode_target,
    encode_start,
)


class SchedulerLedger:
    def __init__(self) -> None:
        self.elapsed_ms = 0
        """The time at which the replay began."""
        self.start = Start(NO_START, "")
        self.pending = PendingMessages()
        self.targets: dict[TopicPartition, Target] = {}
        self.producer_id: int | None = None

    def claim(self, start: Start) -> Record:
        return encode_start(start)

    def forget(self) -> None:
        self.start = Start(NO_START, "")
        self.pending = PendingMessages()
        self.targets = {}
        self.producer_id = None

    def read(self, header: BatchHeader, records: Sequence[Record]) -> None:
        """Apply records. Raises InvalidRecord."""
        for offset, record in enumerate(records, header.base_offset):
            try:
                self._read(record, offset, header.first_timestamp_ms)
            except msgspec.MsgspecError as error:
                raise InvalidRecord(f"offset {offset} of __delayed cannot be read: {error}") from error

    def settle(self) -> None:
        """Do nothing: each record was applied as it came."""

    def _read(self, record: Record, offset: int, written_ms: int) -> None:
        key, value, _, headers = record
        match decode_key(key or b""):
            case MessageKey(scheduled_id=scheduled_id) if value is not None:
                message = decode_message(value)
                entry = entry_of(message.due_after(self.elapsed_ms), offset, message.is_delay)
                self.pending.restore(digest_of(scheduled_id), entry)
            case MessageKey(scheduled_id=scheduled_id):
                is_cancelled = (headers or {}).get(ENDED) == "cancelled"
                ending: Ending = "cancelled" if is_cancelled else "delivered"
                self.pending.end(digest_of(scheduled_id), written_ms, ending)
            case TargetKey(topic=topic, partition=partition):
                if value is None:
                    self.targets.pop(TopicPartition(topic, partition), None)
                else:
                    self.targets[TopicPartition(topic, partition)] = decode_target(value)
            case ProducerKey() if value is not None:
                self.producer_id = decode_producer_id(value)
            case StartKey() if value is not None:
                self.start = decode_start(value)

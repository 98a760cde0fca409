"""A partition as producers and consumers see it, in memory: dedup by sequence, offsets, complete batches."""

from dataclasses import dataclass, field

from planaria.transport.batch import SEQUENCE_LIMIT, BatchHeader, decode_records, parse_header, stamp, verify
from planaria.transport.deduplication import dedup_id_of
from planaria.transport.protocol.data import ProducedBatch
from planaria.transport.protocol.errors import ErrorBody, ErrorCode

REMEMBERED = 5


@dataclass
class ProducerEntry:
    epoch: int
    batches: list[tuple[int, int, int]] = field(default_factory=list)
    """First sequence, next sequence, base offset of the last five."""


@dataclass
class ModelPartition:
    batches: list[tuple[BatchHeader, bytes]] = field(default_factory=list)
    producers: dict[int, ProducerEntry] = field(default_factory=dict)
    identities: dict[str, int] = field(default_factory=dict)
    log_start_offset: int = 0
    end_offset: int = 0

    def produce(self, frame: bytes) -> ProducedBatch:
        header = verify(frame)
        dedup_id = dedup_id_of(frame, header)
        if dedup_id is not None:
            is_repeat = dedup_id in self.identities
            offset = self.identities[dedup_id] if is_repeat else self._append(frame, header)
            self.identities[dedup_id] = offset
            return ProducedBatch(offset, is_repeat)
        if header.producer_id < 0:
            return ProducedBatch(self._append(frame, header))
        refusal, duplicate = self._judge(header)
        if refusal is not None:
            return ProducedBatch(-1, error=ErrorBody(refusal, "refused by the model"))
        if duplicate is not None:
            return ProducedBatch(duplicate, duplicate=True)
        entry = self.producers[header.producer_id]
        offset = self._append(frame, header)
        following = (header.base_sequence + header.record_count) % SEQUENCE_LIMIT
        entry.batches = [*entry.batches, (header.base_sequence, following, offset)][-REMEMBERED:]
        return ProducedBatch(offset)

    def _judge(self, header: BatchHeader) -> tuple[ErrorCode | None, int | None]:
        entry = self.producers.get(header.producer_id)
        if entry is None:
            if header.base_sequence != 0:
                return ErrorCode.UNKNOWN_PRODUCER, None
            self.producers[header.producer_id] = ProducerEntry(header.producer_epoch)
            return None, None
        if header.producer_epoch < entry.epoch:
            return ErrorCode.PRODUCER_FENCED, None
        if header.producer_epoch > entry.epoch:
            if header.base_sequence != 0:
                return ErrorCode.OUT_OF_ORDER_SEQUENCE, None
            self.producers[header.producer_id] = ProducerEntry(header.producer_epoch)
            return None, None
        for first, following, offset in entry.batches:
            if first == header.base_sequence and following == (first + header.record_count) % SEQUENCE_LIMIT:
                return None, offset
        if entry.batches and entry.batches[-1][1] != header.base_sequence:
            return ErrorCode.OUT_OF_ORDER_SEQUENCE, None
        if not entry.batches and header.base_sequence != 0:
            return ErrorCode.OUT_OF_ORDER_SEQUENCE, None
        return None, None

    def _append(self, frame: bytes, header: BatchHeader) -> int:
        offset = self.end_offset
        stamped = bytes(stamp(frame, offset, 0))
        self.batches.append((parse_header(stamped), stamped))
        self.end_offset += header.record_count
        return offset

    def read(self, offset: int, max_bytes: int) -> tuple[list[bytes], int]:
        """Return complete batches from `offset` on, and the next offset."""
        frames: list[bytes] = []
        size_bytes = 0
        for header, frame in self.batches:
            if header.next_offset <= offset:
                continue
            if frames and size_bytes + len(frame) > max_bytes:
                break
            frames.append(frame)
            size_bytes += len(frame)
            offset = header.next_offset
        return frames, offset

    def values(self) -> list[bytes | None]:
        return [record[1] for header, frame in self.batches for record in decode_records(frame, header)]

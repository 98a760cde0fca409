"""The producer's hot path: messages into batches, one `publish` a message. Nothing else in the client runs per message.

Owns the open and sealed batches and the bound on their memory. Called by any number of user threads (`publish`) and by
the network thread (`take`, `finish`). Never talks to a socket.

How it is fast, and why that is safe
------------------------------------
A lock would cost a third of `publish`, so the common case takes none. It relies on `list.append` being atomic:

    publisher                                     sealer (the network thread; before a large record, its publisher)
    1  batch = open batch of the topic            a  with the lock: batch.is_open = False, batch.mark = SEALED
    2  batch.append(record)                       b  batch.records.close(): what was appended so far
    3  batch.room -= size; room < batch.mark?

A publisher that sees room >= mark in step 3 appended before (a), so (b) has its record. One that sees room < mark takes
the lock and looks: the batch is open (it is new, or full, or the clock is due), or sealed with the record (done), or
sealed without it, and the record goes into the next batch. So a record is in exactly one sealed batch. A publisher that
filled a batch waits until it is sealed: that bounds the batch, and hands the interpreter to the network thread, which
would otherwise get it every 5 ms (`sys.getswitchinterval`). No step of a user thread leaves anything half done, so
Ctrl-C may strike anywhere.

`mark` serves five ends by one comparison: new, sealed, full, and time to read the clock and perhaps to encode
(`gathered_records.py`): not once a message, so records of one batch that follow each other closely share a timestamp. The
update of `room` is not guarded; CPython does not switch threads inside it, and if it did a batch would only be closed a
little late.

A Delivery holds its record, not its index: an index would need the lock. It is looked up on request.
"""

from datetime import datetime
from typing import Any, Final
from zlib import crc32

from ..batch import RecordFields
from .content import (
    JSON_ONLY,
    JSON_RECORD_BYTES,
    NULL,
    PLAIN_ONLY,
    RECORD_OVERHEAD_BYTES,
    SCANNED_BYTES,
    Given,
    check_details,
    encode_key,
    encode_plain,
    identify,
)
from .delivery import Delivery
from .options import InvalidOption
from .placement import Placement
from .producer_batch import ProducerBatch
from .publish_arguments import expectation, recognisable, with_attributes
from .schedule import milliseconds_at, schedule

_hash: Final = crc32
_make_record: Final = RecordFields


class Accumulator(Placement):
    """Gathers records by partition until the network thread takes them."""

    def publish(
        self,
        topic: Given,
        value: Any,
        _positional: object = None,
        key: Given = None,
        headers: Given = None,
        **details: Any,
    ) -> Delivery:
        """As `Producer.publish` documents, whose other arguments are `details`; a producer binds this method as its own.

        `_positional` refuses a key that is passed by position. Keyword-only parameters would do the same, but CPython
        looks up the default of each in a dict, which costs a fifth of this call. To give each of the other arguments a
        default, and to compare it with None, costs as much.
        """
        if details or _positional is not None:
            if _positional is not None:
                raise TypeError("publish takes topic and value by position, key and the rest by keyword")
            partition, timestamp_ms = details.pop("partition", None), details.pop("timestamp_ms", None)
            if details:
                return self.publish_in_detail(topic, value, key, headers, partition, timestamp_ms, **details)
            if partition is not None or timestamp_ms is not None:
                return self._publish_at(topic, value, key, headers, partition, timestamp_ms)
        if headers is None and type(value) is bytes:
            size_bytes = len(value) + RECORD_OVERHEAD_BYTES
        elif headers is None and type(value) is dict:
            # The steps of `ContentEncoder.encode`, of which the call would be a twelfth of this one.
            contents = self._contents
            try:
                data = None if contents.walks_left else encode_plain(value, None, PLAIN_ONLY)
            except TypeError:
                data = None
            if data is None or len(data) > SCANNED_BYTES or data.partition(NULL)[1]:
                data = contents.examined(value, data)
            value, headers, size_bytes = data, JSON_ONLY, JSON_RECORD_BYTES + len(data)
        else:
            value, headers, size_bytes = self._contents.encode(value, headers)
        batch: ProducerBatch | None
        try:
            if key is None:
                name = None
                batch = self._sticky[topic]
            else:
                name = key.encode() if type(key) is str else encode_key(key)
                size_bytes += len(name)  # type: ignore[arg-type]
                batches = self._keyed[topic]
                count = len(batches)
                batch = batches[_hash(name) % count if count > 1 else 0]  # type: ignore[arg-type]
        except (KeyError, TypeError, UnicodeEncodeError):
            batch = None  # none is open, or the key or the topic is refused below
            name = encode_key(key)
        if batch is not None and size_bytes < batch.large_bytes:
            record = _make_record(name, value, batch.delta_ms, headers)
            append = batch.append  # called as an attribute it would be looked up as a method first
            append(record)
            room = batch.room = batch.room - size_bytes
            if room >= batch.mark or self._settle(batch, record):
                handle = batch.handle
                return handle(batch, record)  # type: ignore[no-any-return]
        return self._place(topic, None, name, value, headers, None, size_bytes)  # type: ignore[no-any-return]

    def publish_in_detail(
        self,
        topic: Given,
        value: Any,
        key: Given = None,
        headers: Given = None,
        partition: Given = None,
        timestamp_ms: Given = None,
        expires_at: Given = None,
        priority: Given = None,
        dedup_id: Given = None,
        deliver_at: Given = None,
        delay: Given = None,
        scheduled_id: Given = None,
        expected_offset: Given = None,
        expected_key_version: Given = None,
    ) -> Delivery:
        """Publish a message that may have more than a value, a key and headers.

        Callers that pass on all arguments, given or not, call it directly, which saves 900 ns. All pass them by keyword;
        keyword-only parameters would cost 250 ns, see `publish`.
        """
        if expires_at is not None or priority is not None:
            headers = with_attributes(headers, expires_at, priority)
        if (
            dedup_id is None and deliver_at is None and delay is None and scheduled_id is None
            and expected_offset is None and expected_key_version is None
        ):  # fmt: skip
            if partition is None and timestamp_ms is None:
                return self.publish(topic, value, None, key, headers)
            return self._publish_at(topic, value, key, headers, partition, timestamp_ms)
        expected = expectation(expected_offset, expected_key_version)
        at_ms = milliseconds_at(timestamp_ms) if isinstance(timestamp_ms, datetime) else timestamp_ms
        check_details(partition, at_ms)
        data, headers, size_bytes = self._contents.encode(value, headers)
        name = encode_key(key)
        size_bytes += len(name or b"")
        when = None
        if expected is not None:
            dedup_id = recognisable(expected, partition, name, dedup_id, self._unnamed)
        if deliver_at is not None or delay is not None or scheduled_id is not None:
            if expected is not None:
                raise InvalidOption("expected_offset, expected_key_version: not with a delayed message")
            self._check_named("delay")
            when = schedule(deliver_at, delay, scheduled_id, dedup_id)
        elif dedup_id is not None:
            self._check_named("dedup_id")
            headers, more_bytes = identify(headers, dedup_id)
            size_bytes += more_bytes
        return self._place(topic, partition, name, data, headers, at_ms, size_bytes, dedup_id, when, expected)  # type: ignore[no-any-return]

    def _publish_at(
        self,
        topic: Given,
        value: Any,
        key: Given,
        headers: Given,
        partition: Given,
        timestamp_ms: Given,
    ) -> Delivery:
        """Publish a message that shares its batch with others, to a given partition, or with a time of its own."""
        at_ms = None
        if timestamp_ms is not None or type(partition) is not int:
            at_ms = milliseconds_at(timestamp_ms) if isinstance(timestamp_ms, datetime) else timestamp_ms
            check_details(partition, at_ms)
        if headers is None and type(value) is bytes:
            size_bytes = len(value) + RECORD_OVERHEAD_BYTES
        else:
            value, headers, size_bytes = self._contents.encode(value, headers)
        name = None
        if key is not None:
            name = encode_key(key)
            size_bytes += len(name)  # type: ignore[arg-type]
        batch = None
        if type(topic) is str:
            if partition is None:
                batch = self._sticky.get(topic) if name is None else None
            else:
                batches = self._keyed.get(topic)
                if batches is not None and 0 <= partition < len(batches):
                    batch = batches[partition]
        if batch is not None and size_bytes < batch.large_bytes:
            handle = self._add(batch, name, value, headers, at_ms, size_bytes)
            if handle is not None:
                return handle
        return self._place(topic, partition, name, value, headers, at_ms, size_bytes)  # type: ignore[no-any-return]

    def _check_named(self, option: str) -> None:
        if self._unnamed:
            raise InvalidOption(f"{option}: {self._unnamed}")

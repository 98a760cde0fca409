"""The records of `__transactions`: the durable state of a coordinator, the newest by key. Pure.

    record = key value                            key and value MessagePack
    key    = ["start"] | ["transaction", transactional_id]
    value  = {epoch, starter} | Transaction | nil (forgotten)

Each partition has one coordinator; records of other producers there are skipped.
"""

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from ...transport.batch import BatchHeader, Record
from ..journal.identity import NO_START, Start
from ..journal.replay import InvalidRecord
from .transaction import Transaction


class StartKey(Struct, frozen=True, array_like=True, tag="start"):
    pass


class TransactionKey(Struct, frozen=True, array_like=True, tag="transaction"):
    transactional_id: str


class Change(Struct, frozen=True):
    transactional_id: str
    transaction: Transaction | None
    """None: forgotten."""


_encode = msgspec.msgpack.Encoder().encode
_decode_key = msgspec.msgpack.Decoder(StartKey | TransactionKey).decode
_decode_entry = msgspec.msgpack.Decoder(Transaction).decode
_decode_start = msgspec.msgpack.Decoder(Start).decode


def encode(change: Change) -> Sequence[Record]:
    value = None if change.transaction is None else _encode(change.transaction)
    return ((_encode(TransactionKey(change.transactional_id)), value, 0, None),)


class TransactionLedger:
    """The state built from the records, for the replay (`journal/replay.py`)."""

    def __init__(self) -> None:
        self.start = Start(NO_START, "")
        self.transactions: dict[str, Transaction] = {}

    def claim(self, start: Start) -> Record:
        return (_encode(StartKey()), _encode(start), 0, None)

    def forget(self) -> None:
        self.start = Start(NO_START, "")
        self.transactions = {}

    def read(self, header: BatchHeader, records: Sequence[Record]) -> None:
        """Apply records. Raises InvalidRecord."""
        for offset, (key, value, _, _) in enumerate(records, header.base_offset):
            try:
                self._read(key, value)
            except msgspec.MsgspecError as error:
                raise InvalidRecord(f"offset {offset} of __transactions cannot be read: {error}") from error

    def settle(self) -> None:
        """Do nothing: each record was applied as it came."""

    def _read(self, key: bytes | None, value: bytes | None) -> None:
        match _decode_key(key or b""):
            case TransactionKey(transactional_id=name) if value is not None:
                self.transactions[name] = _decode_entry(value)
            case TransactionKey(transactional_id=name):
                self.transactions.pop(name, None)
            case StartKey() if value is not None:
                self.start = _decode_start(value)

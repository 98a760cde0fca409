"""The records of the topic `__audit`: one JSON object each. Pure. Written by gateways, read by `planaria audit`.

    act        an administrative change by a principal with the right: one record when it begins, one when it has ended,
               with the same id. Without the second one the outcome is not known
    refusal    requests that were refused for lack of a credential or a right, counted over a window
    lost       a gateway had no room for `count` records while the topic took none

    outcome    begun      the request was permitted and is on its way to its actor
               done       it has taken effect
               failed     it has not; `error` is the code
               unknown    the answer did not come in time, or its requester was gone before
               refused    of a refusal
               lost       of lost records

No record has a secret: hashes of passwords and tokens, values of environment variables and proofs are left out.
"""

from typing import Any, Literal

import msgspec
from msgspec import Struct

Outcome = Literal["begun", "done", "failed", "unknown", "refused", "lost"]


class AuditRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    id: str
    """Unique for an act, a window's refusal, a loss; each of the two records of an act has it."""
    time_ms: int
    """Ms since the epoch: of the event, of the last refusal."""
    outcome: Outcome
    op: str = ""
    resource: str = ""
    """`topic:NAME`, `group:NAME`, `transaction:ID`, `actor:ADDRESS`, `principal:NAME`, `role:NAME`, `client:NAME`,
    `delayed:ID`, `node:NAME` or `cluster`; `*` for several beyond the limit."""
    principal: str = ""
    """Empty for a connection without one; `*` for several beyond the limit."""
    client_id: str = ""
    address: str = ""
    """IP address of the connection; of a refusal, that of the last one."""
    error: str = ""
    """Code of the error."""
    count: int = 1
    """Refusals that this record counts, or lost records."""
    first_ms: int = 0
    """Time of the first of several refusals."""
    node: str = ""
    """Node of the gateway in a cluster."""
    details: dict[str, Any] | None = None
    """The arguments of an act."""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(AuditRecord)


def encode_record(record: AuditRecord) -> bytes:
    return _encoder.encode(record)


def decode_record(data: bytes) -> AuditRecord | None:
    """Return a record; None for one that this version cannot read."""
    try:
        return _decoder.decode(data)
    except msgspec.MsgspecError:
        return None

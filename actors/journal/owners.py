"""The owner of a record of an internal topic: the actor whose state it belongs to. Pure.

Actors that share a partition of an internal topic put their name first in each key, behind the key's kind: `[kind,
owner, ...]`. So the owners can be listed without the formats of their records. Called by the recovery of a lost
catalog.
"""

import msgspec

START = "start"
"""The kind of a start record. It outlives its owner, so it does not prove that one exists."""

_DECODER = msgspec.msgpack.Decoder(list)


def owner_of(key: bytes) -> str | None:
    """Return the owner that a key names, or None for a start record or a key of another form."""
    try:
        kind, owner, *_ = _DECODER.decode(key)
    except (msgspec.MsgspecError, ValueError):
        return None
    return owner if kind != START and isinstance(owner, str) else None

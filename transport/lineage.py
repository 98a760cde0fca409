"""What a partition's offsets belong to, besides its name. Pure.

A note about an offset holds for one *lineage*: one topic, of all that have had its name, and one reset of the group's
offset. Where the lineage of a partition is another one than the note's, the note is void. Within a lineage an offset is
given to a second record only when a power cut took the first; the two differ in their leader epoch, which is noted too.
"""

import hashlib

LINEAGE_BYTES = 16
UNTRACED = bytes(LINEAGE_BYTES)


def lineage_of(topic_id: str | None, reset_epoch: int | None) -> bytes:
    """A fingerprint, to be compared for equality."""
    text = f"{topic_id or ''}/{reset_epoch or 0}"
    return hashlib.blake2b(text.encode(), digest_size=LINEAGE_BYTES).digest()

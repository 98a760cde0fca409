"""The lineage of a partition's offsets: the topic and reset they belong to, besides the partition's name. Pure.

A stored offset is valid for one *lineage*: one topic, among all that have had its name, and one reset of the group's
offset. If the partition's lineage is another one, the stored offset is void. Within a lineage an offset is given to a
second record only when a power failure lost the first. The two differ in their leader epoch, which is stored too.
"""

import hashlib

LINEAGE_BYTES = 16
UNTRACED = bytes(LINEAGE_BYTES)


def lineage_of(topic_id: str | None, reset_epoch: int | None) -> bytes:
    """Return a fingerprint, to be compared for equality."""
    text = f"{topic_id or ''}/{reset_epoch or 0}"
    return hashlib.blake2b(text.encode(), digest_size=LINEAGE_BYTES).digest()

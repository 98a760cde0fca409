"""The files beside a log's segments whose loss would otherwise go unnoticed. Pure.

The checkpoint names the existing ones (`checkpoint.py`), so that one missing later is known to be lost.
"""

GROUPS_NAME = "groups"
COMPACTION_NAME = "compaction"
COMPANIONS = frozenset({GROUPS_NAME, COMPACTION_NAME})

_CONSEQUENCES = {
    GROUPS_NAME: "no group holds back retention or producers until its coordinator has reported again",
    COMPACTION_NAME: "compaction begins anew; where an index is lost too, offsets that it dropped read as lost",
}


def loss_of_companion(name: str) -> str:
    """Describe the loss and its consequence to an operator."""
    return f"the file {name!r} is missing or damaged: {_CONSEQUENCES[name]}"

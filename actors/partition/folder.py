"""The partition's folder is the one that the controller made for it, or the partition does not start. Pure.

A folder that is missing would begin again at offset 0, and offsets that were given out would be given again; one of
another topic would show records that were deleted. Called by `process.py` with what the folder's label says.
"""

from ...transport.protocol.errors import OperatorNeeded


class PartitionLost(OperatorNeeded):
    """The folder that the catalog knows is not there, or is not what was made."""


def check_folder(tp: str, labelled_id: str | None, topic_id: str) -> None:
    """`labelled_id` is the topic's id as the label has it; None without a label. Raises PartitionLost."""
    if labelled_id is None:
        raise PartitionLost(
            f"{tp} was created and is missing, or its label is: bring it back from a backup, "
            'or see "planaria recover --help" to go on without its records'
        )
    if labelled_id != topic_id:
        raise PartitionLost(
            f"{tp} belongs to another topic of this name, {labelled_id}, than the catalog's, {topic_id}: "
            'stop the broker and run "planaria recover --catalog"'
        )

"""The check that a partition's folder is the one that the controller made for it. Pure.

If it fails the partition does not start: a missing folder would begin again at offset 0, and reuse offsets; one of
another topic would show deleted records. Called by `process.py` with the contents of the folder's label.
"""

from ...transport.protocol.errors import OperatorNeeded


class PartitionLost(OperatorNeeded):
    """The folder that the catalog names is missing, or is a different one."""


def check_folder(tp: str, labelled_id: str | None, topic_id: str) -> None:
    """Check the folder. `labelled_id` is the topic's id in the label; None without a label. Raises PartitionLost."""
    if labelled_id is None:
        raise PartitionLost(
            f"{tp} was created and is missing, or its label is: restore it from a backup, "
            'or see "planaria recover --help" to continue without its records'
        )
    if labelled_id != topic_id:
        raise PartitionLost(
            f"{tp} belongs to another topic of this name, {labelled_id}, than the catalog's, {topic_id}: "
            'stop the broker and run "planaria recover --catalog"'
        )

"""A topic of the source that a mirror has chosen: its state in the mirror's process. The machine changes it. Pure."""

from .rejoining import Rejoining


class ChosenTopic:
    """A topic of the source that is chosen."""

    def __init__(self) -> None:
        self.state = "described"
        self.reason = ""
        self.topic_id = ""
        self.partitions = 0
        """The number of partitions of the source's topic, as last described."""
        self.described_at = 0
        self.is_asked = False
        self.is_stored = False
        """True once it is stored that the topic here rejoins: the source's topic is looked at once more after that."""
        self.rejoining: Rejoining | None = None
        self.rejoined = 0
        """The number of attempts to rejoin."""
        self.is_compacted = False

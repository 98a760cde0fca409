"""The group's decisions: each request and each expiry becomes changes, validated against all earlier decisions.

Owns the decided state (decided.py). Must never answer a request: a refusal is raised as ProtocolError before any change
is made, and success is answered by the recorder once the changes are durable. Called by the kinds of group and the
machine.

    members    member_decisions.py    members, their partitions, the generation
    pauses     pauses.py              the operator's pause
    offsets    offset_decisions.py    committed offsets, those of transactions, resets
    topics     topic_decisions.py     the topics that the group knows; younger partitions
    a share group decides in share/ and records here
"""

from collections.abc import Mapping

from ...transport.addresses import TopicPartition
from .decided import DecidedGroup
from .member_decisions import MemberDecisions
from .offset_decisions import OffsetDecisions
from .pauses import PauseDecisions
from .records import Change, ShareGroupKey, ShareKey
from .share.records import ShareProgress, ShareSettings
from .state import GroupState
from .topic_decisions import TopicDecisions


class Decisions:
    def __init__(self, decided: GroupState) -> None:
        self._decided = DecidedGroup(decided)
        self.topics = TopicDecisions(self._decided)
        self.members = MemberDecisions(self._decided, self.topics)
        self.pauses = PauseDecisions(self._decided, self.members)
        self.offsets = OffsetDecisions(self._decided, self.topics)

    @property
    def state(self) -> GroupState:
        return self._decided.state

    @property
    def gathered(self) -> list[Change]:
        """The changes since the last `take`."""
        return self._decided.gathered

    def take(self) -> list[Change]:
        """Return the changes to append now."""
        return self._decided.take()

    def why_no_share_group(self) -> str | None:
        """Return the refusal for a group that has had members or offsets: it stays a consumer group."""
        if not (self.state.generation or self.state.members or self.state.offsets):
            return None
        return f"{self.state.group!r} is a consumer group: its members are assigned partitions and commit offsets"

    def record_share(
        self, settings: ShareSettings | None, changed: Mapping[TopicPartition, ShareProgress | None]
    ) -> None:
        """Record a share group's decisions (`share/group.py`): new settings, and the progress of partitions."""
        if settings is not None:
            self._decided.record(Change(ShareGroupKey(self.state.group), settings))
        for tp, progress in changed.items():
            self._decided.record(Change(ShareKey(self.state.group, *tp), progress))

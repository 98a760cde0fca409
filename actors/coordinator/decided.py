"""The decided state of a group, which runs ahead of the durable one, and the changes not appended yet. Pure.

Owns both, and decides nothing. Called by the modules that decide: topic_decisions.py, member_decisions.py and
offset_decisions.py.
"""

from .records import Change
from .state import GroupState


class DecidedGroup:
    def __init__(self, state: GroupState) -> None:
        self.state = state
        self.gathered: list[Change] = []

    def record(self, change: Change) -> None:
        """Apply a change, and append it with the next flush."""
        self.state.apply(change)
        self.gathered.append(change)

    def take(self) -> list[Change]:
        """Return the changes to append now."""
        taken, self.gathered = self.gathered, []
        return taken

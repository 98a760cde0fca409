"""The group's state as replayed from its records. Pure.

Takes the newest record of each key, and applies them all when the end of the log is reached. Called by the replay
(`journal/replay.py`); the machine takes the state over afterwards.
"""

from collections.abc import Sequence

from ...transport.batch import BatchHeader, Record
from ..journal.identity import Start
from .records import Change, StartKey, decode, encode
from .state import GroupState


class GroupLedger:
    def __init__(self, group: str, state: GroupState | None = None) -> None:
        """Start from a snapshot's state, or from an empty one."""
        self.state = state or GroupState(group)
        self._group = group
        self._newest = {change.key: change for change in self.state.changes()}

    @property
    def start(self) -> Start:
        return self.state.start

    def claim(self, start: Start) -> Record:
        return encode(Change(StartKey(self._group), start))

    def forget(self) -> None:
        self.state = GroupState(self._group)
        self._newest = {}

    def read(self, header: BatchHeader, records: Sequence[Record]) -> None:
        for key, value, _, _ in records:
            change = decode(key, value, self._group)
            if change is not None:
                self._newest[change.key] = change

    def settle(self) -> None:
        """Build the state from the newest records; their order does not matter."""
        self._newest = {key: change for key, change in self._newest.items() if change.value is not None}
        self.state = GroupState(self._group)
        for change in self._newest.values():
            self.state.apply(change)

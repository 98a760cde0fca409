"""A share group in its coordinator's report, for each heartbeat. Pure.

Positions are the decided ones. Called by the coordinator's process through its machine; changes nothing.
"""

from collections.abc import Callable, Sequence

from ....transport.protocol.operations import GroupPosition, GroupReport, RetryReport
from ..state import GroupState
from .dead_letters import DeadLetters
from .description import retry_report
from .partitions import SharePartitions
from .spans import State


class ShareReports:
    def __init__(
        self,
        state: GroupState,
        partitions: SharePartitions,
        dead_letters: DeadLetters,
        members: Callable[[], Sequence[str]],
    ) -> None:
        self._state = state
        self._partitions = partitions
        self._dead_letters = dead_letters
        self._members = members

    def group(self) -> GroupReport:
        """Return the group: records after the first unread one that are done are not unread."""
        members = len(self._members())
        is_held = any(part.is_held for _, part in self._partitions.items())
        return GroupReport(
            type="share",
            state=self._state.shown_as("stable" if members else "empty", is_held=is_held),
            members=members,
            generation=0,
            positions=tuple(
                GroupPosition(*tp, part.spans.start, part.count(State.DONE))
                for tp, part in self._partitions.items()
            ),
        )

    def counters(self) -> dict[str, int]:
        retries = sum(part.retries.failed_count for _, part in self._partitions.items())
        written = self._dead_letters.written
        return {"retries": retries} | {f"dead_letters:{reason}": count for reason, count in written.items()}

    def retrying(self) -> RetryReport:
        return retry_report(dict(self._partitions.items()))

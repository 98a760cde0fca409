"""A consumer group in its coordinator's report, for each heartbeat: so it must be cheap. Pure.

Positions are durable ones, as `describe_group` has them. Called by machine.py; share/reports.py has share groups.
"""

from ...transport.protocol.groups import GroupStateName
from ...transport.protocol.operations import GroupPosition, GroupReport
from .state import GroupState


def consumer_report(state: GroupState) -> GroupReport:
    """Report a consumer group. A partition that a member owns and that has no offset is unread from its start."""
    positions = {tp: 0 for member in state.members.values() for tp in member.assignment}
    positions |= {tp: committed.offset for tp, committed in state.offsets.items()}
    name: GroupStateName = "empty" if not state.members else "stable" if state.is_settled else "rebalancing"
    return GroupReport(
        type="consumer",
        state=state.shown_as(name, is_held=False),
        members=len(state.members),
        generation=state.generation,
        positions=tuple(GroupPosition(*tp, offset) for tp, offset in sorted(positions.items())),
    )

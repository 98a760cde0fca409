"""A leader whose node does not watch a suspected follower's node has the report of the leading controller."""

import pytest

from planaria.actors.controller.cluster.deciding import Versioned
from planaria.actors.controller.cluster.distant_leaders import DistantLeaders
from planaria.actors.controller.cluster.leadership import Present
from planaria.actors.controller.cluster.mirror import Mirror
from planaria.actors.controller.cluster.records import Leader, Member, NodeSession, PartitionRecord
from planaria.transport.addresses import TopicPartition
from planaria.transport.machine import Call, CancelCall
from planaria.transport.monitors import MONITORS, monitors_of


@pytest.mark.parametrize("count", [MONITORS + 1, MONITORS + 4])
def test_leaders_that_do_not_watch_a_suspected_node_are_told(count: int) -> None:
    names = [f"n{number}" for number in range(count)]
    mirror = Mirror()
    mirror.sessions = {
        name: NodeSession(node=name, data_id=name, start_id="1", endpoint="", peer_endpoint="")
        for name in names
    }
    frozen, *others = names
    for number, leader in enumerate(others):
        members = (Member(leader, leader), Member(frozen, frozen))
        record = PartitionRecord(
            topic_id="t", replicas=(leader, frozen), leader=leader, claim="1/1", in_sync=members
        )
        mirror.partitions[TopicPartition("T", number)] = Versioned(record, 1)
    live = {name: name for name in others}
    own = others[0]
    reports = DistantLeaders(own)
    assert reports.on_changed(mirror, {frozen}, live) == []  # another controller leads
    mirror.present = Present(Leader(own, "1"), 1)
    calls = reports.on_changed(mirror, {frozen}, live)
    found = [call.request for call in calls if isinstance(call, Call)]
    assert len(found) == len(calls)
    watching = {own, *monitors_of(names)[frozen]}
    leaders = {others[report.partition] for report in found}
    assert leaders == set(others) - watching
    assert bool(leaders) == (count > MONITORS + 1)
    assert all((each.replica, each.is_up, each.is_node) == (frozen, False, True) for each in found)
    # A node that is trusted again: the report that has not been answered yet would arrive later.
    for call in calls[1:]:
        reports.on_outcome(call.key)
    again = reports.on_changed(mirror, {frozen}, {**live, frozen: frozen})
    withdrawn = [each for each in again if isinstance(each, CancelCall)]
    assert withdrawn == [CancelCall(call.token) for call in calls[:1]]
    assert [call.request.is_up for call in again if isinstance(call, Call)] == [True] * len(found)
    for call in calls:
        reports.on_outcome(call.key)  # that of a withdrawn report ends none
    assert len(
        [each for each in reports.on_changed(mirror, {frozen}, live) if isinstance(each, CancelCall)]
    ) == len(found)

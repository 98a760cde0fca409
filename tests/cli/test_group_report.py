"""Reports of the group commands, made from the coordinators' answers."""

from types import SimpleNamespace
from typing import Any

import pytest

from planaria.supervisor.cli.group_report import GroupEntry, entries_of, report_on
from planaria.transport.protocol.errors import ErrorCode, ProtocolError
from planaria.transport.protocol.groups import DescribeGroupReply, PartitionOffset


class Answers:
    """A client: one group has no coordinator at the moment, one disappears during its request."""

    def list_groups(self) -> list[str]:
        return ["queue", "down", "gone"]

    def status(self) -> Any:
        states = {"queue": "ready", "down": "quarantined", "gone": "ready"}
        actors = [
            SimpleNamespace(address=f"coordinator/{name}", state=state) for name, state in states.items()
        ]
        return SimpleNamespace(actors=actors)

    def describe_group(self, group: str) -> Any:
        if group == "gone":
            raise ProtocolError(ErrorCode.UNKNOWN_GROUP, "there is no such group")
        assert group == "queue", "nobody answers, and nobody is to wait"
        return SimpleNamespace(type="share", state="empty", paused=None)


def test_a_group_whose_coordinator_does_not_run_is_listed_without_waiting() -> None:
    assert entries_of(Answers()) == [  # type: ignore[arg-type]
        GroupEntry(group="down", type=None, state=None),
        GroupEntry(group="queue", type="share", state="empty"),
    ]


class OneLog:
    """A client of a topic with one partition that holds the offsets from 50 to 60."""

    def describe_topic(self, topic: str) -> Any:
        partition = SimpleNamespace(partition=0, log_start_offset=50, high_watermark=60)
        return SimpleNamespace(partitions=[partition])

    def status(self) -> Any:
        return SimpleNamespace(actors=[])


@pytest.mark.parametrize(("committed", "lag"), [(0, 10), (50, 10), (55, 5), (60, 0), (70, 0)])
def test_deleted_records_are_no_lag(committed: int, lag: int) -> None:
    found = DescribeGroupReply(
        group="g",
        state="empty",
        generation=1,
        assignor="sticky",
        members=[],
        offsets=[PartitionOffset(topic="T", partition=0, offset=committed, metadata="")],
    )
    assert report_on(OneLog(), found).lag == lag  # type: ignore[arg-type]

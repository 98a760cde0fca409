"""What the group commands make of the coordinators' answers."""

from types import SimpleNamespace
from typing import Any

from planaria.supervisor.cli.group_report import GroupEntry, entries_of
from planaria.transport.protocol.errors import ErrorCode, ProtocolError


class Answers:
    """A client: one group has no coordinator at the moment, one goes while it is asked for."""

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
        return SimpleNamespace(type="share", state="empty")


def test_a_group_whose_coordinator_does_not_run_is_listed_without_waiting() -> None:
    assert entries_of(Answers()) == [  # type: ignore[arg-type]
        GroupEntry(group="down", type=None, state=None),
        GroupEntry(group="queue", type="share", state="empty"),
    ]

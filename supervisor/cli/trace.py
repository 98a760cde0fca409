"""`planaria trace`: one correlation id through topics, groups, retries and dead letters, in the order of time."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...transport.addresses import TopicPartition
from ...transport.correlation import CORRELATION_HEADER
from ...transport.dead_letters import decode
from ...transport.protocol.operations import shown_key
from ...transport.times import utc_text
from .connection import DEFAULT_ENDPOINT, ConnectOption, JsonOption, attached, operating
from .failures import CommandFailed
from .find import Progress, SinceOption, scanned
from .inflight import locked_records, records_of
from .matching import Criteria
from .output import UNKNOWN, plural, print_json, print_table
from .retries import of_hosted, of_share_group
from .tables import Listing

if TYPE_CHECKING:
    from ...transport.client.client import Client
    from ...transport.client.descriptions import BrokerStatus, GroupDescription
    from ...transport.client.messages import Message


def trace(
    correlation_id: Annotated[
        str, typer.Argument(metavar="ID", show_default=False, help="Correlation id of the messages.")
    ],
    topic: Annotated[
        list[str] | None,
        typer.Option("--topic", metavar="TOPIC", help="Search this topic. Repeatable. Default: all."),
    ] = None,
    since: SinceOption = "24h",
    header: Annotated[
        str, typer.Option("--header", "-H", metavar="NAME", help="Header with the id.")
    ] = CORRELATION_HEADER,
    as_json: JsonOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Show the messages with a correlation ID in all topics, and whether each group has handled them.

    Messages have the id in a header; hosted subscribers with the option
    correlation_header pass it on to the messages that they publish, and
    dead letters keep it. A group has handled a message when it has
    committed past it; a group that does not read the topic is left out.

    --json: {"messages": [{"topic", "partition", "offset", "timestamp_ms",
    "key", "dead_letter": {"topic", "partition", "offset", "group",
    "failures", "reason"} | null, "groups": [{"group", "state", "attempts",
    "reason", "next_try_ms"}]}]}

    Examples:
      planaria trace order-17
      planaria trace order-17 --topic ORDERS --topic PAYMENTS --since beginning
    """
    wanted = Criteria(headers=((header, correlation_id),))
    with operating(connect) as operator:
        status = operator.status()
    with attached(connect) as client, Progress() as progress:
        names = topic or [each.topic for each in client.list_topics()]
        messages = [
            message
            for name in names
            for message in scanned(client, name, since, "read_committed", progress)
            if wanted.match(message)
        ]
        progress.clear()
        groups = [client.describe_group(name) for name in client.list_groups()] if messages else []
        states = _States(client, status, groups)
        messages.sort(key=lambda each: (each.timestamp, each.topic, each.partition, each.offset))
        shown = [_shown(message, states) for message in messages]
    if not shown:
        raise CommandFailed(
            f"none of {plural(progress.scanned, 'message')} since {since} has {header}={correlation_id}"
        )
    if as_json:
        print_json({"messages": shown})
        return
    columns = Listing("time", "record", "key", "event", prose=["event"])
    print_table(columns, [row for each in shown for row in _rows(each)])


class _States:
    """How far each group is with a message."""

    def __init__(self, client: "Client", status: "BrokerStatus", groups: "list[GroupDescription]") -> None:
        self._client = client
        self._status = status
        self._groups = groups

    def of(self, message: "Message") -> list[dict[str, Any]]:
        found = [self._state(group, message) for group in self._groups]
        return [each for each in found if each is not None]

    def _state(self, group: "GroupDescription", message: "Message") -> dict[str, Any] | None:
        position = _position(group, message.topic_partition)
        if position is None:
            return None
        state: dict[str, Any] = {"group": group.group, "attempts": None, "reason": None, "next_try_ms": None}
        if message.offset < position:
            return state | {"state": "handled"}
        topic = message.topic
        retrying = of_hosted(self._status, group.group, topic) + of_share_group(self._client, group, topic)
        for each in retrying.records:
            if (each.partition, each.offset) == (message.partition, message.offset):
                told = {"attempts": each.attempts, "reason": each.reason, "next_try_ms": each.next_try_ms}
                return state | told | {"state": "parked" if each.parked else "retrying"}
        for held in [*records_of(self._status, topic, group.group), *locked_records(group, topic)]:
            if (held["partition"], held["offset"]) == (message.partition, message.offset):
                return state | {"attempts": held["attempt"], "state": "in flight"}
        return state | {"state": "waiting"}


def _position(group: "GroupDescription", tp: TopicPartition) -> int | None:
    """Return the offset below which the group has handled everything; None if it does not read the partition."""
    if group.share is not None:
        parts = [each for each in group.share.partitions if (each.topic, each.partition) == tp]
        return parts[0].start_offset if parts else None
    committed = [each for each in group.offsets if (each.topic, each.partition) == tp]
    if committed:
        return committed[0].offset
    is_read = any(tp.partition in member.assignment.get(tp.topic, ()) for member in group.members)
    return 0 if is_read else None


def _shown(message: "Message", states: _States) -> dict[str, Any]:
    letter = decode(message.headers)
    return {
        "topic": message.topic,
        "partition": message.partition,
        "offset": message.offset,
        "timestamp_ms": message.timestamp,
        "key": shown_key(message.key),
        "dead_letter": None
        if letter.topic is None
        else {
            "topic": letter.topic,
            "partition": letter.partition,
            "offset": letter.offset,
            "group": letter.group,
            "failures": letter.failures,
            "reason": letter.reason,
        },
        "groups": states.of(message),
    }


def _rows(message: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    record = f"{message['topic']}/{message['partition']}@{message['offset']}"
    key = UNKNOWN if message["key"] is None else message["key"]
    letter = message["dead_letter"]
    event = "published"
    if letter is not None:
        source = f"{letter['topic']}/{letter['partition']}@{letter['offset']}"
        event = f"dead letter of {source}, {letter['group']} failed {letter['failures']} times: {letter['reason']}"
    rows = [(utc_text(message["timestamp_ms"]), record, key, event)]
    for each in message["groups"]:
        told = f"{each['group']}: {each['state']}"
        if each["attempts"] is not None:
            told += f", attempt {each['attempts']}"
        if each["reason"] is not None:
            told += f": {each['reason']}"
        rows.append(("", "", "", told))
    return rows

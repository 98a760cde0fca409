"""The leading controller's decisions about leaders: which partition records should change now. Pure.

`decide` compares the present state with the state that should be, and returns the changes, the most urgent first. It
holds nothing but times, so a controller that takes over, or one that missed a notification, decides the same.

    order   partition                                                    change
    1       its leader has no session, is suspected, or lost its disk    a member takes over (`elections.successor`)
    2       it is reassigned, and the next step is possible              `reassignment.advanced`
    3       its leader is on a node that drains, leaves or stops         an in-sync member elsewhere takes over
    4       its preferred leader may lead again                          it does, `PREFERRED_AT_ONCE` at a time

A reassignment comes first: if all of its new replicas are on nodes that drain, one of these leads until it has ended.
The other order would give the leader back to an old replica each time, without end.

A preferred leader returns only to a node that has been up for `STEADY_MS` and is in sync for `IN_SYNC_PERCENT` of its
replicas, and for `RELIEF_MS` not to one whose disk was slow. Kafka returns leaders as soon as a node is in sync again,
while it still catches up elsewhere, and its latency suffers (KIP-1358).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

from msgspec import Struct

from ....transport.addresses import TopicPartition
from .elections import DataIds, handed_over, is_live, preferred, successor
from .placement import led_elsewhere, stopping_nodes
from .reassignment import advanced
from .records import Member, NodeSession, NodeSettings, PartitionRecord

CHANGES_AT_ONCE = 90
"""Maximum number of partitions in one proposal: a store takes 100 guards."""
PREFERRED_AT_ONCE = 10
STEADY_MS = 60_000
RELIEF_MS = 600_000
"""Time after which a preferred leader whose disk was slow may lead again."""
IN_SYNC_PERCENT = 95


class Versioned(Struct, frozen=True):
    """A partition's record, and the revision of the store at which it was written."""

    record: PartitionRecord
    revision: int


class Change(Struct, frozen=True):
    """A record to write if the present one still has this revision."""

    partition: TopicPartition
    record: PartitionRecord
    revision: int


class ClusterView(Struct, frozen=True):
    """The part of the store's state by which leaders are decided."""

    partitions: Mapping[TopicPartition, Versioned]
    """All partitions."""
    sessions: Mapping[str, NodeSession]
    settings: Mapping[str, NodeSettings]
    minimum: Callable[[str], int]
    """Return a topic's `min_in_sync_replicas`."""


class LeaderDecisions:
    """Decides; keeps the time since which each node is up."""

    def __init__(self) -> None:
        self._up_since: dict[str, tuple[str, int]] = {}
        self._noted: Mapping[str, NodeSession] | None = None
        """The sessions of which the times are known."""

    def decide(
        self,
        view: ClusterView,
        suspected: Iterable[str],
        now: int,
        among: Iterable[TopicPartition] | None = None,
    ) -> list[Change]:
        """Return at most `CHANGES_AT_ONCE` changes of these partitions; None: of all.

        To be called again when they are applied or rejected.
        """
        self._note_starts(view.sessions, now)
        live = live_nodes(view.sessions, suspected)
        if among is None:
            looked_at = view.partitions
        else:
            looked_at = {name: view.partitions[name] for name in among if name in view.partitions}
        changes: list[Change] = []
        for change in self._changes(view, looked_at, live, now):
            changes.append(change)
            if len(changes) == CHANGES_AT_ONCE:
                break
        return changes

    def _note_starts(self, sessions: Mapping[str, NodeSession], now: int) -> None:
        if sessions is self._noted:
            return
        known, self._noted = self._up_since, sessions
        self._up_since = {
            node: known[node]
            if node in known and known[node][0] == session.start_id
            else (session.start_id, now)
            for node, session in sessions.items()
        }

    def _changes(
        self, view: ClusterView, looked_at: Mapping[TopicPartition, Versioned], live: DataIds, now: int
    ) -> Iterator[Change]:
        urgent = set()
        for partition, versioned in looked_at.items():
            record = versioned.record
            if not is_led(record, live):
                urgent.add(partition)
                following = successor(record, live, view.minimum(partition.topic))
                if following is not None:
                    yield Change(partition, following, versioned.revision)
        avoid = led_elsewhere(view.sessions, view.settings)
        moved = 0
        returns: dict[str, bool] = {}
        for partition, versioned in looked_at.items():
            if partition in urgent:
                continue
            record, minimum = versioned.record, view.minimum(partition.topic)
            following = advanced(record, live, minimum, avoid)
            if following is None and record.leader in avoid:
                following = self._moved(record, live, minimum, view)
            first = record.replicas[0]
            is_relieved = record.relieved == first and now - record.relieved_ms < RELIEF_MS
            if following is None and record.leader != first and not is_relieved and moved < PREFERRED_AT_ONCE:
                if first not in returns:
                    returns[first] = self._may_lead(first, view, now)
                following = preferred(record, live, minimum) if returns[first] else None
                moved += following is not None
            if following is not None:
                yield Change(partition, following, versioned.revision)

    def _moved(
        self, record: PartitionRecord, live: DataIds, minimum: int, view: ClusterView
    ) -> PartitionRecord | None:
        """Return the record led by a node that neither drains, nor leaves, nor stops.

        Members on nodes that stop leave the set in the same write, if it stays at its minimum without them.
        """
        avoid, stopping = led_elsewhere(view.sessions, view.settings), stopping_nodes(view.sessions)
        staying = {node: data_id for node, data_id in live.items() if node not in stopping}
        left = sum(is_live(member, staying) for member in record.in_sync)
        return handed_over(record, staying if left >= minimum else live, minimum, avoid=avoid)

    def _may_lead(self, node: str, view: ClusterView, now: int) -> bool:
        if node in led_elsewhere(view.sessions, view.settings) or node not in self._up_since:
            return False
        if now - self._up_since[node][1] < STEADY_MS:
            return False
        return in_sync_percent(node, view) >= IN_SYNC_PERCENT


def live_nodes(sessions: Mapping[str, NodeSession], suspected: Iterable[str]) -> dict[str, str]:
    """Return the data id of each node that has a session and is not suspected."""
    doubted = frozenset(suspected)
    return {node: session.data_id for node, session in sessions.items() if node not in doubted}


def is_led(record: PartitionRecord, live: DataIds) -> bool:
    """Return True if the record's leader is alive, with the disk that made it a member."""
    leader = next((member for member in record.in_sync if member.node == record.leader), None)
    return leader is not None and is_live(leader, live)


def in_sync_percent(node: str, view: ClusterView) -> float:
    """Return the share of a node's replicas that are in sync; 100 if it holds none."""
    session = view.sessions.get(node)
    member = Member(node, session.data_id) if session is not None else None
    held = [versioned.record for versioned in view.partitions.values() if node in versioned.record.replicas]
    in_sync = sum(member in record.in_sync for record in held)
    return 100.0 * in_sync / len(held) if held else 100.0


def would_fall_below(node: str, view: ClusterView, suspected: Iterable[str]) -> list[TopicPartition]:
    """Return the partitions that could not acknowledge `acks=all` any more if this node stopped.

    Other nodes that drain are going to stop as well; `suspected` has those that count as gone for other reasons.
    """
    return needing(view, suspected, [node])[node]


def needing(
    view: ClusterView, suspected: Iterable[str], nodes: Iterable[str]
) -> dict[str, list[TopicPartition]]:
    """Return for each of these nodes the partitions that would be below their minimum without it."""
    live = live_nodes(view.sessions, suspected)
    going = {name for name, settings in view.settings.items() if settings.is_draining}
    found: dict[str, list[TopicPartition]] = {node: [] for node in nodes}
    for partition, versioned in sorted(view.partitions.items()):
        record = versioned.record
        staying = [
            member.node for member in record.in_sync if is_live(member, live) and member.node not in going
        ]
        least = min(view.minimum(partition.topic), len(record.replicas))
        for node in record.in_sync_nodes & found.keys():
            if len(staying) - (node in staying) < least:
                found[node].append(partition)
    return found

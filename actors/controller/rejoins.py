"""Fail-back: a topic of this broker that was the source follows the topic that was promoted in its place. Pure.

    step        decided                                        the mirror (`actors/mirror/rejoining.py`) meanwhile
    begin       topics/<topic>.mirror: rejoining, with the     -
                forks of the promoted topic
    set_aside   topics/__diverged.<topic>, once a partition    copies the records beyond the forks there
                has records beyond its fork
    cut         topics/<topic>.mirror: with `cuts`             waits until all replicas in sync are cut, and has the topic
                                                               of the records promoted, so that it takes no more
    survey      `cuts` moved to `given_up`: a log is longer    asks the partitions again
    done        topics/<topic>.mirror: following, the cuts     copies the promoted topic
                are kept as `given_up`

Everything that a step needs is stored before it begins, so a process that dies goes on. In a cluster a replica is cut as
it takes a role after the decision, and its leader leads in a later epoch than that: no replica that leads later can bring
the records back. One that was away is cut as a follower, also when the topic follows, or was promoted again.

Two promoted topics may be ordered to follow each other at the same time. Each mirror describes the source's topic again
once its own side is stored as rejoining, so at least one of them sees both:

    the source's topic rejoins or follows this one    this one
    it rejoins, and was promoted earlier              is promoted again, with its forks: the mirror is refused
    it rejoins, and was promoted later                waits: the other one is about to be refused
    it is being cut, or follows                       is promoted again, unless it is cut, too: it follows then

If both follow, because a description was old, neither takes producers, nothing is lost, and both mirrors are refused
until one of the topics is promoted.

If its mirror is deleted on the way, the next one goes on with the same cuts and the same topic of records, by the forks
that were stored, and only then follows. That topic is not deleted before the end (`topics.py`). If it is lost
nevertheless, the records that are still in the partitions are set aside in another one, and the reason is stored.
Called by `mirrors.py`.
"""

from msgspec.structs import replace

from ...transport.addresses import DIVERGED_PREFIX
from ...transport.machine import Reply, Sender
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.mirrored import Cut, Fork, TopicMirror
from ...transport.protocol.mirrors import MirrorTopic, RejoinTopic
from .catalog import Catalog, TopicEntry, put
from .decisions import Decisions, FollowUp
from .effects import Effect
from .topics import Topics

CUTS_KEPT = 3
"""Number of fail-backs that a replica may miss. One that was away for more of them has to be made again."""


class Rejoins:
    def __init__(self, decisions: Decisions, topics: Topics) -> None:
        self._decisions = decisions
        self._topics = topics

    def on_topic(
        self, sender: Sender, request: MirrorTopic, entry: TopicEntry, now: int
    ) -> list[Effect] | None:
        """Let a topic rejoin the source's, or go on with it. None: it does not rejoin."""
        latest, found = self._decisions.latest, entry.mirror
        if found is not None and found.mirror == request.mirror:
            if _is_followed(found, request):
                return self._meet(sender, entry.topic, found, request, now)
            return self._go_on(sender, entry.topic, found, now) if found.state == "rejoining" else None
        if not latest.mirrors[request.mirror].spec.is_failback or entry.topic_id != request.topic_id:
            return None
        _check(latest, entry, request)
        catalog = _taken_over(latest, entry, request) if _is_begun(latest, entry) else None
        if catalog is None:
            mirror = TopicMirror(
                mirror=request.mirror,
                state="rejoining",
                reason="" if found is None else _without_lost(latest, found).reason,
                forks=() if found is None else found.forks,
                source_forks=request.forks,
                given_up=() if found is None else _given_up(found),
            )
            catalog = with_topic_mirror(latest, entry.topic, mirror)
        return self._decisions.decide(catalog, FollowUp("topic_altered", entry.topic, sender))

    def _go_on(self, sender: Sender, topic: str, found: TopicMirror, now: int) -> list[Effect]:
        mirror = _without_lost(self._decisions.latest, found)
        if mirror == found:
            return self._topics.awaited(sender, topic, now)
        catalog = with_topic_mirror(self._decisions.latest, topic, mirror)
        return self._decisions.decide(catalog, FollowUp("topic_altered", topic, sender))

    def _meet(
        self, sender: Sender, topic: str, found: TopicMirror, request: MirrorTopic, now: int
    ) -> list[Effect]:
        """Decide between two promoted topics that were ordered to follow each other at the same time."""
        if found.state != "rejoining":
            message = f"{topic} of the source follows this one, too: promote it at one of the two"
            raise ProtocolError(ErrorCode.TOPIC_EXISTS, message)
        if found.cuts:
            return self._go_on(sender, topic, found, now)
        if not request.is_decided and _order(found.forks) < _order(found.source_forks):
            message = f"{topic} of the source rejoins this one, too, and is about to be refused"
            raise ProtocolError(ErrorCode.ACTOR_UNAVAILABLE, message)
        promoted = replace(found, mirror="", state="promoted", source_forks=(), diverged="")
        catalog = with_topic_mirror(self._decisions.latest, topic, promoted)
        refused = Reply(sender, _followed(topic, request.mirror).body)
        return [*self._decisions.decide(catalog, FollowUp("topic_altered", topic)), refused]

    def on_step(self, sender: Sender, request: RejoinTopic, now: int) -> list[Effect]:
        latest = self._decisions.latest
        entry = latest.topics.get(request.topic)
        mirror = None if entry is None else entry.mirror
        is_known = mirror is not None and mirror.mirror == request.mirror and mirror.state == "rejoining"
        if entry is None or mirror is None or not is_known or entry.topic_id != request.topic_id:
            message = f"{request.topic} does not rejoin by mirror {request.mirror!r}"
            raise ProtocolError(ErrorCode.NOT_MIRRORED, message)
        kept = _without_lost(latest, mirror)
        if kept != mirror and request.step != "set_aside":
            raise ProtocolError(ErrorCode.CONFLICT, kept.reason, retriable=True)
        if request.step == "cut" and request.diverged_id not in ("", _id_of(latest, mirror.diverged)):
            message = f"{mirror.diverged} is not the topic in which the records were set aside"
            raise ProtocolError(ErrorCode.CONFLICT, message, retriable=True)
        if request.step != "set_aside":
            catalog = with_topic_mirror(latest, entry.topic, _after(mirror, request))
            return self._decisions.decide(catalog, FollowUp("topic_altered", entry.topic, sender))
        held = latest.topics.get(mirror.diverged)
        if held is not None and (held.mirror is None or held.mirror.is_writable):
            kept = replace(kept, reason=f"{mirror.diverged} was promoted: it has only a part of the records")
        elif held is not None:
            return self._topics.awaited(sender, mirror.diverged, now)
        diverged = _free_name(latest, entry.topic)
        # It keeps everything, synced before the other log is cut, until it is deleted.
        config = replace(
            entry.config,
            cleanup="delete",
            retention_ms=-1,
            retention_bytes=-1,
            key_versions=False,
            flush="batch",
        )
        catalog = latest.with_topic(
            diverged, entry.partitions, config, now, mirror=TopicMirror(mirror=request.mirror)
        )
        catalog = with_topic_mirror(catalog, entry.topic, replace(kept, diverged=diverged))
        return self._decisions.decide(catalog, FollowUp("topic_created", diverged, sender))


def with_topic_mirror(catalog: Catalog, topic: str, mirror: TopicMirror) -> Catalog:
    entry = replace(catalog.topics[topic], mirror=mirror)
    return catalog.decided((put(f"topics/{topic}", entry),))


def _after(mirror: TopicMirror, request: RejoinTopic) -> TopicMirror:
    """Return the state of a topic that rejoins after a step."""
    if request.step == "cut":
        return replace(mirror, cuts=request.cuts)
    # Some replicas may have carried out cuts that are dropped, and others not.
    return replace(
        mirror,
        state="following" if request.step == "done" else mirror.state,
        cuts=(),
        given_up=_given_up(mirror),
    )


def _given_up(mirror: TopicMirror) -> tuple[Cut, ...]:
    """Return the newest cuts of each partition, without those that a later one covers."""
    cuts = (*mirror.given_up, *mirror.cuts)
    needed = [
        cut for number, cut in enumerate(cuts) if not any(later.covers(cut) for later in cuts[number + 1 :])
    ]
    return tuple(
        cut
        for number, cut in enumerate(needed)
        if sum(later.partition == cut.partition for later in needed[number + 1 :]) < CUTS_KEPT
    )


def _without_lost(catalog: Catalog, mirror: TopicMirror) -> TopicMirror:
    """Return the state of a topic that rejoins. If the topic of its records is gone, another is needed."""
    if mirror.state != "rejoining" or not mirror.diverged or mirror.diverged in catalog.topics:
        return mirror
    reason = (
        f"{mirror.diverged} was lost before the fail-back was complete: the records removed by then are lost"
        if mirror.cuts
        else f"{mirror.diverged} was lost during the fail-back: its records are set aside again"
    )
    return replace(mirror, diverged="", cuts=(), given_up=_given_up(mirror), reason=reason)


def _id_of(catalog: Catalog, topic: str) -> str:
    entry = catalog.topics.get(topic)
    return "" if entry is None else entry.topic_id


def _is_begun(catalog: Catalog, entry: TopicEntry) -> bool:
    """Return True if a mirror that was deleted has set records of a topic aside: the next one continues it."""
    found = entry.mirror
    return found is not None and found.state == "rejoining" and found.diverged in catalog.topics


def _taken_over(catalog: Catalog, entry: TopicEntry, request: MirrorTopic) -> Catalog:
    """Give the fail-back of a mirror that was deleted to another one, with the topic of the records."""
    assert entry.mirror is not None
    for topic in (entry.topic, entry.mirror.diverged):
        found = catalog.topics[topic].mirror
        assert found is not None
        catalog = with_topic_mirror(catalog, topic, replace(found, mirror=request.mirror))
    return catalog


def _is_followed(found: TopicMirror, request: MirrorTopic) -> bool:
    """Return True if the source's topic rejoins or follows this one."""
    return bool(request.followed) and found.forks == request.followed


def _followed(topic: str, mirror: str) -> ProtocolError:
    message = (
        f"{topic} of the source follows this one, and only one of the two can follow: delete mirror {mirror!r}, or"
        f" promote {topic} at the source first"
    )
    return ProtocolError(ErrorCode.TOPIC_EXISTS, message)


def _order(forks: tuple[Fork, ...]) -> tuple[int, tuple[tuple[int, ...], ...]]:
    """Return a value that is greater for a later promotion, and different for another one."""
    latest = max((fork.first_epoch for fork in forks), default=-1)
    return latest, tuple((fork.offset, fork.leader_epoch, fork.heard_at_ms) for fork in forks)


def _check(catalog: Catalog, entry: TopicEntry, request: MirrorTopic) -> None:
    """Raise ProtocolError if a topic cannot rejoin the source's."""
    topic, found = entry.topic, entry.mirror
    if found is not None and found.mirror in catalog.mirrors and found.state != "promoted":
        message = f"{topic} is a copy made by mirror {found.mirror!r}: delete that mirror first"
        raise ProtocolError(ErrorCode.TOPIC_EXISTS, message)
    if found is not None and _is_followed(found, request):
        raise _followed(topic, request.mirror)
    if not request.forks:
        message = f"{topic} of the source was not promoted, so this one cannot become its copy: promote it there first"
        raise ProtocolError(ErrorCode.TOPIC_EXISTS, message)
    if found is not None and found.forks == request.forks:
        message = (
            f"{topic} of the source is this topic itself: give the endpoints of the other broker with --from"
        )
        raise ProtocolError(ErrorCode.TOPIC_EXISTS, message)
    if entry.partitions > request.partitions:
        message = (
            f"{topic} has {entry.partitions} partitions here, and {request.partitions} at the source: add partitions"
            " there first"
        )
        raise ProtocolError(ErrorCode.INVALID_CONFIG, message)


def _free_name(catalog: Catalog, topic: str) -> str:
    """Return the name of a new topic for records that are set aside."""
    name, number = f"{DIVERGED_PREFIX}{topic}", 1
    while name in catalog.topics or name in catalog.removing:
        number += 1
        name = f"{DIVERGED_PREFIX}{topic}.{number}"
    return name

"""The work that follows once the store has, or refuses, a change. Pure.

Changed, State   the durable catalog follows; watches are notified; changes that this controller did not decide, or
                 whose outcome it did not learn, start and stop processes
Applied          the follow-up of each decision in flight: processes are started or stopped, requests answered
other outcomes   all decisions that are not durable are void; their requesters get a retriable error
"""

from collections.abc import Iterable
from typing import assert_never

from ...transport.machine import Reply
from ...transport.protocol.errors import ErrorBody, ErrorCode
from ..metadata.store import Applied, Change, Changed, NotApplied, Outcome, Put, Rejected, State, Unknown
from .decisions import Decisions, FollowUp
from .deployments import Deployments
from .effects import Effect
from .groups import Groups
from .internal_actors import InternalActors
from .mirrors import Mirrors
from .orphans import Orphans
from .producers import ProducerIds
from .quotas import Quotas
from .security import Security
from .topics import Topics
from .watches import Watches

STORE_EVENTS = (Changed, State, Applied, NotApplied, Rejected, Unknown)
OVERTAKEN = ErrorBody(
    ErrorCode.ACTOR_UNAVAILABLE, "another change came first, and this one was not made; try again", True
)
UNKNOWN_OUTCOME = ErrorBody(
    ErrorCode.TIMED_OUT, "the metadata store did not answer: the change may take effect or not", True
)


class FollowUps:
    def __init__(
        self,
        decisions: Decisions,
        topics: Topics,
        groups: Groups,
        internal_actors: InternalActors,
        producers: ProducerIds,
        quotas: Quotas,
        security: Security,
        watches: Watches,
        orphans: Orphans,
        deployments: Deployments,
        mirrors: Mirrors,
    ) -> None:
        self._decisions = decisions
        self._topics = topics
        self._groups = groups
        self._internal_actors = internal_actors
        self._producers = producers
        self._quotas = quotas
        self._security = security
        self._watches = watches
        self._orphans = orphans
        self._deployments = deployments
        self._mirrors = mirrors

    def on_store(self, event: Outcome | Changed | State, now: int) -> list[Effect]:
        match event:
            case Changed():
                changes = self._decisions.on_changed(event)
                return [*self._watches.on_changed(), *self._on_foreign(changes, now)]
            case State():
                changes = self._decisions.on_state(event)
                told = self._watches.on_changed()
                return [*told, *self._on_foreign(changes, now), *self._orphans.ask()]
            case Applied():
                applied = self._decisions.applied()
                return [effect for follow_up in applied for effect in self._apply(follow_up, now)]
            case NotApplied(error=error):
                return self._on_not_applied(error, now)
            case Rejected():
                return self._on_not_applied(OVERTAKEN, now)
            case Unknown():
                return self._on_not_applied(UNKNOWN_OUTCOME, now)
            case _:
                assert_never(event)

    def _apply(self, follow_up: FollowUp, now: int) -> list[Effect]:
        match follow_up.kind:
            case "topic_created":
                return self._topics.apply_created(follow_up, now)
            case "topic_altered":
                return self._topics.apply_altered(follow_up, now) + self._wake_groups(follow_up.name)
            case "topic_awaited":
                return self._topics.apply_awaited(follow_up, now)
            case "topic_deleted":
                return self._topics.apply_deleted(follow_up)
            case "remains_removed":
                return self._topics.apply_remains_removed(follow_up.name)
            case "group_created":
                return self._groups.apply_created(follow_up)
            case "group_deleted":
                return self._groups.apply_deleted(follow_up.name)
            case "producer_ids_reserved":
                return self._producers.apply_reserved(follow_up.name, now)
            case "companions_created":
                return self._internal_actors.apply_created(follow_up)
            case "quota_changed":
                return self._quotas.apply_changed(follow_up)
            case "security_changed":
                return self._security.apply_changed(follow_up)
            case "deployment_changed":
                return self._deployments.apply_changed(follow_up)
            case "mirror_changed":
                return self._mirrors.apply_changed(follow_up)
            case "mirror_topic_changed":
                return self._mirrors.apply_topic_changed(follow_up)
            case "mirror_sealed":
                return self._mirrors.promotions.drive()
            case "sites_changed":
                return []
            case "mirror_promoted":
                return self._mirrors.promotions.apply_promoted(follow_up.name)

    def _on_foreign(self, changes: Iterable[Change], now: int) -> list[Effect]:
        refused = self._refuse(self._decisions.overtaken(), OVERTAKEN, now)
        return [*refused, *self._reconcile(changes, now)]

    def _reconcile(self, changes: Iterable[Change], now: int) -> list[Effect]:
        """Act upon changes that this controller did not decide, or whose outcome it did not learn."""
        effects: list[Effect] = []
        for change in changes:
            kind, _, name = change.key.partition("/")
            is_put = isinstance(change, Put)
            match kind:
                case "topics" if is_put:
                    effects += self._topics.apply_altered(FollowUp("topic_altered", name), now)
                    effects += [
                        *self._internal_actors.on_topic(name),
                        *self._mirrors.promotions.on_topic(name),
                    ]
                case "removing" if is_put:
                    effects += self._topics.apply_deleted(FollowUp("topic_deleted", name))
                case "removing":
                    effects += self._orphans.ask()  # its processes, if they are not stopped yet
                case "groups" if is_put:
                    effects += self._groups.apply_created(FollowUp("group_created", name))
                case "groups":
                    effects += self._groups.apply_deleted(name)
                case "deployments":
                    effects += self._deployments.follow()
                case "mirrors":
                    effects += self._mirrors.follow()
                case "quotas":
                    effects += self._quotas.apply_changed(FollowUp("quota_changed", name))
        return effects

    def _wake_groups(self, altered: str) -> list[Effect]:
        """Wake every group if the topic needs their positions, possibly only from now on."""
        entry = self._decisions.durable.topics.get(altered)
        return self._groups.wake() if entry is not None and entry.config.tracks_groups else []

    def _on_not_applied(self, error: ErrorBody, now: int) -> list[Effect]:
        changes = self._decisions.mistaken()
        return [*self._refuse(self._decisions.dropped(), error, now), *self._reconcile(changes, now)]

    def _refuse(self, follow_ups: Iterable[FollowUp], error: ErrorBody, now: int) -> list[Effect]:
        effects: list[Effect] = []
        for follow_up in follow_ups:
            if follow_up.kind == "remains_removed":
                effects += self._topics.retry_remains(follow_up.name, now)
            elif follow_up.kind == "group_deleted":
                effects += self._groups.on_not_forgotten(follow_up.name, error)
            elif follow_up.kind == "producer_ids_reserved":
                effects += self._producers.on_not_reserved(error)
            elif follow_up.kind == "mirror_promoted":
                effects += self._mirrors.promotions.on_not_promoted(follow_up.name, now)
            elif follow_up.sender is not None:
                effects.append(Reply(follow_up.sender, error))
                self._mirrors.promotions.on_refused(follow_up.sender)
        return effects

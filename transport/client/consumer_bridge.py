"""A consumer's half on the network thread, between its machines and the program's half (`consumer.py`). No socket."""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from msgspec import Struct

from ..machine import Answered, Call, Effect, Event, Failed, SetTimer, TimerFired
from ..protocol.errors import PlanariaError
from .fetching import Chunk, Fetching, Located, Trouble
from .membership import (
    Confirmed,
    GroupTrouble,
    LeaveRequested,
    MemberLeft,
    Membership,
    PollChecked,
    Polled,
    Target,
)

_POLL_CHECK = "poll check"
_TOPIC_CHECK = "topic check"
_log = logging.getLogger(__name__)


class Stopped(Struct, frozen=True):
    """The program asks its poll to return."""


class HasMail(Protocol):
    """An event of the program's side: a bell, or a loop's event."""

    def set(self) -> None: ...


class ConsumerBridge:
    """The consumer's half on the network thread: events to the machines, results into the mailbox."""

    def __init__(
        self,
        fetching: Fetching,
        membership: Membership | None,
        max_poll_interval_ms: int,
        has_mail: HasMail,
    ) -> None:
        self.mailbox: deque[Any] = deque()
        self.has_mail = has_mail
        self.is_polling = False
        self.last_poll_ms = 0
        self._fetching = fetching
        self._membership = membership
        self._check_ms = max(10, max_poll_interval_ms // 4)
        self._expected: Sequence[str] = ()
        self._is_unknown: Callable[[str], bool] = lambda _: False
        self._expect_ms = 0

    def expect(self, topics: Sequence[str], is_unknown: Callable[[str], bool], within_ms: int) -> None:
        """Warn once, `within_ms` after the first poll, of each topic that the broker does not know."""
        self._expected, self._is_unknown, self._expect_ms = topics, is_unknown, within_ms

    def on_network_end(self, _: PlanariaError) -> None:
        """Wake a poll, which then raises."""
        self.has_mail.set()

    def handle(self, event: Event, now: int) -> list[Effect]:
        match event:
            case TimerFired(key=key) if key == _POLL_CHECK:
                assert self._membership is not None
                at = now if self.is_polling else self.last_poll_ms
                effects = self._of_group(PollChecked(at), now)
                if self._membership.state != "out":
                    effects.append(SetTimer(_POLL_CHECK, now + self._check_ms))
            case TimerFired(key=key) if key == _TOPIC_CHECK:
                self._warn_of_missing()
                effects = []
            case Polled() | Confirmed() | LeaveRequested():
                effects = self._of_group(event, now)
                if isinstance(event, Polled):
                    effects.append(SetTimer(_POLL_CHECK, now + self._check_ms))
                    if self._expected:
                        effects.append(SetTimer(_TOPIC_CHECK, now + self._expect_ms))
            case Answered(key=("commit", _)) | Failed(key=("commit", _)):
                effects = [event]
            case Answered(key=key) | Failed(key=key) | TimerFired(key=key) if _is_of_group(key):
                effects = self._of_group(event, now)
            case Stopped():
                self.has_mail.set()
                effects = []
            case Call():
                effects = [event]
            case _:
                effects = self._fetching.handle(event, now)
        return self._keep_mail(effects)

    def _warn_of_missing(self) -> None:
        for topic in filter(self._is_unknown, self._expected):
            _log.warning(
                "topic %r does not exist: the consumer waits for it, and polls return no messages of it",
                topic,
            )
        self._expected = ()

    def _of_group(self, event: Event, now: int) -> list[Effect]:
        """Hand an event to the membership. The program's side learns by mail under which identity it commits."""
        assert self._membership is not None
        before = self._membership.identity
        effects = self._membership.handle(event, now)
        if self._membership.identity != before:
            self.mailbox.append(self._membership.identity)
        return effects

    def _keep_mail(self, effects: list[Effect]) -> list[Effect]:
        left: list[Effect] = []
        for effect in effects:
            if isinstance(effect, Located) and effect.lost_from is not None:
                where = f"{effect.tp[0]}/{effect.tp[1]}"
                _log.warning(
                    "%s was truncated at offset %d, below %d: reading continues there, with different records",
                    where, effect.offset, effect.lost_from,
                )  # fmt: skip
            if isinstance(
                effect, Chunk | Located | Trouble | Target | GroupTrouble | MemberLeft | Answered | Failed
            ):
                self.mailbox.append(effect)
            else:
                left.append(effect)
        if self.mailbox:
            self.has_mail.set()
        return left


def _is_of_group(key: Any) -> bool:
    return isinstance(key, str) or key[0] == "beat"

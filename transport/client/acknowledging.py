"""The common part of the two shells of a share group's member: the machine under its lock, and the verdicts.

A verdict is recorded and posted; it never waits. The base of the share consumers for threads (`share_consumer.py`) and
for tasks (`transport/aio/work.py`).
"""

import threading
import uuid
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, Generic, cast

from .. import tracing
from ..codec import sendable
from ..machine import Effect, Event
from ..protocol.shares import Verdict
from .acknowledgements import ACCEPTED, RELEASED, Said
from .errors import Closed
from .iteration import MessageT
from .messages import Message
from .network import Network
from .options import InvalidOption
from .schedule import milliseconds_of
from .share_messages import ShareOptions
from .sharing import Sharing


class LockedMachine(Generic[MessageT]):
    """The machine on the network thread, under the lock of its consumer."""

    def __init__(self, machine: Sharing[MessageT], lock: threading.Lock) -> None:
        self._machine = machine
        self._lock = lock

    def handle(self, event: Event, now: int) -> list[Effect]:
        with self._lock:
            return self._machine.handle(event, now)


class Acknowledging(Generic[MessageT]):
    """A member of a share group that takes verdicts."""

    def __init__(self, network: Network, group: str, topics: list[str], options: ShareOptions) -> None:
        self._network = network
        self._group = group
        self._options = options
        member_id = options.member_id or f"{group}-{uuid.uuid4().hex[:12]}"
        self._machine: Sharing[MessageT] = Sharing(group, topics, member_id, options, network.now_ms())
        self._lock = threading.Lock()
        """Held for each call of the machine, never while waiting."""
        self._owner = LockedMachine(self._machine, self._lock)
        self._is_closed = False

    def _acknowledge(
        self, messages: Iterable[Message], verdict: Verdict, delay: timedelta | float, reason: str
    ) -> None:
        given = list(messages)
        if tracing.active is None:
            self._say(given, verdict, delay, reason)
            return
        with tracing.active.settling(verdict, self, given):
            self._say(given, verdict, delay, reason)

    def _say(
        self, messages: Sequence[Message], verdict: Verdict, delay: timedelta | float, reason: str
    ) -> None:
        self._refuse_when_closed()
        # Most verdicts have neither delay nor reason, and are given message by message.
        is_plain = reason == "" and type(delay) is float and delay == 0.0 and type(verdict) is str
        said = _PLAIN.get(verdict) if is_plain else None
        if said is None:
            said = _checked(verdict, delay, reason)
        machine = self._machine
        try:
            with self._lock:
                machine.acknowledge(messages, said)
        finally:
            if machine.posts:
                self._post()

    def _settle(self, message: Message, verdict: Verdict, reason: str = "") -> None:
        """Like `_acknowledge`; do nothing if the message is acknowledged, the consumer closed, or the lock lost."""
        if self._is_closed:
            return
        self._network.refuse_when_closed()
        said = Said(verdict, 0, sendable(reason)[:1_000])
        with self._lock:
            self._machine.settle([(message.topic_partition, (message.offset,), said)])
        self._post()

    def _post(self, *, is_waiting: bool = False) -> None:
        """Post the machine's events. `is_waiting`: the calling thread waits in its next step."""
        posts = self._machine.posts
        while posts:
            with suppress(IndexError):  # another thread has posted it
                self._network.post(self._owner, posts.popleft(), is_waiting=is_waiting)

    def _refuse_when_closed(self) -> None:
        if self._is_closed:
            raise Closed("the share consumer is closed")
        self._network.refuse_when_closed()


def _checked(verdict: Any, delay: timedelta | float, reason: Any) -> Said:
    if not isinstance(verdict, str) or verdict not in _PLAIN:
        raise InvalidOption(f"verdict: {verdict!r} is unknown; choose one of {', '.join(_PLAIN)}")
    if not isinstance(reason, str):
        raise InvalidOption(f"reason: must be text, not {reason!r}")
    return Said(cast("Verdict", verdict), milliseconds_of(delay), sendable(reason)[:1_000])


_PLAIN: dict[str, Said] = {
    "accept": ACCEPTED,
    "release": RELEASED,
    "fail": Said("fail", 0, ""),
    "reject": Said("reject", 0, ""),
}

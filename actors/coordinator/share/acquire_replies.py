"""A share group's acquisitions on their way to members, so that a lost one can be taken back. Pure.

    recorded    not durable yet: not answered
    sent        answered; the newest MAX_SENT, since a cancel may cross the reply
    void        cancelled: its locks were returned, and it is never answered

Called by acquiring.py.
"""

from collections.abc import Callable

from msgspec import UNSET, Struct, UnsetType

from ....transport.addresses import TopicPartition
from ....transport.machine import Sender
from ....transport.protocol.shares import AcknowledgeResult, Acquire
from .spans import Span

MAX_SENT = 1_000


class Acquired(Struct, frozen=True):
    """The records acquired for a request, to be answered once that is durable."""

    sender: Sender
    request: Acquire
    taken: list[tuple[TopicPartition, Span]]
    lock_ms: int
    results: list[AcknowledgeResult] | UnsetType = UNSET
    """Those of the acknowledgements that came with it. `taken` may then be empty."""


class AcquireReplies:
    def __init__(self) -> None:
        self._recorded: dict[Sender, Acquired] = {}
        self._sent: dict[Sender, Acquired] = {}

    def add(self, acquired: Acquired) -> None:
        self._recorded[acquired.sender] = acquired

    def send(self, acquired: Acquired) -> bool:
        """Note that it is answered; return True if its request still waits."""
        if self._recorded.pop(acquired.sender, None) is not acquired:
            return False
        self._sent[acquired.sender] = acquired
        if len(self._sent) > MAX_SENT:
            del self._sent[next(iter(self._sent))]
        return True

    def void(self, is_gone: Callable[[Acquired], bool], *, also_sent: bool) -> list[Acquired]:
        """Remove and return the acquisitions that did not reach their members."""
        found: list[Acquired] = []
        for table in (self._recorded, self._sent) if also_sent else (self._recorded,):
            for acquired in [each for each in table.values() if is_gone(each)]:
                del table[acquired.sender]
                found.append(acquired)
        return found

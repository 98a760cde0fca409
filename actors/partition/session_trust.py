"""Whether a leader with followers may acknowledge by its own disk alone, as `acks` 0 and 1 ask. Pure.

Such an acknowledgement depends on the session of the leader's node: once it has ended, another replica may lead, and
the record is lost. So it is given only until `trusted_until_ms`, the end of the session by the node's controller less
a margin, on the clock that also counts the machine's sleep. `acks = "all"` needs no session: an old leader commits
nothing without its followers.

    request                     the clock is read (CheckSession)      then
    acks 0 or 1                 before `trusted_until_ms`             it is carried out; the controller is asked again
                                                                      each `ASK_INTERVAL_MS`, while there are such
    first after a pause, or     after it                              it waits for the controller's answer
    the session is not renewed
    one that has waited         after it                              it is refused

Called by `leader.py`.
"""

from ...transport.addresses import CONTROLLER
from ...transport.machine import Call, Received
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.replication import ConfirmSession, ConfirmSessionReply
from .effects import CheckSession, Effect, SessionChecked
from .timers import SessionCall

ASK_INTERVAL_MS = 1_000
ASK_TIMEOUT_MS = 1_000
WAITING_LIMIT = 100


class SessionTrust:
    def __init__(self, trusted_until_ms: int) -> None:
        self._until_ms = trusted_until_ms
        self._asked_at: int | None = None
        self._is_asking = False
        self._waiting: list[Received] = []

    def check(self, received: Received) -> list[Effect]:
        return [CheckSession(received, self._until_ms)]

    def on_checked(self, event: SessionChecked, now: int) -> tuple[bool, list[Effect]]:
        """Return whether the request may be carried out, and the effects. One that waits, or is refused, may not."""
        is_due = self._asked_at is None or now - self._asked_at >= ASK_INTERVAL_MS
        if event.is_trusted:
            return True, self._ask(now) if is_due else []
        if len(self._waiting) >= WAITING_LIMIT or (not self._is_asking and not is_due):
            return False, []
        self._waiting.append(event.received)
        return False, self._ask(now)

    def is_waiting(self, received: Received) -> bool:
        return any(each is received for each in self._waiting)

    def on_outcome(self, reply: ConfirmSessionReply | None) -> list[Effect]:
        """Check again what has waited; None: the controller has not answered."""
        self._is_asking = False
        if reply is not None:
            self._until_ms = reply.trusted_until_ms
        return [effect for received in self.take_all() for effect in self.check(received)]

    def take_all(self) -> list[Received]:
        """Return the requests that have waited."""
        taken, self._waiting = self._waiting, []
        return taken

    def _ask(self, now: int) -> list[Effect]:
        if self._is_asking:
            return []
        self._is_asking, self._asked_at = True, now
        return [
            Call(SessionCall(), CONTROLLER, ConfirmSession(), ConfirmSessionReply, timeout_ms=ASK_TIMEOUT_MS)
        ]


def refusal() -> ProtocolError:
    return ProtocolError(
        ErrorCode.ACTOR_UNAVAILABLE,
        "the leader's node is not sure of its session in the metadata store, so another replica may lead:"
        ' only acks = "all" is safe',
    )

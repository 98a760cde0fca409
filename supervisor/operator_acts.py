"""Acts of operators over the supervisor's own socket, kept until the gateway has written them to the audit. Pure.

The gateway waits for them by `await_acts`, and confirms those that are durable by its next call, so that the death of the
gateway, which may be such an act itself, loses none. Only the newest call is kept. Without an audit nothing confirms
them, and the oldest of MAX_ACTS are forgotten. Part of the machine; called by requests.py.
"""

from collections import deque

from ..transport.machine import Reply, Sender
from ..transport.protocol.control import AwaitActs, AwaitActsReply, OperatorAct
from ..transport.protocol.operations import Kill, Revive
from .lifecycle import Lifecycle

MAX_ACTS = 1_000
UNNAMED = b"\0"
"""The first byte of the routing id that ZeroMQ gives a peer without a name: actors have names, operators have none."""


class OperatorActs:
    def __init__(self, life: Lifecycle) -> None:
        self._life = life
        self._acts: deque[OperatorAct] = deque(maxlen=MAX_ACTS)
        self._last = 0
        self._waiting: Sender | None = None

    def on_act(self, request: Kill | Revive, sender: Sender, error: str, now: int) -> None:
        """Keep an act of an operator; those of principals come through the gateway, which has recorded them."""
        if not sender.route[0].startswith(UNNAMED):
            return
        self._last += 1
        act_id = f"{self._life.identity.instance_id}.supervisor.{self._last}"
        self._acts.append(OperatorAct(self._last, act_id, now, request, error))
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            self._life.order(Reply(waiting, self._reply()))

    def on_wait(self, request: AwaitActs, sender: Sender, now: int) -> AwaitActsReply | None:
        while self._acts and self._acts[0].number <= request.after:
            self._acts.popleft()
        if self._acts:
            return self._reply()
        self._waiting = sender
        return None

    def _reply(self) -> AwaitActsReply:
        return AwaitActsReply(acts=list(self._acts))

"""The rate at which the replicas of other nodes catch up from the leaders of this one. Pure.

A leader asks before it sends batches to a replica that is not in sync, and sends them when it is answered. All leaders
of the node share one bucket, so that copies take no more of its network and disk than the configured rate, and are
served in turn. Records for replicas in sync are not counted: producers wait for it.

    state      left by
    admitted   answered at once, while the bucket is not below zero
    waiting    CatchUpTimer -> admitted, the oldest first      its leader's connection closes -> forgotten
"""

from collections import deque

from ...transport.machine import Effect, Reply, Sender, SetTimer
from ...transport.protocol.links import AdmitCatchUp
from ...transport.protocol.message import Done
from ...transport.token_bucket import TokenBucket
from .keys import CatchUpTimer


class CatchUp:
    def __init__(self, bytes_per_second: int, now: int = 0) -> None:
        """Admit this rate; 0: any."""
        self._bucket = TokenBucket(bytes_per_second, now) if bytes_per_second else None
        self._waiting: deque[tuple[Sender, int]] = deque()

    def on_request(self, sender: Sender, request: AdmitCatchUp, now: int) -> list[Effect]:
        self._waiting.append((sender, request.size_bytes))
        return self._admit(now) if len(self._waiting) == 1 else []

    def on_timer(self, now: int) -> list[Effect]:
        return self._admit(now)

    def on_closed(self, connection: bytes, now: int) -> list[Effect]:
        """Forget the requests of a leader whose process has ended."""
        self._waiting = deque(each for each in self._waiting if each[0].route[0] != connection)
        return self._admit(now)

    def _admit(self, now: int) -> list[Effect]:
        effects: list[Effect] = []
        while self._waiting:
            wait_ms = 0 if self._bucket is None else self._bucket.wait_ms(now)
            if wait_ms > 0:
                return [*effects, SetTimer(CatchUpTimer(), now + wait_ms)]
            sender, size_bytes = self._waiting.popleft()
            if self._bucket is not None:
                self._bucket.charge(size_bytes)
            effects.append(Reply(sender, Done()))
        return effects

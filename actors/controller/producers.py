"""Producer ids, given away once each, from blocks that are reserved durably before their first id is used. Pure.

After a crash the rest of a block is skipped: an id that was never used hurts nobody, one used twice would let a producer
be taken for another.
"""

from ...transport.machine import Effect, Reply, Sender
from ...transport.protocol.data import InitProducerReply
from ...transport.protocol.errors import ErrorBody, ErrorCode, ProtocolError
from .decisions import Consequence, Decisions

MAX_WAITING = 1_000
"""Producers that may wait for a block; more are refused with OVERLOADED."""


class ProducerIds:
    def __init__(self, decisions: Decisions) -> None:
        self._decisions = decisions
        self._next = decisions.durable.producer_ids_reserved
        self._waiting: list[Sender] = []

    def on_init(self, asker: Sender) -> list[Effect]:
        if self._next < self._decisions.durable.producer_ids_reserved:
            return [self._give(asker)]
        if len(self._waiting) >= MAX_WAITING:
            raise ProtocolError(ErrorCode.OVERLOADED, "too many producers are waiting for an id")
        self._waiting.append(asker)
        return self._reserve() if len(self._waiting) == 1 else []

    def apply_reserved(self) -> list[Effect]:
        effects: list[Effect] = []
        while self._waiting and self._next < self._decisions.durable.producer_ids_reserved:
            effects.append(self._give(self._waiting.pop(0)))
        return effects + (self._reserve() if self._waiting else [])

    def on_not_reserved(self, error: ErrorBody) -> list[Effect]:
        refused, self._waiting = self._waiting, []
        return [Reply(asker, error) for asker in refused]

    def _reserve(self) -> list[Effect]:
        return self._decisions.decide(
            self._decisions.latest.with_producer_id_block(), Consequence("producer_ids_reserved")
        )

    def _give(self, asker: Sender) -> Effect:
        producer_id = self._next
        self._next += 1
        return Reply(asker, InitProducerReply(producer_id=producer_id, producer_epoch=0))

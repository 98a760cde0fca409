"""Producer ids, each given out once: an era of ids is reserved durably before its first id is used. Pure.

    era used up, or doubted  --the next era is recorded--> ids of that era, from counter 0

The rest of an era is dropped with its controller; an id that is never used does no harm, one used twice would let the
records of one producer be taken for repeats of another's. A partition that comes up is asked for the highest era
among the producers it remembers. If that is ahead of the catalog's, the catalog is older than the partition's log and
the clock went back as well; then the current era is doubted, and the next one begins above the partition's.
"""

from ...transport.addresses import Address
from ...transport.machine import Call, Reply, Sender
from ...transport.producer_ids import IDS_PER_ERA, era_after, producer_id_of
from ...transport.protocol.data import InitProducerReply
from ...transport.protocol.errors import ErrorBody, ErrorCode, ProtocolError
from ...transport.protocol.topics import HighestEra, HighestEraReply
from .catalog import Catalog
from .decisions import Decisions, FollowUp
from .effects import Effect
from .keys import EraCall
from .sites import site_of

MAX_WAITING = 1_000
"""Maximum number of producers that wait for an era; more are refused with OVERLOADED."""
TIMEOUT_MS = 10_000


class ProducerIds:
    def __init__(self, decisions: Decisions) -> None:
        self._decisions = decisions
        self._era: int | None = None
        """The era whose ids are given out."""
        self._next = 0
        """The counter of the next id."""
        self._highest_known = 0
        """The highest era that any partition has reported."""
        self._waiting: list[Sender] = []
        self._site: tuple[Catalog, int] | None = None
        """The site, and the catalog that it is of."""

    def on_init(self, sender: Sender, now: int) -> list[Effect]:
        if self._has_ids:
            return [self._give(sender)]
        if len(self._waiting) >= MAX_WAITING:
            raise ProtocolError(ErrorCode.OVERLOADED, "too many producers are waiting for an id")
        self._waiting.append(sender)
        return self._reserve(now) if len(self._waiting) == 1 else []

    def apply_reserved(self, era: str, now: int) -> list[Effect]:
        self._era, self._next = int(era), 0
        effects: list[Effect] = []
        while self._waiting and self._has_ids:
            effects.append(self._give(self._waiting.pop(0)))
        return effects + (self._reserve(now) if self._waiting else [])

    def on_not_reserved(self, error: ErrorBody) -> list[Effect]:
        refused, self._waiting = self._waiting, []
        return [Reply(sender, error) for sender in refused]

    def on_up(self, address: Address) -> list[Effect]:
        if address.topic is None:
            return []
        return [Call(EraCall(address), address, HighestEra(), HighestEraReply, timeout_ms=TIMEOUT_MS)]

    def on_answered(self, reply: HighestEraReply) -> list[Effect]:
        # Producers of the current era that a partition remembers got their ids from this controller.
        self._highest_known = max(self._highest_known, reply.era)
        return []

    @property
    def _has_ids(self) -> bool:
        return self._era is not None and self._era >= self._highest_known and self._next < IDS_PER_ERA

    def _reserve(self, now: int) -> list[Effect]:
        latest = self._decisions.latest
        era = era_after(max(latest.era, self._highest_known), now)
        return self._decisions.decide(latest.with_era(era), FollowUp("producer_ids_reserved", str(era)))

    def _give(self, sender: Sender) -> Effect:
        assert self._era is not None
        durable = self._decisions.durable
        if self._site is None or self._site[0] is not durable:
            # It is a look at every topic.
            self._site = (durable, site_of(durable))
        producer_id = producer_id_of(self._era, self._next, self._site[1])
        self._next += 1
        return Reply(sender, InitProducerReply(producer_id=producer_id, producer_epoch=0))

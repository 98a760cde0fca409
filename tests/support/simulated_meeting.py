"""Two promoted topics whose fail-backs are ordered at the same moment: two controllers and two mirrors, and no socket.

The machines are the product's own. A seed chooses which message arrives next: a question to the other side, its answer,
a call to the own controller or partition. A partition is the end of its log: the first records are those that both
sides have, up to the fork of the later promotion, and the others are its own. After every step each record that one side
alone has is in its log, or set aside.
"""

from itertools import count
from random import Random
from typing import Any

from planaria.actors.controller.catalog import Catalog
from planaria.actors.controller.deployments import Nodes
from planaria.actors.controller.effects import TurnEnds
from planaria.actors.controller.machine import ControllerMachine
from planaria.actors.controller.rejoins import with_topic_mirror
from planaria.actors.metadata.store import Applied, Changed, Propose
from planaria.actors.mirror.effects import AskSource, SourceAnswered, Started
from planaria.actors.mirror.keys import CreateKey, RejoinKey, TopicKey, TopicsKey
from planaria.actors.mirror.machine import MirrorMachine
from planaria.transport.machine import Answered, Call, Failed, Received, Reply, Sender, SetTimer, TimerFired
from planaria.transport.protocol.errors import ErrorBody
from planaria.transport.protocol.mirrored import Fork, TopicMirror
from planaria.transport.protocol.mirrors import (
    CreateMirror,
    MirrorAppend,
    MirrorAppendReply,
    MirrorSpec,
    PromoteMirror,
    PromoteMirrorReply,
    RejoinPartition,
    RejoinPartitionReply,
)
from planaria.transport.protocol.topics import DescribeTopicReply, ListTopicsReply, TopicConfig, TopicSummary

SHARED = 100
"""The records that both sides have."""
OWN = 7
"""Those that each has beyond them."""
FORKS = {
    "rome": (Fork(partition=0, offset=40, leader_epoch=1, first_epoch=1_001),),
    "paris": (Fork(partition=0, offset=SHARED, leader_epoch=1_001, first_epoch=2_001),),
}
"""Paris was promoted first, followed rome, and was promoted again."""


class Side:
    def __init__(self, name: str) -> None:
        self.name = name
        catalog = Catalog(catalog_id=name).with_topic("T", 1, TopicConfig(), 0, topic_id="t1")
        catalog = with_topic_mirror(
            catalog, "T", TopicMirror(mirror="", state="promoted", forks=FORKS[self.name])
        )
        self.revision = 1
        durable = Catalog(catalog_id=name).applied(1, catalog.changes)
        self.controller = ControllerMachine(durable, numbers=count(1), nodes=Nodes)
        self.log_end = SHARED + OWN
        self.set_aside = False
        self.was_cut = False
        self.described: list[TopicMirror] = [self.mirror]
        """Every state of the topic, the oldest first."""
        self.machine: MirrorMachine | None = None

    @property
    def mirror(self) -> TopicMirror:
        found = self.controller.catalog.topics["T"].mirror
        assert found is not None
        return found

    def decide(self, request: Any) -> Any:
        """Return the answer to a request, after the decisions have been stored."""
        effects = list(self.controller.handle(Received(Sender((b"mirror",), 1), request), 0))
        effects += self.controller.handle(TurnEnds(), 0)
        for proposal in [each for each in effects if isinstance(each, Propose)]:
            self.revision += 1
            self.controller.handle(Changed(self.revision, proposal.changes), 0)
            effects += self.controller.handle(Applied(proposal.number, self.revision), 0)
        if self.mirror != self.described[-1]:
            self.described.append(self.mirror)
        refusals = [
            each.body for each in effects if isinstance(each, Reply) and isinstance(each.body, ErrorBody)
        ]
        return refusals[0] if refusals else self.description(self.mirror)

    def description(self, mirror: TopicMirror) -> DescribeTopicReply:
        return DescribeTopicReply("T", "t1", TopicConfig(), [None], mirror)  # type: ignore[list-item]

    def answer(self, request: Any) -> Any:
        """Answer a call of the fail-back."""
        match request:
            case RejoinPartition(mirror=mirror):
                cut = mirror.cut_of(0)
                if cut is not None and cut.is_due(self.log_end):
                    assert self.set_aside, "records are cut that nothing has set aside"
                    self.log_end, self.was_cut = cut.offset, True
                meeting = mirror.meeting_of(0)
                assert meeting is not None
                offset = min(meeting.offset, self.log_end)
                return RejoinPartitionReply(
                    cut_offset=offset,
                    log_start_offset=0,
                    log_end_offset=self.log_end,
                    last_epoch=2_001,
                    is_done=self.log_end <= meeting.offset,
                )
            case MirrorAppend():
                self.set_aside = True
                return MirrorAppendReply(log_start_offset=0, log_end_offset=self.log_end, last_epoch=1)
            case PromoteMirror():
                return PromoteMirrorReply(topics=[])
        decided = self.decide(request)
        if getattr(request, "step", "") == "set_aside" and not isinstance(decided, ErrorBody):
            topic = self.controller.catalog.topics[self.mirror.diverged]
            return DescribeTopicReply(topic.topic, topic.topic_id, TopicConfig(), [])
        return decided


class Meeting:
    def __init__(self, seed: int, staleness: int = 0) -> None:
        """Descriptions may be older than the present state by so many changes."""
        self.draw = Random(seed)
        self.staleness = staleness
        self.now = 0
        self.sides = {name: Side(name) for name in FORKS}
        self._pending: list[tuple[Side, Any]] = []
        for side in self.sides.values():
            self.order(side)

    def order(self, side: Side) -> None:
        """Order the fail-back from the other side."""
        spec = MirrorSpec(source="tcp://other:5570", topics=("T",), is_failback=True)
        side.decide(CreateMirror(mirror="back", spec=spec))
        side.machine = MirrorMachine("back", spec)
        self._give(side, Started())

    def other(self, side: Side) -> Side:
        [found] = [each for each in self.sides.values() if each is not side]
        return found

    def run(self, steps: int) -> None:
        for _ in range(steps):
            if self._pending:
                self._arrive(*self._pending.pop(self.draw.randrange(len(self._pending))))
            for side in self.sides.values():
                held = side.log_end if not side.set_aside else SHARED + OWN
                assert held == SHARED + OWN, "a record is nowhere"

    def _give(self, side: Side, event: Any) -> None:
        assert side.machine is not None
        for effect in side.machine.handle(event, self.now):
            is_of_topic = isinstance(
                getattr(effect, "key", None), TopicsKey | TopicKey | CreateKey | RejoinKey
            )
            if isinstance(effect, SetTimer) or (isinstance(effect, AskSource | Call) and is_of_topic):
                self._pending.append((side, effect))

    def _arrive(self, side: Side, message: Any) -> None:
        match message:
            case SetTimer(key=key):
                self._give(side, TimerFired(key))
            case AskSource(key=TopicsKey() as key):
                self._pending.append((side, SourceAnswered(key, ListTopicsReply([TopicSummary("T", 1)]))))
            case AskSource(key=TopicKey() as key):
                states = self.other(side).described
                known = states[max(0, len(states) - 1 - self.draw.randint(0, self.staleness))]
                self._pending.append((side, SourceAnswered(key, side.description(known))))
            case SourceAnswered():
                self._give(side, message)
            case Call():
                reply = side.answer(message.request)
                is_refused = isinstance(reply, ErrorBody)
                self._give(side, Failed(message.key, reply) if is_refused else Answered(message.key, reply))

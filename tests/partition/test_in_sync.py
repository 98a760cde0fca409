"""The in-sync set of a partition, by transcripts: commands, and the state and the proposals after each.

`in_sync.txt` has them. With PLANARIA_REWRITE_TRANSCRIPTS=1 in the environment it is written again, to be reviewed as a
diff. A line that begins with `>` is the outcome of the command above it; one that begins with `#` names a transcript.
"""

import os
import random
from collections.abc import Iterable
from pathlib import Path

import pytest

from planaria.actors.partition.in_sync import (
    DurableReported,
    InSync,
    InSyncEvent,
    LeaderDurable,
    LeaderWrote,
    LivenessReported,
    OffsetEvent,
    Proposal,
    ProposalApplied,
    ProposalRejected,
    ProposalUnknown,
    Reassigned,
    ReplicaFetched,
    Tick,
)
from planaria.transport.protocol.replication import Lead, Member

TRANSCRIPTS = Path(__file__).parent / "in_sync.txt"


def member(name: str) -> Member:
    """`b` is node b with its disk b1; `b:b2` the same node with another disk."""
    node, _, data_id = name.partition(":")
    return Member(node, data_id or f"{node}1")


def members(names: str) -> tuple[Member, ...]:
    return tuple(member(name) for name in names.split(",") if name)


def shown(found: Iterable[Member]) -> str:
    names = (
        each.node if each.data_id == f"{each.node}1" else f"{each.node}:{each.data_id}" for each in found
    )
    return ",".join(sorted(names)) or "-"


class Transcript:
    def __init__(self) -> None:
        self.now = 1_000_000
        self.machine: InSync
        self.first: Lead
        self.revision = 1

    def run(self, command: str) -> str:
        name, *words = command.split()
        options = dict(word.split("=") for word in words if "=" in word)
        plain = [word for word in words if "=" not in word]
        proposals: list[Proposal] = []
        if name == "begin":
            self.first = self._lead(options)
            self.machine = InSync(
                member("a"), self.first, int(options.get("end", "0")), int(options.get("hw", "0")), self.now
            )
        elif name == "wait":
            end = self.now + int(plain[0])
            while self.now < end:
                self.now = min(end, self.now + self.machine.next_tick_ms)
                proposals += self.machine.handle(Tick(), self.now)
        else:
            proposals = self.machine.handle(self._event(name, plain, options), self.now)
        state = self.machine
        facts = [f"hw={state.high_watermark}", f"in_sync={shown(state.in_sync)}"]
        facts += [f"eligible={shown(state.eligible)}"] if state.eligible else []
        facts += ["below-minimum"] if state.is_below_minimum else []
        facts += ["fenced"] if state.is_fenced else []
        facts += [] if state.is_confirmed else ["unconfirmed"]
        for each in proposals:
            eligible = f" eligible={shown(each.eligible)}" if each.eligible else ""
            facts.append(f"| propose {shown(each.in_sync)}{eligible} if revision={each.guard}")
        return " ".join(facts)

    def _event(self, name: str, plain: list[str], options: dict[str, str]) -> InSyncEvent:
        match name:
            case "wrote":
                return LeaderWrote(int(plain[0]))
            case "durable":
                return LeaderDurable(int(plain[0]))
            case "fetched":
                return ReplicaFetched(member(plain[0]), int(plain[1]))
            case "reported":
                return DurableReported(member(plain[0]), int(plain[1]))
            case "down" | "up":
                return LivenessReported(plain[0], name == "up", options.get("of") == "node")
            case "applied":
                return ProposalApplied(int(plain[0]))
            case "rejected":
                return ProposalRejected(
                    leader_epoch=int(options.get("epoch", "5")),
                    in_sync=members(options["in_sync"]),
                    eligible=members(options.get("eligible", "")),
                    revision=int(options["revision"]),
                )
            case "unknown":
                return ProposalUnknown()
            case "lead":
                return Reassigned(self._lead(options))
        raise AssertionError(name)

    def _lead(self, options: dict[str, str]) -> Lead:
        replicas = members(options.get("replicas", "a,b,c"))
        return Lead(
            topic="ORDERS",
            topic_id="t1",
            partition=0,
            leader_epoch=5,
            replicas={each.node: each.data_id for each in replicas},
            in_sync=members(options["in_sync"]),
            eligible=members(options.get("eligible", "")),
            min_in_sync_replicas=int(options.get("min", "2")),
            stopping=tuple(name for name in options.get("stopping", "").split(",") if name),
            down=tuple(name for name in options.get("down", "").split(",") if name),
            revision=int(options.get("revision", "1")),
        )


def transcripts() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in TRANSCRIPTS.read_text().splitlines():
        if line.startswith("#"):
            lines = found[line[1:].strip()] = []
        elif line and not line.startswith(">"):
            lines.append(line)
    return found


def played(title: str, commands: list[str]) -> str:
    transcript = Transcript()
    lines = [f"{command}\n> {transcript.run(command)}" for command in commands]
    return "\n".join([f"# {title}", *lines]) + "\n"


def test_transcripts() -> None:
    text = "\n".join(played(title, commands) for title, commands in transcripts().items())
    if os.environ.get("PLANARIA_REWRITE_TRANSCRIPTS"):
        TRANSCRIPTS.write_text(text)
    assert text == TRANSCRIPTS.read_text()


@pytest.mark.parametrize("minimum", [1, 2, 3])
def test_one_replica_alone_needs_no_other(minimum: int) -> None:
    alone = Transcript()
    state = alone.run(f"begin replicas=a in_sync=a min={minimum} end=7 hw=3")
    assert ("below-minimum" in state) == (minimum > 1)
    assert alone.machine.high_watermark == (7 if minimum == 1 else 3)


class LongWay(InSync):
    """Derives everything from the whole state after each event."""

    def _advance(self) -> None:
        self._is_whole = False
        super()._advance()


class ShortWay(InSync):
    """Counts the events after which only the high watermark was looked at."""

    taken = 0

    def _on_offset(self, event: OffsetEvent, now: int) -> None:
        self.taken += self._is_whole
        super()._on_offset(event, now)


def test_an_event_that_takes_the_short_way_does_what_it_would_do_otherwise() -> None:
    """But a lag is noticed by ticks alone."""
    taken = 0
    for seed in range(60):
        chance = random.Random(seed)
        short, long = Transcript(), Transcript()
        for each, kind in ((short, ShortWay), (long, LongWay)):
            each.run(f"begin in_sync=a,b,c min={1 + seed % 3} end=10")
            each.machine = kind(member("a"), each.first, 10, 0, each.now)
            each.machine.lag_max_ms = 10**9
        end = 10
        for _ in range(300):
            following = short.machine.revision + 1
            commands = [f"{how} {name} {end}" for how in ("fetched", "reported") for name in "bc"] * 3
            commands += [f"wrote {end + 1}", f"durable {end}", "wait 60", "down c", "up c", "fetched b 10"]
            commands += ["unknown", f"applied {following}", "lead in_sync=a,b,c stopping=b"]
            commands += [f"lead in_sync=a,b,c revision={following}"]
            commands += [f"lead replicas=a,b in_sync=a,b min={1 + seed % 3} revision={following}"]
            commands += [f"rejected in_sync=a,b eligible=c revision={following}"]
            commands += [f"rejected in_sync=a,b,c eligible=c:c2 revision={following}"]
            if chance.random() < 0.005:
                commands = [f"rejected in_sync=a,b,c epoch=6 revision={following}"]
            command = chance.choice(commands)
            end += command.startswith("wrote")
            assert short.run(command) == long.run(command), f"seed {seed}: {command}"
            for each in (short, long):
                each.now += 30  # no tick is due exactly when a grace ends
        assert isinstance(short.machine, ShortWay)
        taken += short.machine.taken
    assert taken > 1_000

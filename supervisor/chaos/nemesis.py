"""The faults of a chaos run: kind, victim and time, all drawn from the seed; and the time to recovery.

    kill        SIGKILL of one actor            freeze      SIGSTOP of one: only the missing heartbeat shows it
    pair        SIGKILL of two at once          supervisor  SIGKILL of the supervisor: its actors exit on their own
    clock       one actor's wall clock steps    clocks      that of all steps, by hours back or forward
    boot        as supervisor, and the steady clock restarts at the time of day, as when the machine boots

Each fault starts a probe in a thread of its own: the time from the signal until the victim's service answers again.
"""

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from typing import Literal

import msgspec

from ...transport.addresses import Address
from ...transport.client.descriptions import ActorStatus
from ...transport.protocol.errors import PlanariaError
from ..broker import Broker
from .clocks import Clocks
from .probes import Probes

FaultKind = Literal["kill", "freeze", "pair", "supervisor", "clock", "clocks", "boot"]
WEIGHTS: dict[FaultKind, int] = {
    "kill": 12,
    "freeze": 2,
    "pair": 4,
    "supervisor": 1,
    "clock": 3,
    "clocks": 3,
    "boot": 1,
}


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One signal and its effect; `recovery_ms` is None if the service did not recover in time."""

    at_ms: int
    kind: FaultKind
    victim: str
    pid: int
    recovery_ms: float | None


class Nemesis:
    """Draws and performs faults; `faults` holds those whose probe has ended."""

    def __init__(
        self,
        broker: Broker,
        probes: Probes,
        clocks: Clocks,
        *,
        seed: int,
        interval_s: float,
        kinds: tuple[FaultKind, ...],
        victims: tuple[str, ...] = (),
    ) -> None:
        """Strike the kinds of actors in `victims`, such as "partition"; all if empty."""
        self._broker = broker
        self._probes = probes
        self._clocks = clocks
        self._chance = random.Random(seed)
        self._interval_s = interval_s
        self._kinds = kinds
        self._victims = victims
        self._started = time.monotonic()
        self._threads: list[threading.Thread] = []
        self.faults: list[Fault] = []

    def pause_s(self) -> float:
        """Return the time to wait before the next fault."""
        return self._chance.expovariate(1 / self._interval_s)

    def strike(self) -> str:
        """Perform one fault; return its description for a person."""
        kind = self._chance.choices(self._kinds, [WEIGHTS[kind] for kind in self._kinds])[0]
        if kind == "supervisor":
            return self._strike_supervisor()
        if kind == "boot":
            return f"boot with the clock {self._clocks.boot()} h fast: {self._strike_supervisor(kind)}"
        if kind == "clocks":
            hours = self._clocks.set()
            self._watch(kind, "machine", 0, self._probes.gateway)
            return f"clocks all wrong by {hours} h"
        candidates = self._candidates()
        if not candidates:
            return f"{kind}: no actor is ready"
        victims = self._chance.sample(candidates, min(len(candidates), 2 if kind == "pair" else 1))
        if kind == "clock":
            hours = self._clocks.set(victims[0].address)
            self._watch(kind, victims[0].address, victims[0].pid or 0, self._probes.gateway)
            return f"clock {victims[0].address} wrong by {hours} h"
        for victim in victims:
            self._signal(kind, victim)
        return f"{kind} {', '.join(victim.address for victim in victims)}"

    def finish(self) -> None:
        """Wait for the probes of all faults."""
        for thread in self._threads:
            thread.join()

    def _candidates(self) -> list[ActorStatus]:
        return sorted(
            (actor for actor in self._broker.status().actors if self._is_candidate(actor)),
            key=lambda actor: actor.address,
        )

    def _is_candidate(self, actor: ActorStatus) -> bool:
        if actor.state != "ready" or actor.pid is None:
            return False
        return not self._victims or Address.parse(actor.address).kind in self._victims

    def _strike_supervisor(self, kind: FaultKind = "supervisor") -> str:
        # The process that answers is alive; the keeper's record may be of one that was just killed.
        status = self._broker.status()
        pid = status.supervisor_pid
        os.kill(pid, signal.SIGKILL)
        self._watch(kind, "supervisor", pid, lambda: self._probes.supervisor(status.instance_id))
        return f"supervisor {pid}"

    def _signal(self, kind: FaultKind, victim: ActorStatus) -> None:
        assert victim.pid is not None
        try:
            os.kill(victim.pid, signal.SIGSTOP if kind == "freeze" else signal.SIGKILL)
        except ProcessLookupError:
            return
        self._watch(kind, victim.address, victim.pid, lambda: self._probes.actor(victim))

    def _watch(self, kind: FaultKind, address: str, pid: int, probe: Callable[[], None]) -> None:
        started = time.monotonic()
        at_ms = round((started - self._started) * 1000)

        def measure() -> None:
            try:
                probe()
                recovery_ms = (time.monotonic() - started) * 1000
            except PlanariaError:
                recovery_ms = None
            self.faults.append(
                Fault(at_ms=at_ms, kind=kind, victim=address, pid=pid, recovery_ms=recovery_ms)
            )

        thread = threading.Thread(target=measure, name=f"probe-{address}", daemon=True)
        thread.start()
        self._threads.append(thread)

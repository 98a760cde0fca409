"""A mirror's process: the machine, and a client of the source whose answers wake the loop. Impure.

    loop                 control, heartbeats, the machine, appends to the partitions here
    the client's thread  the connection to the source; it posts each answer, and never waits

The client takes one call after another; every call of it is made by one effect, and every one has one outcome.
"""

import logging
from pathlib import Path
from typing import Any, ClassVar, assert_never

import msgspec

from ...transport.actor import Actor, ActorContext
from ...transport.addresses import GATEWAY
from ...transport.calls.events import Submitted
from ...transport.client.network import Network
from ...transport.event_queue import EventQueue
from ...transport.loop import run_actor
from ...transport.machine import Answered, Call, Event, Failed
from ...transport.protocol.errors import ErrorCode, PlanariaError, ProtocolError
from ...transport.protocol.message import Request
from ...transport.protocol.mirrors import DescribeMirror, MirrorSpec
from ...transport.security.client_credentials import credentials_from
from .effects import AskSource, OwnEffect, OwnEvent, SourceAnswered, SourceFailed, Started
from .figures import gauges_of
from .machine import MirrorMachine

_log = logging.getLogger("planaria.mirror")


class MirrorArguments(msgspec.Struct):
    mirror: str
    spec: MirrorSpec
    version: int = 1


class _Outcomes(EventQueue[Event]):
    """The owner of every call of the client: outcomes go from its thread to the loop."""

    def handle(self, event: Event, now: int) -> list[Any]:
        self.post(event)
        return []


class MirrorProcess(Actor[OwnEvent, OwnEffect]):
    follows_wall_clock: ClassVar[bool] = True
    requests: ClassVar[tuple[type[Request], ...]] = (DescribeMirror,)
    machine: MirrorMachine

    def __init__(self, context: ActorContext) -> None:
        super().__init__(context)
        self._arguments = msgspec.convert(context.arguments, MirrorArguments)
        self.machine = MirrorMachine(self._arguments.mirror, self._arguments.spec)
        self._outcomes = _Outcomes()
        self._network: Network | None = None

    def start(self) -> None:
        self.loop.watch(self._outcomes.fileno(), self._take_outcomes)
        self.loop.dispatch(Started())

    def _connect(self) -> Network:
        """Connect to the source in the background. Raises PlanariaError or OSError if its credentials cannot be used."""
        spec = self._arguments.spec
        return Network(
            spec.source,
            client_id=f"mirror/{self._arguments.mirror}",
            metadata_timeout_ms=1_000,
            credentials=credentials_from(
                key=spec.key_file or None,
                server_key=spec.server_key or None,
                user=spec.user or None,
                password=_secret(spec.password_file),
                token=_secret(spec.token_file),
            ),
        )

    def perform(self, effect: OwnEffect) -> None:
        match effect:
            case AskSource():
                self._ask(effect)
            case _:
                assert_never(effect)

    def _ask(self, ask: AskSource) -> None:
        if self._network is None:
            # The files of the credentials may be missing or wrong, until an operator has mended that.
            try:
                self._network = self._connect()
            except (PlanariaError, OSError, UnicodeDecodeError) as error:
                refusal = ProtocolError(ErrorCode.UNAUTHENTICATED, str(error), retriable=True)
                self.loop.dispatch(SourceFailed(ask.key, refusal.body))
                return
        call = Call(ask.key, GATEWAY, ask.request, ask.reply_type, timeout_ms=ask.timeout_ms)
        self._network.post(self._network.owner, Submitted(self._outcomes, call))

    def _take_outcomes(self) -> None:
        for event in self._outcomes.take():
            match event:
                case Answered():
                    self.loop.dispatch(SourceAnswered(event.key, event.reply, event.payload))
                case Failed():
                    self.loop.dispatch(SourceFailed(event.key, event.error))
                case _:
                    raise AssertionError(event)

    def gauges(self) -> dict[str, int]:
        return gauges_of(self.machine.report(self.loop.now))

    def close(self) -> None:
        if self._network is not None:
            self._network.close()


def _secret(file: str) -> str | None:
    return Path(file).read_text(encoding="utf-8").strip() if file else None


def main(context: ActorContext) -> None:
    run_actor(MirrorProcess(context), context)

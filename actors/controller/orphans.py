"""Children that the catalog does not call for: asked for once at the start, and stopped. Pure.

A controller that dies between a durable deletion and its order to stop leaves a process behind, and nothing in the
catalog tells its successor of it. So that one compares what runs with what must, and repeats nothing that may be lost.

    asking --answered--> what neither the durable nor the latest catalog knows is ordered to stop
    asking --failed--> waiting --timer--> asking
"""

from ...transport.addresses import SUPERVISOR
from ...transport.machine import Call, Effect, SetTimer
from ...transport.protocol.operations import Status, StatusReply
from .child_commands import ChildCommands
from .children import all_specs
from .decisions import Decisions
from .effects import RETRY_MS

KEY = ("strays",)
TIMEOUT_MS = 10_000
KINDS = frozenset({"partition", "coordinator", "scheduler", "transactions"})
"""Of these the catalog says which must run; others have somebody else to start and stop them."""


class Orphans:
    def __init__(self, decisions: Decisions, commands: ChildCommands) -> None:
        self._decisions = decisions
        self._commands = commands

    def ask(self) -> list[Effect]:
        return [Call(KEY, SUPERVISOR, Status(), StatusReply, timeout_ms=TIMEOUT_MS)]

    def on_failed(self, now: int) -> list[Effect]:
        return [SetTimer(KEY, now + RETRY_MS)]

    def on_answered(self, reply: StatusReply) -> list[Effect]:
        """The answer is older than what was decided meanwhile, which may not be durable yet: both have a say."""
        catalogs = (self._decisions.durable, self._decisions.latest)
        called_for = {spec.address for catalog in catalogs for spec in all_specs(catalog)}
        orphans = [
            actor.address
            for actor in reply.actors
            if actor.address.partition("/")[0] in KINDS
            and actor.address not in called_for
            and not self._commands.is_open(actor.address)
        ]
        return self._commands.stop(orphans)

"""The subscriber processes of an application: their child specs, their start, and their replacement one by one. Impure.

A subscription's processes are numbered within its group. Their addresses, with this worker's identity, make them static
members of the group: a process that is replaced keeps its partitions, and its successor continues with the same ones, so
that a key is never handled by two versions at once. Called by run.py, in its thread; after a restart of the supervisor by
the keeper's.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable

from ...transport.addresses import Address
from ...transport.application import AppDescription
from ...transport.client.descriptions import ActorStatus
from ...transport.protocol.control import ChildSpec
from ...transport.protocol.errors import ErrorCode, PlanariaError, ProtocolError
from ...transport.subscription import HandlerSource, SubscriberOptions, child_spec
from ..hosted import SUBSCRIBER_ENTRY
from ..keeper import SupervisorKeeper
from .options import WorkerOptions

READY_TIMEOUT_S = 60.0
"""Time for a process to stop its predecessor, import the application and become ready."""
POLL_S = 0.05


class ProcessFailed(PlanariaError):
    """A process did not become ready; the message gives the reason."""


class Fleet:
    def __init__(
        self,
        keeper: SupervisorKeeper,
        options: WorkerOptions,
        identity: str,
        is_stopping: Callable[[], bool],
    ) -> None:
        self._keeper = keeper
        self._options = options
        self._identity = identity
        self._is_stopping = is_stopping
        self._specs: dict[Address, ChildSpec] = {}
        self._version = 0
        self._lock = threading.Lock()
        keeper.on_restart(self._install_again)

    def run(self, app: AppDescription) -> None:
        """Run this version of the application, in place of the one before; returns when all processes are ready.

        New processes are started together, existing ones are replaced one after another. Raises ProcessFailed for the
        first that does not become ready; the remaining ones then keep running their version.
        """
        self._version += 1
        wanted = {spec.address: spec for spec in self._specs_of(app)}
        gone = [spec for address, spec in self._specs.items() if address not in wanted]
        with self._lock:
            for spec in gone:
                del self._specs[spec.address]
        if gone:
            self._ask(lambda link: link.stop_children(gone))
        for address in [address for address in wanted if address in self._specs]:
            before = self._incarnation_of(address)
            with self._lock:
                self._specs[address] = wanted[address]
            self._ask(lambda link, spec=wanted[address]: link.replace_child(spec))
            self._await_ready({address: before})
        new = {address: spec for address, spec in wanted.items() if address not in self._specs}
        with self._lock:
            self._specs.update(new)
        self._ask(lambda link: [link.start_child(spec) for spec in new.values()])
        self._await_ready(dict.fromkeys(new, 0))

    @property
    def processes(self) -> int:
        return len(self._specs)

    def _specs_of(self, app: AppDescription) -> Iterable[ChildSpec]:
        numbers: Counter[str] = Counter()
        for subscription in app.subscriptions:
            options = SubscriberOptions(
                group=subscription.group,
                topics=subscription.topics,
                handler=HandlerSource(path=self._options.app, member=subscription.name),
                endpoint=self._options.endpoint,
                sys_path=self._options.folders,
                identity=self._identity,
                version=self._version,
                **subscription.options,
            )
            for _ in range(subscription.workers or self._options.processes):
                numbers[subscription.group] += 1
                yield child_spec(options, numbers[subscription.group], SUBSCRIBER_ENTRY)

    def _install_again(self) -> None:
        """Start all of them in a new supervisor."""
        with self._lock:
            specs = list(self._specs.values())
        with self._keeper.link() as link:
            for spec in specs:
                link.start_child(spec)

    def _ask(self, order: Callable[..., object]) -> None:
        """Give an order to the supervisor. One that has ended needs none: its successor starts the present specs."""
        try:
            with self._keeper.link() as link:
                order(link)
        except ProtocolError as error:
            if error.code not in (ErrorCode.ACTOR_UNAVAILABLE, ErrorCode.SHUTTING_DOWN):
                raise

    def _incarnation_of(self, address: Address) -> int:
        return next((each.incarnation for each in self._actors() if each.address == address), 0)

    def _actors(self) -> list[ActorStatus]:
        found: list[ActorStatus] = []
        self._ask(lambda link: found.extend(link.status().actors))
        return found

    def _await_ready(self, replaced: dict[Address, int]) -> None:
        """Wait until a later incarnation of each address is ready."""
        waiting, pid = dict(replaced), self._keeper.started.pid
        deadline = time.monotonic() + READY_TIMEOUT_S
        while waiting and not self._is_stopping():
            if self._keeper.started.pid != pid:  # a new supervisor counts incarnations anew
                waiting, pid = dict.fromkeys(waiting, 0), self._keeper.started.pid
            for actor in self._actors():
                before = waiting.get(Address.parse(actor.address))
                if before is None or actor.incarnation <= before:
                    continue
                if actor.state == "quarantined":
                    raise ProcessFailed(f"{actor.address} cannot start: {actor.reason}")
                if actor.state == "ready":
                    del waiting[Address.parse(actor.address)]
            if time.monotonic() > deadline:
                raise ProcessFailed(f"{', '.join(sorted(waiting))}: not ready in {READY_TIMEOUT_S:.0f} s")
            time.sleep(POLL_S)

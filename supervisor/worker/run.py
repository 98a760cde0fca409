"""The life of a worker: it describes the application, checks it at the broker, and runs its processes. Impure.

    SIGTERM, SIGINT   running handlers finish, offsets are committed, the members leave their groups
    SIGHUP            the processes are replaced one by one by processes of the present code
    a watched file    the same, when the worker watches

A reload that fails changes nothing, or leaves the processes not yet replaced as they are: the old code goes on.
"""

import logging
import os
import queue
import signal
import threading
import time
import uuid
from pathlib import Path
from typing import Any, Literal

import msgspec

from ...transport.application import AppDescription
from ...transport.client.client import Client
from ...transport.client.configuration import options_for
from ...transport.client.errors import TimedOut
from ...transport.periodic import next_tick, schedule_tick
from ...transport.protocol.errors import PlanariaError
from .. import config as configuration
from .. import logs
from ..data_directory import replace_file
from ..hosted import check_named
from ..keeper import SupervisorKeeper
from .description import ApplicationUnusable, describe
from .fleet import Fleet
from .options import WorkerOptions
from .watching import FileWatch

WATCH_S = 0.5
BROKER_LOG_S = 10.0
"""Time between two lines about a broker that does not answer yet."""

Order = Literal["stop", "reload"]
_log = logging.getLogger("planaria.worker")


class _Identity(msgspec.Struct):
    id: str


def run_worker(options: WorkerOptions) -> None:
    """Run a worker until it is stopped. Raises PlanariaError, StartFailed or ConfigError when it cannot start."""
    logs.set_up(options.log_level, options.log_format, "worker", os.getpid())
    Worker(options).run()


class Worker:
    def __init__(self, options: WorkerOptions) -> None:
        self._options = options
        self._orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
        self._is_stopping = threading.Event()
        self._files = FileWatch()

    def run(self) -> None:
        self._listen_to_signals()
        app = self._describe()
        if app is None:
            return
        with Client(self._options.endpoint, client_id="worker", **self._credentials()) as client:
            if not self._await_broker(client):
                return
            self._prepare(client, app)
            keeper = SupervisorKeeper(self._configuration(), role="worker")
            try:
                fleet = Fleet(
                    keeper, self._options, identity_in(Path(self._options.data)), self._is_stopping.is_set
                )
                fleet.run(app)
                logs.event(
                    _log, logging.INFO, "worker ready", app=self._options.app, processes=fleet.processes
                )
                self._serve(client, fleet)
                logs.event(_log, logging.INFO, "worker stopping", app=self._options.app)
            finally:
                keeper.close()

    def _credentials(self) -> dict[str, Any]:
        return options_for(self._options.endpoint, os.environ)

    def _serve(self, client: Client, fleet: Fleet) -> None:
        while self._next_order() == "reload":
            try:
                app = self._describe()
                if app is None:
                    return
                self._prepare(client, app)
                fleet.run(app)
            except PlanariaError as error:
                trace = getattr(error, "traceback", "") or None
                logs.event(_log, logging.ERROR, "reload failed", reason=str(error), traceback=trace)
            else:
                logs.event(_log, logging.INFO, "reloaded", app=self._options.app, processes=fleet.processes)

    def _next_order(self) -> Order:
        while True:
            try:
                return "stop" if self._is_stopping.is_set() else self._orders.get(timeout=WATCH_S)
            except queue.Empty:
                if self._options.is_watching and self._files.changed():
                    return "reload"

    def _describe(self) -> AppDescription | None:
        """Return the description of the application, None at a stop."""
        found = describe(self._options.app, self._options.folders, self._is_stopping.is_set)
        if found is None:
            return None
        app, files = found
        self._files.follow(files)
        if not app.subscriptions:
            raise ApplicationUnusable(f"{self._options.app} has no subscriptions")
        return app

    def _await_broker(self, client: Client) -> bool:
        """Return True once the broker has answered, False at a stop."""
        told_s = 0.0
        while not self._is_stopping.is_set():
            try:
                client.wait_for_broker(WATCH_S)
            except TimedOut as error:
                if time.monotonic() > told_s + BROKER_LOG_S:
                    logs.event(_log, logging.WARNING, "waiting for the broker", reason=error.message)
                    told_s = time.monotonic()
            else:
                return True
        return False

    def _prepare(self, client: Client, app: AppDescription) -> None:
        """Check the named topics and groups; schedule the next run of each periodic function."""
        if app.periodic_topic is not None:
            client.create_topic(app.periodic_topic, 1, if_not_exists=True)
        for subscription in app.subscriptions:
            dead_letter = subscription.options.get("dead_letter")
            check_named(
                client,
                subscription.group,
                subscription.topics,
                dead_letter,
                has_credentials=bool(self._credentials()),
            )
        for name, period_ms in app.periods_ms.items():
            assert app.periodic_topic is not None
            tick = next_tick(name, period_ms, time.time_ns() // 1_000_000)
            schedule_tick(
                tick,
                app.periodic_topic,
                lambda topic, value, key, at_ms, scheduled_id: client.publish(
                    topic, value, key=key, deliver_at=at_ms, scheduled_id=scheduled_id
                ),
            )

    def _configuration(self) -> configuration.BrokerConfig:
        options = self._options
        return configuration.load(
            {"data": options.data, "log_level": options.log_level, "log_format": options.log_format}
        )

    def _listen_to_signals(self) -> None:
        # Handlers only put into a queue that is safe there; the loop in `_serve` acts.
        signal.signal(signal.SIGHUP, lambda *_: self._orders.put("reload"))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)

    def _on_stop(self, *_: object) -> None:
        self._is_stopping.set()
        self._orders.put("stop")


def identity_in(data: Path) -> str:
    """Return the name by which this worker's processes are told from those of others; the same after a restart."""
    file = data / "worker.json"
    try:
        return msgspec.json.decode(file.read_bytes(), type=_Identity).id
    except msgspec.MsgspecError as error:
        raise configuration.ConfigError(f"{file} is damaged: {error}") from error
    except FileNotFoundError:
        identity = _Identity(uuid.uuid4().hex[:12])
        replace_file(file, msgspec.json.encode(identity))
        return identity.id

"""Hosted subscriptions of an embedded broker: handlers that run in supervised processes of their own.

Owns the child specs it has installed, and reinstalls them after a restart of the supervisor, which does not persist
them. Pickles handlers and never unpickles one. Called by Broker.
"""

import importlib.util
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..transport.addresses import Address, subscriber_address
from ..transport.client.client import Client
from ..transport.client.descriptions import ActorStatus
from ..transport.protocol.control import ChildSpec
from ..transport.protocol.errors import ErrorCode, PlanariaError, ProtocolError
from ..transport.subscription import (
    InvalidSubscription,
    SubscriberOptions,
    check_enforceable,
    child_spec,
    options_of,
    source_of,
)
from .keeper import SupervisorKeeper

SUBSCRIBER_ENTRY = f"{(__package__ or '').partition('.')[0]}.actors.subscriber.process:main"
READY_TIMEOUT_S = 30.0
STATUS_POLL_S = 0.02


class SubscriptionFailed(PlanariaError):
    """A hosted subscriber did not start; the message gives the reason."""


def _check_handler(handler: Callable[..., object] | str) -> None:
    """Refuse a handler that no process could run. Raises InvalidSubscription."""
    if isinstance(handler, str):
        module = handler.partition(":")[0]
        try:
            is_found = importlib.util.find_spec(module) is not None
        except (ImportError, ValueError):
            is_found = False
        if not is_found:
            raise InvalidSubscription(f"handler: there is no module {module!r} on this program's path")


def check_named(
    client: Client, group: str, topics: list[str], dead_letter: str | None, *, has_credentials: bool = False
) -> None:
    """Check that the named topics exist and are suitable when a subscription begins. Raises InvalidSubscription."""
    known = {summary.topic for summary in client.list_topics()}
    named = [*(("topics", topic) for topic in topics), ("dead_letter", dead_letter)]
    for option, topic in named:
        if topic is not None and topic not in known:
            unseen = ", or none that these credentials may see" if has_credentials else "; create it first"
            raise InvalidSubscription(f"{option}: there is no topic {topic!r}{unseen}")
    try:
        kind = client.describe_group(group).type
    except ProtocolError as error:
        if error.code == ErrorCode.UNKNOWN_GROUP or error.retriable:
            return  # the members create it, or detect the error
        raise
    if kind == "share":
        raise InvalidSubscription(
            f"group: {group!r} is a share group, whose members acquire records; use share_consumer"
        )


class Subscription:
    """The processes of one `subscribe` call."""

    def __init__(self, hosted: "HostedSubscriptions", addresses: list[Address]) -> None:
        self._hosted = hosted
        self.addresses = addresses
        """Actor addresses, as used by `status` and `kill`."""

    def stop(self) -> None:
        """Let handlers finish, commit, leave the group, end the processes."""
        self._hosted.remove(self.addresses)


class HostedSubscriptions:
    """Installs subscribers through the supervisor's own endpoint."""

    def __init__(self, keeper: SupervisorKeeper, client: Client) -> None:
        self._keeper = keeper
        self._client = client
        self._specs: dict[Address, ChildSpec] = {}
        self._lock = threading.Lock()
        keeper.on_restart(self._install_again)

    def install(
        self,
        group: str,
        topics: list[str],
        handler: Callable[..., object] | str,
        workers: int,
        endpoint: str,
        options: dict[str, Any],
    ) -> Subscription:
        """Start `workers` members of `group`; returns once all are ready.

        Raises InvalidSubscription for wrong options, SubscriptionFailed when a process cannot start.
        """
        count: object = workers
        if not isinstance(count, int) or count < 1:
            raise InvalidSubscription(f"workers: must be at least 1, not {workers!r}")
        subscriber = SubscriberOptions(
            group=group,
            topics=topics,
            handler=source_of(handler),
            endpoint=endpoint,
            sys_path=[os.path.abspath(path) for path in sys.path if path],
            **options_of(options),
        )
        check_enforceable(
            subscriber,
            is_linux=sys.platform == "linux",
            has_thread_clocks=hasattr(time, "pthread_getcpuclockid"),
        )
        check_named(self._client, group, topics, subscriber.dead_letter)
        _check_handler(handler)
        with self._lock:
            numbers = self._free_numbers(group, workers)
            specs = [child_spec(subscriber, number, SUBSCRIBER_ENTRY) for number in numbers]
            addresses = [spec.address for spec in specs]
            self._specs.update((spec.address, spec) for spec in specs)
            # After the supervisor has ended, the keeper installs them in its successor.
            with self._unless_gone():
                self._start_new(specs)
        self._await_ready(addresses)
        return Subscription(self, addresses)

    def remove(self, addresses: list[Address]) -> None:
        with self._lock:
            known = [self._specs.pop(address) for address in addresses if address in self._specs]
            # They end with a supervisor that ends, and its successor does not install them.
            with self._unless_gone(), self._keeper.link() as link:
                link.stop_children(known)

    def _free_numbers(self, group: str, count: int) -> list[int]:
        free = (
            number for number in itertools.count(1) if subscriber_address(group, number) not in self._specs
        )
        return list(itertools.islice(free, count))

    def _install_again(self) -> None:
        with self._lock:
            self._start(list(self._specs.values()))

    def _start_new(self, specs: list[ChildSpec]) -> None:
        """Start all of them, or none if the machine lacks the capacity for all. Raises SubscriptionFailed."""
        with self._keeper.link() as link:
            try:
                for spec in specs:
                    link.start_child(spec, must_fit=True)
            except ProtocolError as error:
                if error.code != ErrorCode.LIMIT_REACHED:
                    raise
                for spec in specs:
                    del self._specs[spec.address]
                link.stop_children(specs)
                raise SubscriptionFailed(str(error)) from error

    def _start(self, specs: list[ChildSpec]) -> None:
        with self._keeper.link() as link:
            for spec in specs:
                link.start_child(spec)

    @staticmethod
    @contextmanager
    def _unless_gone() -> Iterator[None]:
        try:
            yield
        except ProtocolError as error:
            if error.code not in (ErrorCode.ACTOR_UNAVAILABLE, ErrorCode.SHUTTING_DOWN):
                raise

    def _await_ready(self, addresses: list[Address]) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        waiting = set(addresses)
        while waiting:
            actors: list[ActorStatus] = []
            with self._unless_gone(), self._keeper.link() as link:
                actors = link.status().actors
            for actor in actors:
                if actor.address in waiting and self._is_settled(actor, addresses):
                    waiting.discard(actor.address)
            if time.monotonic() > deadline:
                self.remove(addresses)
                raise SubscriptionFailed(
                    f"{', '.join(sorted(waiting))}: not ready in {READY_TIMEOUT_S:.0f} s"
                )
            time.sleep(STATUS_POLL_S)

    def _is_settled(self, actor: ActorStatus, addresses: list[Address]) -> bool:
        if actor.state == "quarantined":
            self.remove(addresses)
            raise SubscriptionFailed(f"{actor.address} cannot start: {actor.reason}")
        return actor.state == "ready"


__all__ = ["HostedSubscriptions", "InvalidSubscription", "Subscription", "SubscriptionFailed"]

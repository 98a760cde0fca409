"""`planaria.testing`: fixtures for pytest, and the objects that a handler is called with, for tests without a broker.

    pytest_plugins = ["planaria.testing"]       in conftest.py

One broker serves all tests of a session, and is emptied after each. Each worker of
pytest-xdist is a session of its own, with its own broker, port and directory. Never used by the broker itself.
"""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Self, Unpack

import pytest

from .supervisor.broker import Broker
from .supervisor.hosted import Subscription
from .transport.batch import Headers
from .transport.client.client import Client
from .transport.client.content import encode_key, encode_value
from .transport.client.errors import GroupNotEmpty, UnknownGroup, UnknownTopic
from .transport.client.messages import Message
from .transport.client.options import Duration
from .transport.client.schedule import milliseconds_at, milliseconds_of
from .transport.clock import REHEARSAL, ahead_file
from .transport.context import Context
from .transport.keywords import BrokerSettings
from .transport.protocol.errors import ErrorCode, ProtocolError

__all__ = ["FakeContext", "TestBroker", "message", "planaria_broker", "planaria_client", "planaria_settings"]

MOVED = ("scheduler", "subscriber", "coordinator")
"""The kinds of actors whose time `advance` moves."""
SETTINGS: BrokerSettings = {
    "heartbeat_interval_ms": 100,
    "hang_timeout_ms": 60_000,
    "topic_defaults": {"flush": "os", "max_timestamp_ahead_ms": -1},
}
"""Settings of the broker of the tests. No test cuts the power, so nothing waits for the disk; and a message that is
delivered after the time has been moved has a timestamp that lies ahead."""
LEAVE_S = 10.0
"""Time for which the members of a group may take to leave after a test."""


def message(
    value: Any,
    *,
    key: bytes | str | None = None,
    headers: Headers | None = None,
    topic: str = "TEST",
    partition: int = 0,
    offset: int = 0,
    timestamp_ms: datetime | int | None = None,
) -> Message:
    """Return a message as a consumer or a handler gets it, after a `publish` with these arguments.

        charge(message({"amount": 100}, key="order-1"), context)

    Raises InvalidOption as `publish` does.
    """
    at_ms = time.time_ns() // 1_000_000 if timestamp_ms is None else milliseconds_at(timestamp_ms)
    data, stored = encode_value(value, headers)
    return Message(topic, partition, offset, encode_key(key), data, at_ms, stored)


class FakeContext(Context):
    """The context of a call of a handler, without a broker: it keeps the published messages.

    context = FakeContext()
    charge(message({"amount": 100}), context)
    assert [each.data for each in context.published] == [{"paid": 100}]
    """

    __slots__ = ()

    def __init__(self, received: Message | None = None) -> None:
        """Make a context whose `message` is `received`."""
        super().__init__(lambda _: None, received)

    @property
    def published(self) -> list[Message]:
        """The messages that the handler has published, in order: their offsets count from 0, a partition that was not
        given is 0."""
        return [
            Message(
                each.topic,
                each.partition or 0,
                offset,
                each.key,
                each.value,
                each.timestamp_ms or 0,
                each.headers,
            )
            for offset, each in enumerate(self._published)
        ]


class TestBroker(Broker):
    """A broker for tests: its time can be moved, and everything in it removed."""

    __test__ = False  # no class of tests

    def __init__(self, folder: Path, **settings: Unpack[BrokerSettings]) -> None:
        """Start a broker with a data directory in `folder`. `settings` replace those of SETTINGS."""
        self._clocks = folder / "clocks"
        self._clocks.mkdir(parents=True)
        self._ahead_ms = 0
        self._subscriptions: list[Subscription] = []
        before = os.environ.get(REHEARSAL)
        os.environ[REHEARSAL] = str(self._clocks)  # the processes of the broker inherit it
        try:
            super().__init__(folder / "data", **_merged(settings))
        finally:
            if before is None:
                del os.environ[REHEARSAL]
            else:
                os.environ[REHEARSAL] = before

    def advance(self, by: Duration) -> None:
        """Move the time of delays and retries forward by seconds or a timedelta, for the life of the broker.

            broker.publish("REMINDERS", None, b"pay", delay=3_600)
            broker.advance(timedelta(hours=1))

        Messages that are due then are delivered, hosted handlers are called again, and work queues give records whose
        delay or lock is over, within moments. Sessions of groups, transactions, retention of messages and the clocks of
        clients do not move. Raises InvalidOption.
        """
        self._ahead_ms += milliseconds_of(by)
        for kind in MOVED:
            path = self._clocks / ahead_file(kind)
            aside = path.with_suffix(".new")
            aside.write_text(str(self._ahead_ms))
            aside.rename(path)

    def subscribe(self, *args: Any, **kwargs: Any) -> Any:
        """As `Broker.subscribe`; a hosted subscription is stopped at the end of the test."""
        found = super().subscribe(*args, **kwargs)
        if found is not None:
            self._subscriptions.append(found)
        return found

    def clean(self) -> None:
        """Stop the hosted subscriptions; remove mirrors, topics, delayed messages, groups, quotas and named consumers."""
        while self._subscriptions:
            self._subscriptions.pop().stop()
        while self._consumers:
            self._consumers.popitem()[1].consumer.close()
        for mirror in self.list_mirrors():
            self.delete_mirror(mirror.mirror)
        for summary in self.list_topics():
            with suppress(UnknownTopic):
                self.delete_topic(summary.topic)
        # Of a deleted topic as well: a delayed message goes to the topic that has the name when it is due.
        while waiting := self.list_scheduled():
            for each in waiting:
                self._cancel_unless_delivered(each.scheduled_id)
        for group in self.list_groups():
            self._delete_once_empty(group)
        for client_id in self.list_quotas():
            self.remove_quota(client_id)

    def _cancel_unless_delivered(self, scheduled_id: str) -> None:
        try:
            self.cancel_scheduled(scheduled_id)
        except ProtocolError as error:
            if error.code != ErrorCode.UNKNOWN_SCHEDULED_ID:
                raise

    def _delete_once_empty(self, group: str) -> None:
        """Delete a group once the members that the test has left open are gone."""
        until = time.monotonic() + LEAVE_S
        while True:
            try:
                self.delete_group(group)
                return
            except UnknownGroup:
                return
            except GroupNotEmpty:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)

    def __enter__(self) -> Self:
        return self


def _merged(settings: BrokerSettings) -> BrokerSettings:
    merged = SETTINGS.copy()
    merged.update(settings)
    return merged


@pytest.fixture(scope="session")
def planaria_settings() -> BrokerSettings:
    """Settings of the broker beside SETTINGS; a conftest.py may define its own fixture of this name."""
    return {}


@pytest.fixture(scope="session")
def _planaria_session_broker(
    tmp_path_factory: pytest.TempPathFactory, planaria_settings: BrokerSettings
) -> Iterator[TestBroker]:
    with TestBroker(tmp_path_factory.mktemp("planaria"), **planaria_settings) as broker:
        yield broker


@pytest.fixture
def planaria_broker(_planaria_session_broker: TestBroker) -> Iterator[TestBroker]:
    """The broker of the session, empty. It is emptied again after the test."""
    yield _planaria_session_broker
    _planaria_session_broker.clean()


@pytest.fixture
def planaria_client(planaria_broker: TestBroker) -> Iterator[Client]:
    """A client of `planaria_broker`, which is closed with its producers and consumers at the end of the test."""
    with Client(planaria_broker.endpoint) as client:
        yield client

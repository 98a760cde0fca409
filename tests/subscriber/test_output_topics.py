"""Missing output topics of handlers: refused at once, reported once, used as soon as they exist."""

import pytest

from planaria.actors.subscriber.output_topics import ALARM_S, OutputTopics
from planaria.transport.client.errors import UnknownTopic
from planaria.transport.protocol.errors import ErrorCode, ProtocolError
from planaria.transport.publication import Publication

MESSAGE = Publication("OUT", b"x")


class World:
    def __init__(self) -> None:
        self.now_s = 0.0
        self.known: dict[str, int] = {}
        self.asked = 0
        self.topics = OutputTopics(self._check, self.known.get, lambda: self.now_s)

    def _check(self, message: Publication) -> None:
        self.asked += 1
        if message.topic not in self.known:
            raise UnknownTopic(message.topic)
        if message.size_bytes > 100:
            raise ProtocolError(ErrorCode.MESSAGE_TOO_LARGE, "too large")


def test_the_wait_for_a_missing_topic_is_paid_once() -> None:
    world = World()
    for _ in range(10):
        with pytest.raises(UnknownTopic):
            world.topics.check(MESSAGE)
    assert world.asked == 1
    assert world.topics.alarms() == ("output topic 'OUT' does not exist",)


def test_a_topic_is_used_as_soon_as_the_directory_has_it() -> None:
    world = World()
    with pytest.raises(UnknownTopic):
        world.topics.check(MESSAGE)
    world.known["OUT"] = 1
    world.topics.check(MESSAGE)
    assert world.topics.alarms() == ()
    del world.known["OUT"]
    with pytest.raises(UnknownTopic):
        world.topics.check(MESSAGE)
    assert world.asked == 3, "it may have been created a moment ago"


def test_the_alarm_ends_when_nobody_publishes_there_any_more() -> None:
    world = World()
    with pytest.raises(UnknownTopic):
        world.topics.check(MESSAGE)
    world.now_s = ALARM_S
    assert world.topics.alarms()
    world.now_s += 1
    assert not world.topics.alarms()


def test_other_refusals_are_no_alarm() -> None:
    world = World()
    world.known["OUT"] = 1
    with pytest.raises(ProtocolError):
        world.topics.check(Publication("OUT", b"x" * 1_000))
    assert world.topics.alarms() == ()

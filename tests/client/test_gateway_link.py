"""Search of a gateway whose host is a name: every address, and changed addresses later."""

import pytest

from exchange_driver import Wire
from planaria.transport.calls.events import Disconnected, Resolved
from planaria.transport.machine import Failed
from planaria.transport.protocol.session import Hello
from planaria.transport.protocol.topics import ListTopics

NAMED = "tcp://broker.test:5570"
FIRST, SECOND, MOVED = "tcp://10.0.0.1:5570", "tcp://[fd00::2]:5570", "tcp://10.0.0.3:5570"


@pytest.fixture
def wire() -> Wire:
    found = Wire(door=NAMED)
    assert found.lookups == [NAMED]
    assert found.routes == {}
    return found


def test_an_address_that_refuses_is_followed_by_the_next(wire: Wire) -> None:
    wire.ask_gateway()
    wire.feed(Resolved((FIRST, SECOND)))
    assert list(wire.routes) == [FIRST]
    wire.take(Hello)
    wire.feed(Disconnected(FIRST, is_refused=True))
    assert list(wire.routes) == [SECOND]
    wire.greet()
    (send,) = wire.take(ListTopics)
    assert send.route == wire.routes[SECOND]


def test_an_address_that_does_not_answer_is_followed_by_the_next(wire: Wire) -> None:
    wire.feed(Resolved((FIRST, SECOND)))
    wire.take(Hello)
    wire.fire("hello")
    assert list(wire.routes) == [SECOND]
    wire.greet()


def test_when_no_address_leads_to_a_broker_the_name_is_looked_up_again_with_growing_pauses(
    wire: Wire,
) -> None:
    for round_number, pause_ms in enumerate((10, 20, 40), 1):
        wire.feed(Resolved((FIRST, SECOND)))
        wire.feed(Disconnected(FIRST, is_refused=True))
        wire.feed(Disconnected(SECOND, is_refused=True))
        assert wire.routes == {}
        assert wire.timers["dial"] == wire.now + pause_ms
        wire.fire("dial")
        assert len(wire.lookups) == round_number + 1
    wire.take(Hello)
    wire.feed(Resolved((MOVED,)))
    wire.greet()
    assert list(wire.routes) == [MOVED]


def test_a_greeting_that_is_overdue_while_the_name_is_looked_up_changes_nothing(wire: Wire) -> None:
    wire.feed(Resolved((FIRST,)))
    wire.feed(Disconnected(FIRST, is_refused=True))
    wire.fire("hello")
    assert wire.routes == {}
    assert len(wire.lookups) == 1


def test_a_lost_connection_has_the_name_looked_up_at_once(wire: Wire) -> None:
    wire.feed(Resolved((FIRST, SECOND)))
    wire.greet()
    wire.ask_gateway()
    wire.take(ListTopics)
    wire.feed(Disconnected(FIRST))
    assert wire.routes == {}
    assert wire.lookups == [NAMED, NAMED]
    assert wire.take(ListTopics) == []
    wire.feed(Resolved((MOVED,)))
    wire.greet()
    (again,) = wire.take(ListTopics)
    assert again.route == wire.routes[MOVED]


def test_a_name_server_that_is_down_is_waited_for_and_named_in_the_error(wire: Wire) -> None:
    wire.ask_gateway("late", timeout_ms=50)
    wire.feed(Resolved(fault="'broker.test' cannot be looked up: Temporary failure in name resolution"))
    wire.fire(wire.serial(key="late"))
    (failed,) = wire.owner.heard
    assert isinstance(failed, Failed)
    assert "no broker answers at tcp://broker.test:5570: 'broker.test' cannot be" in failed.error.message
    wire.fire("dial")
    wire.feed(Resolved((FIRST,)))
    wire.greet()

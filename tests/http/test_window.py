"""The bridge's requests at the gateway: at most a number of them at once, and each address has its turn."""

import pytest

from planaria.actors.http.window import MAX_BEGUN, PATIENCE_MS, Window


@pytest.fixture
def window() -> Window:
    window = Window()
    for number in range(MAX_BEGUN):
        assert window.enter(number, "busy", 0)
    return window


def test_one_answer_begins_one_request(window: Window) -> None:
    assert not window.enter(100, "a", 0)
    assert window.next() is None
    window.leave(0, "busy")
    assert window.next() == 100
    window.leave(100, "a")
    assert window.next() is None
    assert window.enter(101, "a", 0)


def test_addresses_take_turns(window: Window) -> None:
    for number in range(100, 110):
        window.enter(number, "busy", 0)
    window.enter(200, "other", 0)
    window.enter(201, "other", 0)
    begun = []
    for number in range(5):
        window.leave(number, "busy")
        begun.append(window.next())
    assert begun == [100, 200, 101, 201, 102]


def test_a_client_that_goes_gives_up_its_place_and_its_wait(window: Window) -> None:
    window.enter(100, "a", 0)
    window.enter(101, "a", 0)
    window.leave(100, "a")
    assert window.next() is None
    window.leave(0, "busy")
    assert window.next() == 101


def test_a_gateway_that_is_away_keeps_no_request_waiting(window: Window) -> None:
    window.enter(100, "a", 0)
    window.enter(101, "b", 1)
    assert window.overdue(PATIENCE_MS - 1) == []
    assert window.overdue(PATIENCE_MS) == [100]
    assert window.overdue(PATIENCE_MS + 1) == [101]
    window.leave(0, "busy")
    assert window.next() is None, "there are still more than the limit"

"""Where the calls of an exchange are, as its properties need it: none may be where nothing moves it on."""

from planaria.transport.calls.exchange import Exchange


def check_places(exchange: Exchange, open_routes: set[bytes]) -> None:
    """Each call is either held, or waits for its next attempt, or is in flight on an open connection."""
    connections = exchange._connections
    assert {each.route for each in connections} == open_routes
    assert set(connections._by_route) == open_routes
    in_flight = {id(each): (way, attempt) for way in connections for attempt, each in way.in_flight.items()}
    assert sum(len(way.in_flight) for way in connections) == len(in_flight), "in flight twice"
    held = {id(each) for calls in exchange._held.values() for each in calls.values()}
    for serial, pending in exchange._pending.items():
        assert serial in exchange.timers, "every call has a deadline"
        places = [
            pending.connection is not None,
            pending.is_held,
            ("retry", serial) in exchange.timers,
        ]
        assert places.count(True) == 1, f"{pending.call.key} to {pending.call.address}: {places}"
        assert (id(pending) in held) == pending.is_held
        expected = (pending.connection, pending.attempt) if pending.connection is not None else None
        assert in_flight.get(id(pending)) == expected
    left = {id(each) for each in exchange._pending.values()}
    assert left >= in_flight.keys() | held, "a call that is over is in no list"

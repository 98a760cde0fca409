"""A room that connections share: none fills it, each new one finds a place."""

from collections import Counter

import pytest

from planaria.actors.journal.room import check_share
from planaria.transport.protocol.errors import ProtocolError

CAPACITY = 1_200


@pytest.mark.parametrize("connections", [1, 2, 3, 5])
def test_connections_that_take_all_they_get_share_the_room_and_leave_one_share(connections: int) -> None:
    held: Counter[int] = Counter()
    is_refused = dict.fromkeys(range(connections), False)
    while not all(is_refused.values()):
        for connection in range(connections):
            try:
                check_share(held[connection], held.total(), CAPACITY, "wait")
            except ProtocolError:
                is_refused[connection] = True
            else:
                held[connection] += 1
    assert max(held.values()) - min(held.values()) <= 1
    assert abs(held[0] - CAPACITY / (connections + 1)) <= connections
    check_share(0, held.total(), CAPACITY, "wait")  # a connection that holds nothing

"""`planaria transaction` as a person types it."""

from typing import Any

import pytest

from command_line import ServedBroker
from live_trees import until
from planaria import Client


@pytest.mark.processes
def test_what_is_open_is_shown_until_it_has_ended(broker: ServedBroker) -> None:
    assert "there are no transactional ids" in broker.run("transaction", "list")
    with Client(broker.endpoint) as client, client.producer(transactional_id="payments") as producer:
        client.create_topic("T", 2)
        tx = producer.transaction()
        for partition in range(2):
            tx.publish("T", b"x", partition=partition)
        # The partitions report it on their own.
        until(lambda: _listed(broker)["partitions"] == {"T": [0, 1]}, "both partitions to be known")
        found = _listed(broker)
        assert (found["transactional_id"], found["state"]) == ("payments", "Ongoing")
        assert found["started_ms"] is not None
        text = broker.run("transaction", "list")
        assert "Ongoing" in text
        assert "2 partitions" in text
        tx.commit()
        until(lambda: _listed(broker)["state"] == "CompleteCommit", "the markers to be written")
        assert _listed(broker)["started_ms"] is None
        assert [each.state for each in client.list_transactions()] == ["CompleteCommit"]


def _listed(broker: ServedBroker) -> Any:
    [found] = broker.json("transaction", "list")["transactions"]
    return found

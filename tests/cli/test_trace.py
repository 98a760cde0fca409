"""`planaria trace`: one order over topics, groups, retries and dead letters."""

import json
import time
from pathlib import Path

import pytest

from command_line import planaria
from live_trees import until as wait_for
from patience import TIMEOUT_S
from planaria import Broker, Context, Message, Reject

pytestmark = pytest.mark.processes


def bill(order: Message, context: Context) -> None:
    context.publish("PAYMENTS", {"of": order.data}, key=order.key)
    context.publish("PAYMENTS", b"own", headers={"trace": "other", "n": "1"})


def ship(payment: Message) -> None:
    if payment.headers.get("n") is None:
        raise Reject("no address")


def wait(payment: Message) -> None:
    raise ValueError("not now")


def test_one_order_over_topics_groups_retries_and_dead_letters(data_dir: Path) -> None:
    with Broker(data_dir, heartbeat_interval_ms=100) as broker:
        for topic in ("ORDERS", "PAYMENTS", "PAYMENTS.dlq"):
            broker.create_topic(topic)
        options = {"correlation_header": "trace"}
        broker.subscribe("billing", "ORDERS", handler=bill, **options)
        broker.subscribe("shipping", "PAYMENTS", handler=ship, dead_letter="PAYMENTS.dlq")
        broker.subscribe("books", "PAYMENTS", handler=wait, backoff_ms=[3_600_000])
        broker.publish("ORDERS", "k", "order", headers={"trace": "order-17"})
        broker.publish("ORDERS", "k", "without an id")

        def traced(correlation_id: str) -> list[dict]:
            arguments = ("trace", correlation_id, "--header", "trace", "--json", "--connect", broker.endpoint)
            done = planaria(*arguments)
            return json.loads(done.stdout)["messages"] if done.returncode == 0 else []

        until = time.monotonic() + TIMEOUT_S
        while True:
            found = traced("order-17")
            states = {
                (each["topic"], group["group"]): (group["state"], group["reason"])
                for each in found
                for group in each["groups"]
            }
            is_complete = [each["topic"] for each in found] == ["ORDERS", "PAYMENTS", "PAYMENTS.dlq"]
            if is_complete and states == {
                ("ORDERS", "billing"): ("handled", None),
                ("PAYMENTS", "shipping"): ("handled", None),
                ("PAYMENTS", "books"): ("retrying", "ValueError: not now"),
            }:
                break
            assert time.monotonic() < until, found
        letter = found[2]["dead_letter"]
        assert (letter["topic"], letter["group"]) == ("PAYMENTS", "shipping")
        assert "no address" in letter["reason"]
        assert [each["topic"] for each in traced("ORDERS/0@1")] == ["PAYMENTS", "PAYMENTS.dlq"]
        wait_for(lambda: [each["key"] for each in traced("other")] == [None, None], "the other order")
        table = planaria("trace", "order-17", "--header", "trace", "--connect", broker.endpoint).stdout
        for told in ("ORDERS/0@0", "billing: handled", "dead letter of PAYMENTS/0@0", "books: retrying"):
            assert told in table
        done = planaria("trace", "nobody", "--header", "trace", "--connect", broker.endpoint)
        assert (done.returncode, done.stdout) == (1, "")
        assert "trace=nobody" in done.stderr

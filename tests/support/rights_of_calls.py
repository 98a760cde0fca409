"""Calls of the Python client, and the rights that each needs, in the notation of rights_matrix.py.

A call takes a client and a name that no other call has. It does its work if all rights are there.
"""

from collections.abc import Callable
from typing import Any

from live_trees import until
from planaria import Client
from planaria.transport.client.security_admin import SecurityAdmin
from planaria.transport.security.rights import Rule
from rights_matrix import ADMIN

Call = Callable[[Client, str], Any]


def _produce(client: Client, _: str) -> None:
    with client.producer() as producer:
        producer.publish("T", b"x", partition=0).result()


def _transaction(client: Client, name: str) -> None:
    with client.producer(transactional_id=f"X.{name}") as producer, producer.transaction() as transaction:
        transaction.publish("T", b"x", partition=0)


def _pipeline(client: Client, name: str) -> None:
    with (
        client.consumer(f"G.{name}", "T", auto_offset_reset="earliest", auto_commit=False) as consumer,
        client.producer(transactional_id=f"X.{name}") as producer,
    ):
        until(lambda: consumer.poll(1), "records")
        with producer.transaction() as transaction:
            transaction.publish("T", b"x", partition=0)
            transaction.commit_offsets(consumer)


def _consume_in_group(client: Client, name: str) -> None:
    with client.consumer(f"G.{name}", "T", auto_offset_reset="earliest") as consumer:
        until(lambda: consumer.poll(1), "records")
        consumer.commit()


def _consume(client: Client, _: str) -> None:
    with client.consumer(partitions=[("T", 0)], auto_offset_reset="earliest") as consumer:
        until(lambda: consumer.poll(1), "records")


def _work(client: Client, name: str) -> None:
    with client.share_consumer(f"G.{name}", "T") as consumer:
        for message in until(lambda: consumer.poll(1, max_messages=1), "a job"):
            message.accept()


def _topic(client: Client, name: str) -> None:
    client.create_topic(f"T.{name}")
    client.alter_topic(f"T.{name}", retention_ms=60_000)
    client.delete_records(f"T.{name}", 0)
    client.delete_topic(f"T.{name}")


def _quota(client: Client, name: str) -> None:
    client.set_quota(name, fetch_bytes=1_000)
    client.remove_quota(name)


def _grant(client: Client, name: str) -> None:
    security = SecurityAdmin.over(client)
    rule = Rule(rights=("consume",), resource="topic:T")
    security.grant(f"role:{name}", rule)
    security.revoke(f"role:{name}", rule)


_READ = "topic:consume|queue"
_ANY_TOPIC = "topic:produce|consume|queue|manage"
_ANY_GROUP = "group:consume|queue|manage"
CALLS: list[tuple[str, Call]] = [
    ("topic:produce", lambda client, _: client.publish("T", b"x", partition=0)),
    ("topic:produce", lambda client, _: client.publish("T", b"x", delay=3_600)),
    ("topic:produce", _produce),
    ("topic:produce transaction:produce", _transaction),
    ("topic:produce transaction:produce topic:consume group:consume", _pipeline),
    ("topic:consume group:consume", _consume_in_group),
    ("topic:consume", _consume),
    (_READ, lambda client, _: next(client.read("T"))),
    (_READ, lambda client, _: client.list_offsets("T", 0)),
    ("cluster:operate", lambda client, _: client.list_offsets("__audit", 0)),
    ("topic:queue group:queue", _work),
    ("group:manage", lambda client, name: client.configure_share_group(f"G.{name}", max_deliveries=3)),
    ("topic:manage", _topic),
    (_ANY_TOPIC, lambda client, _: client.describe_topic("T")),
    ("", lambda client, _: client.list_topics()),
    ("", lambda client, _: client.list_groups()),
    (_ANY_GROUP, lambda client, _: client.describe_group("G.idle")),
    ("group:consume|manage", lambda client, _: client.group_offsets("G.idle")),
    ("group:manage", lambda client, _: client.reset_offsets("G.idle", {("T", 0): 0})),
    ("group:manage", lambda client, _: (client.pause_group("G.idle"), client.resume_group("G.idle"))),
    ("cluster:manage", lambda client, _: client.list_scheduled()),
    ("cluster:operate", lambda client, _: client.status()),
    ("cluster:operate", lambda client, _: client.revive("partition/T/1")),
    ("cluster:operate", lambda client, _: client.kill("partition/T/1", "SIGCONT")),
    ("cluster:operate", lambda client, _: client.list_transactions()),
    ("cluster:operate", lambda client, _: client.list_quotas()),
    ("cluster:operate", _quota),
    ("cluster:operate", lambda client, _: client.list_mirrors()),
    (ADMIN, lambda client, _: SecurityAdmin.over(client).principals()),
    (ADMIN, lambda client, _: SecurityAdmin.over(client).rules()),
    (ADMIN, lambda client, _: SecurityAdmin.over(client).test("none", "consume", "topic:T")),
    (ADMIN, _grant),
]

"""The surroundings of the code blocks in the manuals: what a block takes for granted, as code that runs before it.

A block is named by its page and its first line. The names of the package, `broker`, `client`, `json` and the like are
there for all; `seen` gathers what handlers get, and `enough` ends a loop by SIGTERM.
"""

PRELUDE = """
import asyncio, signal, threading, time
from datetime import UTC, datetime, timedelta
import logging
import msgspec
import planaria, planaria.aio, planaria.otel
from planaria import *
log = logging.getLogger("manuals")
seen = []
def enough(value=None, *_, **__):
    seen.append(value)
    if len(seen) == 3 and signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        signal.raise_signal(signal.SIGTERM)
def pay(order, context=None):
    enough(order)
    return {"paid": 1}
charge = handle = resize = send = index = run = enough
"""
ASYNC = """
async def charge(value):
    enough(value)
handle = resize = charge
async def worker(jobs):
    async for job in jobs:
        async with job:
            enough(job)
"""
MIXED = {"topics": ["ORDERS", "PAYMENTS", "ORDERS.dlq"], "feeds": "ORDERS"}
IMAGES = {"topics": ["IMAGES", "IMAGES.dead"], "feeds": "IMAGES"}

SCENES: dict[str, dict[str, object]] = {
    "README.md: from planaria import Broker, until_signal": {
        "before": "print = lambda *_: signal.raise_signal(signal.SIGTERM)",
        "after": "broker.close()",
        "feeds": "",
        "topics": [],
    },
    "README.md: broker.subscribe(": MIXED,
    "README.md: app = planaria.App(": {"before": "Order = dict"},
    "README.md: with producer.transaction() as tx:": {
        **MIXED,
        "before": """
producer = client.producer(transactional_id="readme")
consumer = client.consumer("readme", ["ORDERS"], auto_commit=False, auto_offset_reset="earliest")
""",
        "after": "producer.close(); consumer.close()",
    },
    "README.md: async with planaria.aio.connect(": {
        **MIXED,
        "before": ASYNC,
        "after": 'broker.delete_group("jobs")',
    },
    "asyncio.md: import asyncio": {**MIXED, "before": ASYNC},
    "asyncio.md: async for message in consumer:": {
        **MIXED,
        "is_async": True,
        "before": """
consumer = client.consumer("reading", ["ORDERS"], auto_offset_reset="earliest")
await consumer.__aenter__()
async def handle(value):
    seen.append(value)
    if len(seen) == 3:
        consumer.stop()
""",
        "after": "assert len(seen) == 3 and messages == []; await consumer.close()",
    },
    'asyncio.md: async with client.work("resize"': {**IMAGES, "before": ASYNC, "is_async": True},
    "asyncio.md: async with client.producer(": {
        **MIXED,
        "is_async": True,
        "before": """
consumer = client.consumer("tx", ["ORDERS"], auto_commit=False, auto_offset_reset="earliest")
await consumer.__aenter__()
""",
        "after": "await consumer.close()",
    },
    "cluster.md: Client(": {
        "renamed": ("tcp://10.0.0.1:5570,10.0.0.2:5570,10.0.0.3:5570", "tcp://127.0.0.1:5570"),
        "before": "Client = lambda *given: planaria.Client(*given).close()",
    },
    "consuming.md: from planaria import Client, until_signal": MIXED,
    "consuming.md: with client.consumer(": MIXED,
    "consuming.md: for message in client.read(": MIXED,
    "consuming.md: with client.table(": {
        "before": 'client.create_topic("BALANCES", 1, cleanup="compact"); client.publish("BALANCES", 1, key="anna")'
    },
    "consuming.md: broker.subscribe(": {"topics": ["ORDERS", "ORDERS.dlq", "MAILS", "ITEMS", "JOBS"]},
    "consuming.md: class Order(": {},
    "consuming.md: async def charge(": {"before": "Order = dict"},
    "consuming.md: def charge(": {},
    "consuming.md: with client.producer() as producer:": MIXED,
    "delivery.md: found = client.publish(": MIXED,
    "delivery.md: client.create_topic(": {},
    "delivery.md: producer = client.producer(": {**MIXED, "after": "producer.close()"},
    "delivery.md: def pay(": MIXED,
    "delivery.md: producer.publish(": {
        "topics": ["REMINDERS"],
        "before": "producer = client.producer()",
        "after": "producer.close()",
    },
    "delivery.md: from planaria import Reject, Release": {},
    'delivery.md: client.configure_share_group("resize"': {
        **IMAGES,
        "before": "class DatabaseAway(Exception): ...",
    },
    'delivery.md: client.configure_share_group("jobs"': {
        "renamed": ("jobs", "queue"),
        "topics": ["JOBS"],
        "before": "job, tenant, deadline = {}, 'anna', datetime.now(UTC) + timedelta(hours=1)",
    },
    "delivery.md: broker.create_topic(": {},
    "metrics.md: with Broker(": {},
    "programs.md: client = None": {"after": "post_fork(None, None); client.close()"},
    "programs.md: from planaria import Client, until_signal": MIXED,
    "tracing.md: import planaria.otel": {"after": "planaria.otel.uninstrument()"},
    "tracing.md: for message in consumer:": {
        **MIXED,
        "before": 'consumer = client.consumer("traced", ["ORDERS"], auto_offset_reset="earliest").poll(30)[:3]; '
        "charge = seen.append",
    },
    "tracing.md: import logging": {"after": "logging.getLogger('planaria').setLevel(logging.NOTSET)"},
    "workers.md: # shop/billing.py": {"before": "async def mail(payment): ..."},
}
NOT_RUN = {
    "security.md: from planaria import Client, Tls": "needs the certificate of a host that does not exist",
    "testing.md: # shop.py": "a project of several files: tests/integration/test_testing.py runs it",
    "testing.md: # test_shop.py": "part of that project",
    "testing.md: # conftest.py": "part of that project",
    "testing.md: # test_pipeline.py": "part of that project",
}

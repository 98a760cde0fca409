"""A type checker accepts a right program, and finds a wrong option name and a wrong type in a wrong one."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RIGHT = """\
from datetime import datetime, timedelta

import planaria.aio
from planaria import Broker, BrokerStatus, Client, ConsumerConfig, Message, Subscription, TopicDescription

options: ConsumerConfig = {"auto_offset_reset": "earliest", "auto_commit": False}


def handle(message: Message) -> None:
    print(message.data)


with Client("tcp://127.0.0.1:1", client_id="shop") as client:
    client.create_topic("T", 3, retention_ms=1_000, cleanup="compact")
    client.set_quota("shop", produce_bytes=1_000_000)
    with client.producer(linger_ms=timedelta(milliseconds=5), acks="all") as producer:
        producer.publish("T", b"value", key="k", headers={"a": "b"}).result(1.0)
    with client.producer(transactional_id="t") as writer, writer.transaction() as transaction:
        transaction.publish("T", b"value", key="k")
    client.publish("T", {"a": 1}, key="k", delay=timedelta(seconds=1))
    with client.consumer("g", "T", **options) as consumer:
        consumer.poll(1.0)
    client.share_consumer("g", "T", acknowledge="implicit").close()
with Broker("data", hang_timeout_ms=timedelta(seconds=1), topic_defaults={"retention_ms": -1}) as broker:
    subscription: Subscription = broker.subscribe("g", "T", handler=handle, retries=3, dead_letter="D")
    broker.subscribe("g", "T", "c1", auto_commit=False)
    status: BrokerStatus = broker.status()
    topic: TopicDescription = broker.describe_topic("T")
    end: int = broker.list_offsets("T", 0).offset
    when: datetime = broker.consumer(topics="T").poll(timedelta(seconds=1))[0].time


async def main() -> None:
    async with planaria.aio.connect("tcp://127.0.0.1:1", client_id="shop") as client:
        offset: int | None = (await client.publish("T", {"a": 1}, key="k")).offset
        await client.create_topic("T", 3, retention_ms=1_000)
        handle: planaria.aio.PublishHandle = client.publish_nowait("T", b"value")
        offset = (await handle).offset
        async with client.consumer("g", "T", **options) as consumer:
            async for message in consumer:
                offset = message.offset
            async for batch in consumer.batches(max=10):
                offset = batch[0].offset
        async with client.work("g", "T", lock_ms=timedelta(seconds=1)) as jobs:
            async for job in jobs:
                async with job:
                    offset = job.delivery_count
                await job.fail(delay=timedelta(seconds=1), reason=str(offset))
        async with client.producer(linger_ms=5) as producer:
            await producer.publish("T", b"value")
        async with client.producer(transactional_id="t") as writer, writer.transaction() as transaction:
            transaction.publish_nowait("T", b"value", key="k")
            await transaction.commit_offsets(consumer)
        state: str = client.health().state
"""
WRONG_NAMES = """\
import planaria.aio
from planaria import Broker, Client

with Client() as client:
    client.producer(linger=5)
    client.consumer("g", "T", autocommit=True)
    client.share_consumer("g", "T", lock=5)
    client.create_topic("T", retention=5)
    client.alter_topic("T", retention=5)
    client.set_quota("c", produce=5)
with Broker(hang_timeout=5) as broker:
    broker.producer(linger=5)
    broker.consumer("g", "T", autocommit=True)
    broker.share_consumer("g", "T", lock=5)
    broker.create_topic("T", retention=5)
    broker.subscribe("g", "T", handler=print, retry=5)
    broker.subscribe("g", "T", "c1", autocommit=True)
async def main(client: planaria.aio.AsyncClient) -> None:
    client.producer(linger=5)
    client.consumer("g", "T", autocommit=True)
    client.work("g", "T", lock=5)
    await client.create_topic("T", retention=5)
"""
WRONG_TYPES = """\
import planaria.aio
from planaria import Broker, Client

with Client() as client:
    client.producer(linger_ms="5")
    client.consumer("g", "T", auto_offset_reset="earlist")
    client.share_consumer("g", "T", lock_ms="5")
    client.create_topic("T", cleanup="compacted")
    client.alter_topic("T", retention_ms="5")
    client.set_quota("c", produce_bytes="5")
with Broker(hang_timeout_ms="5") as broker:
    broker.producer(acks=2)
    broker.consumer("g", "T", auto_commit="yes")
    broker.share_consumer("g", "T", acknowledge="never")
    broker.create_topic("T", retention_ms="5")
    broker.subscribe("g", "T", handler=print, retries="5")
    broker.subscribe("g", "T", "c1", isolation="none")
async def main(client: planaria.aio.AsyncClient) -> None:
    client.producer(linger_ms="5")
    client.consumer("g", "T", auto_offset_reset="earlist")
    client.work("g", "T", lock_ms="5")
    await client.create_topic("T", cleanup="compacted")
"""
CACHE = ("--cache-dir", str(ROOT / ".mypy_cache" / "programs"))
PROGRAMS = {"right.py": RIGHT, "wrong_names.py": WRONG_NAMES, "wrong_types.py": WRONG_TYPES}
Found = dict[str, set[int]]
"""The lines of each program in which a checker has found something wrong."""


def mypy(folder: Path) -> Found:
    strict = ("--strict", "--config-file", str(ROOT / "pyproject.toml"), *CACHE)
    return lines_of([sys.executable, "-m", "mypy", *strict], folder)


def pyright(folder: Path) -> Found:
    return lines_of([sys.executable, "-m", "pyright", "--pythonpath", sys.executable], folder)


def lines_of(command: list[str], folder: Path) -> Found:
    outcome = subprocess.run(
        [*command, *PROGRAMS], cwd=folder, capture_output=True, text=True, timeout=170, check=False
    )
    assert outcome.returncode == 1, outcome.stdout + outcome.stderr
    found: Found = {name: set() for name in PROGRAMS}
    for line in outcome.stdout.splitlines():
        if " error: " in line.replace(" - error: ", " error: "):
            path, number, *_ = line.split(":")
            name = Path(path.strip()).name
            assert name in found, line
            found[name].add(int(number))
    return found


@pytest.fixture(scope="module", params=[mypy, pyright], ids=lambda checker: checker.__name__)
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What a checker has found in one run. Each run reads the whole package."""
    folder = tmp_path_factory.mktemp("programs")
    (folder / "planaria").mkdir()
    for part in ("__init__.py", "py.typed", "actors", "supervisor", "transport", "aio.py"):
        (folder / "planaria" / part).symlink_to(ROOT / part)
    for name, text in PROGRAMS.items():
        (folder / name).write_text(text)
    checker: Callable[[Path], Found] = request.param
    return checker(folder)


def wrong_lines(text: str) -> set[int]:
    """Every line of a wrong program that makes a call with a wrong option."""
    return {number for number, line in enumerate(text.splitlines(), 1) if "=" in line and "(" in line}


def test_a_right_program_passes(found: Found) -> None:
    assert found["right.py"] == set()


@pytest.mark.parametrize("name", ["wrong_names.py", "wrong_types.py"])
def test_every_wrong_option_is_found(found: Found, name: str) -> None:
    assert found[name] == wrong_lines(PROGRAMS[name])

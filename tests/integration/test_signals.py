"""The long-running loops of README and docs are run as they stand there, and end in order on SIGTERM."""

import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from patience import TIMEOUT_S
from planaria import Broker
from source_tree import ROOT

pytestmark = pytest.mark.processes

FENCED = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
IS_LOOP = re.compile(r"\.(?:share_)?consumer\(|\.work\(")
GROUP = re.compile(r'((?:share_consumer|consumer|work|configure_share_group)\(")(\w+)"')
PREAMBLE = """
import asyncio, logging as log, sys, time
import planaria.aio
from planaria import Client, CommitFailed, TransactionAborted, until_signal

class DatabaseAway(Exception): pass

def handle(message):
    print(message.topic, message.partition, message.offset, flush=True)
    return {}

async def charge(message): handle(message)
charge_data = resize = pay = handle

async def worker(jobs):
    async for job in jobs:
        async with job:
            handle(job)
"""
IN_A_COROUTINE = """
async def main():
    async with planaria.aio.connect("tcp://127.0.0.1:5570") as client:
        async def resize(data): print("job", flush=True)
        handle = resize
{block}
asyncio.run(main())
"""


def loops() -> list[tuple[str, str]]:
    """Return every block of the documents in which a consumer is read in a loop, with its place."""
    found = []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = path.read_text()
        for match in FENCED.finditer(text):
            block = match[1]
            if IS_LOOP.search(block) and re.search(r"^\s*(async )?(for|while) ", block, re.MULTILINE):
                found.append((f"{path.name}:{text.count(chr(10), 0, match.start()) + 1}", block))
    return found


def program(number: int, block: str, endpoint: str) -> str:
    block = GROUP.sub(rf'\g<1>\g<2>-{number}"', block)
    block = re.sub(r"(await charge|resize)\(message\.(?:data|value)\)", r"\1(message)", block)
    if block.startswith("async with"):
        block = textwrap.dedent(block)
        if "connect(" in block.splitlines()[0]:
            block = textwrap.dedent("\n".join(block.splitlines()[1:]))
        block = IN_A_COROUTINE.format(block=textwrap.indent(block, " " * 8))
    elif "client = " not in block and "Client(" not in block:
        block = 'client = Client("tcp://127.0.0.1:5570")\n' + block
    return (PREAMBLE + block).replace("tcp://127.0.0.1:5570", endpoint)


def test_every_loop_in_the_documents_ends_in_order(broker: Broker, tmp_path: Path) -> None:
    """Each exits with 0 and without a word, and a consumer has committed what it has handled and left its group."""
    found = loops()
    assert len(found) >= 8
    assert [place for place, block in found if "until_signal" not in block] == []
    for topic in ("ORDERS", "IMAGES", "IMAGES.dead", "PAYMENTS"):
        broker.create_topic(topic, 1)
    outputs: list[list[str]] = [[] for _ in found]
    with ExitStack() as ends:
        programs = []
        for number, (_, block) in enumerate(found):
            directory = tmp_path / str(number)
            directory.mkdir()
            # Unbuffered: a block of the documents may print without a flush.
            command = [sys.executable, "-u", "-c", program(number, block, broker.endpoint)]
            started = subprocess.Popen(
                command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            programs.append(ends.enter_context(started))
            reader = threading.Thread(target=read, args=(started, outputs[number]))
            reader.start()
            ends.callback(reader.join)
            ends.callback(started.kill)
        publish_until_read(broker, programs, outputs)
        for each in programs:
            each.send_signal(signal.SIGTERM)
        left = [(each.wait(TIMEOUT_S), each.stderr.read() if each.stderr else "") for each in programs]
    assert dict(zip([place for place, _ in found], left, strict=True)) == {
        place: (0, "") for place, _ in found
    }
    groups = {int(name.rpartition("-")[2]): name for name in broker.list_groups()}
    for number, name in groups.items():
        description = broker.describe_group(name)
        assert len(description.members) == 0, name
        if description.type == "consumer":
            offset = int(outputs[number][-1].split()[2])
            assert [each.offset for each in description.offsets] == [offset + 1], name


def read(started: subprocess.Popen[str], output: list[str]) -> None:
    assert started.stdout is not None
    output.extend(iter(started.stdout.readline, ""))


def publish_until_read(
    broker: Broker, programs: list[subprocess.Popen[str]], outputs: list[list[str]]
) -> None:
    """Publish until every program has read: most of the loops begin at the end of the log."""
    deadline = time.monotonic() + TIMEOUT_S
    while not all(outputs) and all(each.poll() is None for each in programs):
        assert time.monotonic() < deadline, outputs
        for topic in ("ORDERS", "IMAGES"):
            broker.publish(topic, "k", {"amount": 1})
        time.sleep(0.05)

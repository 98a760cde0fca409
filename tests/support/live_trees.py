"""Real broker trees under test: running actors, ended processes, contents of logs. Linux only where it reads /proc."""

import os
import select
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from patience import TIMEOUT_S, pause_after
from planaria import Client, Message
from planaria.transport.protocol.operations import ActorStatus

Found = TypeVar("Found")


def until(look: Callable[[], Found], what: str, timeout_s: float = TIMEOUT_S) -> Found:
    """Return the first true value of `look`: for events in other processes that cannot be waited on."""
    began = time.monotonic()
    while not (found := look()):
        assert time.monotonic() < began + timeout_s, f"not within {timeout_s:.0f} s: {what}"
        pause_after(began)
    return found


def actor(client: Client, address: str) -> ActorStatus:
    return next(each for each in client.status().actors if each.address == address)


def pid_of(client: Client, address: str) -> int:
    pid = actor(client, address).pid
    assert pid is not None, f"{address} does not run"
    return pid


def until_state(client: Client, address: str, state: str, timeout_s: float = TIMEOUT_S) -> ActorStatus:
    def look() -> ActorStatus | None:
        found = {each.address: each for each in client.status().actors}.get(address)
        return found if found is not None and found.state == state else None

    return until(look, f"{address} is {state}", timeout_s)


def until_reborn(client: Client, before: ActorStatus, timeout_s: float = TIMEOUT_S) -> ActorStatus:
    """Wait for a later incarnation that is ready."""

    def look() -> ActorStatus | None:
        now = actor(client, before.address)
        return now if now.state == "ready" and now.incarnation > before.incarnation else None

    return until(look, f"{before.address} is ready again", timeout_s)


def marked_processes(mark: str) -> dict[int, str]:
    """Return every process, by id, that was started with `mark` in its environment, directly or not."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if mark.encode() in (entry / "environ").read_bytes():
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # ended meanwhile
            continue
    return found


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def fork_server_of(supervisor_pid: int) -> int:
    """Return the id of a supervisor's only child, from which all actors are forked."""
    (child,) = children_of(supervisor_pid)
    return child


def wait_gone(pid: int, timeout_s: float) -> bool:
    """Return True if the process has ended within `timeout_s`."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([pidfd], [], [], timeout_s)[0])
    finally:
        os.close(pidfd)


def read_topic(client: Client, topic: str) -> list[Message]:
    """Return all messages now in a topic, partition by partition."""
    messages: list[Message] = []
    for partition in range(len(client.describe_topic(topic).partitions)):
        end = client.list_offsets(topic, partition, "latest").offset
        with client.consumer(partitions=[(topic, partition)], auto_offset_reset="earliest") as consumer:
            deadline = time.monotonic() + TIMEOUT_S
            while consumer.position(topic, partition, TIMEOUT_S) < end:  # markers may follow the last message
                found = consumer.poll(0.1, max_messages=10_000)
                if found:
                    deadline = time.monotonic() + TIMEOUT_S
                assert time.monotonic() < deadline, f"{topic}/{partition}: nothing more of {end}"
                messages += found
    return messages

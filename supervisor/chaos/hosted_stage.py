"""What the hosted members of a pipeline do, and what they noted of it: each call of the handler, before it returns.

A handler does not know of the transaction that its output goes with, only that this must be read if the call's record is
passed, and must not if the call has failed. So each call is an attempt of its own, of unknown outcome unless it failed.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

from ...transport.client.messages import Message
from ...transport.context import Context
from .transaction_history import Attempt

HOSTED = "hosted"
FAILS_ONE_IN = 50


def transforming(target: str, folder: Path) -> Callable[[Message, Context], None]:
    """A handler that publishes to `target` and fails now and then, after it has."""
    journals = str(folder)

    def transform(message: Message, context: Context) -> None:
        source = (message.value or b"").decode().partition("|")[0]
        made = f"{source}|{HOSTED}.{os.getpid()}.{message.partition}.{message.offset}.{time.monotonic_ns()}"
        context.publish(target, made.encode(), key=message.key)
        outcome = "info" if crc32(made.encode()) % FAILS_ONE_IN else "fail"
        descriptor = os.open(f"{journals}/{os.getpid()}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, f"{outcome} {made}\n".encode())
        finally:
            os.close(descriptor)
        if outcome == "fail":
            raise RuntimeError("this call is to fail")

    return transform


def read_calls(folder: Path) -> list[Attempt]:
    """What all members noted."""
    found = []
    for path in folder.iterdir():
        # A line that was being written when its process was killed has no end.
        for line in path.read_text().rpartition("\n")[0].splitlines():
            outcome, made = line.split(" ", 1)
            found.append(
                Attempt(
                    name=made,
                    transactional_id=HOSTED,
                    session=0,
                    wrote=(made,),
                    ending_at=0,
                    outcome="fail" if outcome == "fail" else "info",
                )
            )
    return found

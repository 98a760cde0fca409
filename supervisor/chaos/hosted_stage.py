"""The hosted members of a pipeline, and their notes: each call of the handler is noted before it returns.

A handler does not know the transaction of its output, only that the output must be read if the call's record is
passed, and must not if the call has failed. So each call is a separate attempt, of unknown outcome unless it failed.
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
    """Return a handler that publishes to `target` and sometimes fails after that."""
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
    """Return the notes of all members."""
    found = []
    for path in folder.iterdir():
        # A line without an end was being written when its process was killed.
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

"""A rehearsal: gives dead letters to a handler in a process of its own, without any other effect. Impure.

    stdin      messages, MessagePack, one after the other, to the end of the file
    stdout     one JSON line each: {"passed": true} or {"passed": false, "reason", "traceback", "verdict"};
               first of all {"loaded": true}, or {"loaded": false, "reason"}

The handler's own output goes to standard error, and so does the stack of a handler that crashes. The parent finds the
message that was in progress at a crash by counting the lines. Run as `python -m ...rehearsal MODULE:FUNCTION PATH...`;
it has no connections, and messages that the handler publishes through its context are discarded. The handler itself can
connect: its changes to databases and networks are real.
"""

import faulthandler
import json
import os
import resource
import sys
from typing import Any, BinaryIO

import msgspec

from ...transport.client.messages import Message
from ...transport.context import Context
from ...transport.publication import Publication
from ...transport.subscription import HandlerSource
from .coroutines import Coroutines
from .handler import (
    Handler,
    HandlerUnusable,
    failure_of,
    load_handler,
    refuse_result,
    takes_context,
    verdict_of,
)


def main() -> None:
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable(file=sys.stderr, all_threads=True)
    path, *sys_path = sys.argv[1:]
    try:
        loaded = load_handler(HandlerSource(path=path), sys_path)
    except HandlerUnusable as error:
        _write(results, {"loaded": False, "reason": str(error)})
        return
    handler = Coroutines().awaiting(loaded.call) if loaded.is_async else loaded.call
    _write(results, {"loaded": True})
    for message in msgspec.msgpack.decode(sys.stdin.buffer.read(), type=list[Message]):
        _write(results, _rehearse(handler, message))


def _rehearse(handler: Handler, message: Message) -> dict[str, Any]:
    try:
        refuse_result(
            handler(message, Context(_take, message)) if takes_context(handler) else handler(message)
        )
    except BaseException as error:  # noqa: BLE001 - sys.exit() in a handler is a failure like any other
        failure = failure_of(error)
        details = {"reason": failure.reason, "traceback": failure.traceback}
        return {"passed": False, "verdict": verdict_of(error), **details}
    return {"passed": True}


def _take(message: Publication) -> None:
    """Discard the message: a rehearsal publishes none."""


def _write(results: BinaryIO, result: dict[str, Any]) -> None:
    results.write(json.dumps(result).encode() + b"\n")
    results.flush()


if __name__ == "__main__":
    main()

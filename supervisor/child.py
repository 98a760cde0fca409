"""The child's side of a launch: prepares the process, resolves the actor's dotted path, runs it, reports its failure.

Runs in the new process and nowhere else. It must not import an actor by itself: which one it becomes is in the order.
"""

import faulthandler
import importlib
import logging
import multiprocessing
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

import msgspec

from ..transport import sockets
from ..transport.actor import ActorContext
from ..transport.codec import encode_header, sendable
from ..transport.forks import tell_of_fork
from ..transport.protocol.control import ActorFailed
from ..transport.protocol.errors import OperatorNeeded
from . import data_directory, logs

EXIT_REPORT_LINGER_MS = 500
"""How long a failing child waits for the supervisor to take its last word."""


class ChildParameters(msgspec.Struct, kw_only=True):
    """All that travels to a new process."""

    start: str
    """`package.module:function`, called with the context."""
    context: ActorContext
    log_level: str
    log_format: str


def run_child(order: ChildParameters) -> None:
    """Target of the new process."""
    context = order.context
    _prepare(order)
    parent = multiprocessing.parent_process()
    assert parent is not None
    context.parent_sentinel = parent.sentinel
    # Held until the process ends, whichever way.
    presence = Presence(context.data_directory)
    try:
        resolve(order.start)(context)
    except OperatorNeeded as error:
        # Its message says what to do; where foreign code has failed, the traceback says where.
        _fail(context, error, traceback.format_exc() if error.__cause__ is not None else "")
    except Exception as error:  # noqa: BLE001 - the outermost frame: the failure is reported and the process ends
        _fail(context, error, traceback.format_exc())
    finally:
        presence.end()


class Presence:
    """Says that an actor works in the data directory. What a handler forks off is no actor."""

    def __init__(self, directory: str) -> None:
        self._descriptor: int | None = data_directory.hold_presence(directory)
        tell_of_fork(self)

    def on_fork(self) -> None:
        """As any program, it is to end by Ctrl-C."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self.end()

    def end(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def resolve(path: str) -> Callable[[ActorContext], Any]:
    """The function a dotted path names."""
    module, _, name = path.partition(":")
    function: Callable[[ActorContext], Any] = getattr(importlib.import_module(module), name)
    return function


def _prepare(order: ChildParameters) -> None:
    # The supervisor decides about stopping, not the terminal. A function, as what a handler starts would inherit SIG_IGN.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise_file_limit()
    logs.set_up(order.log_level, order.log_format, order.context.address, order.context.incarnation)
    # On SIGABRT, which is how the supervisor ends a hang, every thread's stack goes to the log.
    faulthandler.enable(file=sys.stderr, all_threads=True)


def raise_file_limit() -> None:
    """Out of descriptors, a ROUTER spins without an error; so take all that the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except ValueError:
        # macOS reports an unlimited hard limit and refuses it.
        resource.setrlimit(resource.RLIMIT_NOFILE, (10_240, hard))


def _fail(context: ActorContext, error: Exception, trace: str) -> None:
    reason = sendable(f"{type(error).__name__}: {error}")
    text = sendable(trace)
    logs.event(logging.getLogger(__name__), logging.ERROR, "actor failed", reason=reason, traceback=text)
    _send_exit_report(
        context,
        ActorFailed(
            address=context.address,
            incarnation=context.incarnation,
            reason=reason,
            traceback=text,
            needs_operator=isinstance(error, OperatorNeeded),
        ),
    )
    sys.stderr.flush()
    # Not sys.exit: threads and sockets that the actor has left behind must not keep the process.
    os._exit(1)


def _send_exit_report(context: ActorContext, word: ActorFailed) -> None:
    zmq_context = sockets.new_context()
    # A name of its own: the actor's link may still hold the actor's.
    link = sockets.unnamed_link(zmq_context, context.control_endpoint, EXIT_REPORT_LINGER_MS)
    link.send(encode_header(word))
    link.close()
    sockets.end_context(zmq_context)

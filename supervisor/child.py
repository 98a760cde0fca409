"""The child's side of a launch: prepares the process, resolves the actor's dotted path, runs it, reports its failure.

Runs only in the new process. It must not import any actor of its own accord: the parameters name the one to run.
"""

import contextlib
import faulthandler
import importlib
import logging
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs
from zmq import ZMQError

from ..transport import sockets
from ..transport.actor import ActorContext
from ..transport.addresses import as_text, from_text
from ..transport.codec import encode_header, sendable
from ..transport.forks import notify_of_fork
from ..transport.protocol.control import ActorFailed, Surroundings
from ..transport.protocol.errors import DependencyUnavailable, OperatorNeeded
from . import data_directory, logs
from .forking import restore_tracker
from .standard_streams import lose_unwritable_output
from .surroundings import enter

EXIT_REPORT_LINGER_MS = 500
"""Time that a failing child waits for the supervisor to receive its exit report."""

MAX_NAME_BYTES = 15
"""TASK_COMM_LEN of Linux, without the zero at the end."""


class ChildParameters(msgspec.Struct, kw_only=True):
    """All parameters sent to a new process."""

    start: str
    """`package.module:function`, called with the context."""
    context: ActorContext
    log_level: str
    log_format: str
    surroundings: Surroundings | None = None


def run_child(order: ChildParameters) -> None:
    """Entry point of the new process."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    if order.surroundings is not None:
        enter(order.surroundings, order.context.data_directory)
        if order.surroundings.python:
            become_other_python(order, parent.sentinel)
    run(order, parent.sentinel)


def run(order: ChildParameters, parent_sentinel: int) -> None:
    """Run the actor in this process. `parent_sentinel` becomes readable when the supervisor has ended."""
    context = order.context
    _prepare(order)
    context.parent_sentinel = parent_sentinel
    # Held until the process ends, in whatever way.
    presence = Presence(context.data_directory)
    try:
        resolve(order.start)(context)
    except (OperatorNeeded, DependencyUnavailable) as error:
        # The message says enough; if foreign code failed, the traceback shows where.
        _fail(context, error, traceback.format_exc() if error.__cause__ is not None else "")
    except Exception as error:  # noqa: BLE001 - the outermost frame: the failure is reported and the process ends
        _fail(context, error, traceback.format_exc())
    finally:
        presence.end()


def become_other_python(order: ChildParameters, parent_sentinel: int) -> None:
    """Replace this process's program by another Python, which runs the actor. Does not return."""
    assert order.surroundings is not None
    python = order.surroundings.python
    with tempfile.TemporaryFile() as file:
        file.write(msgspec.msgpack.encode(structs.replace(order, surroundings=None), enc_hook=as_text))
        file.seek(0)
        for descriptor in (file.fileno(), parent_sentinel):
            os.set_inheritable(descriptor, True)
        try:
            os.execv(python, [python, "-P", "-m", __name__, str(file.fileno()), str(parent_sentinel)])
        except OSError as error:
            print(f"planaria: {python}: {error.strerror}", file=sys.stderr, flush=True)
            os._exit(1)


def main() -> None:
    """Run the actor whose parameters are in the file given by its descriptor."""
    parameters, parent_sentinel = map(int, sys.argv[1:])
    with open(parameters, "rb") as file:
        order = msgspec.msgpack.decode(file.read(), type=ChildParameters, dec_hook=from_text)
    os.set_inheritable(parent_sentinel, False)
    run(order, parent_sentinel)


class Presence:
    """Marks the data directory as in use by an actor. A process forked by a handler is not an actor."""

    def __init__(self, directory: str) -> None:
        self._descriptor: int | None = data_directory.hold_presence(directory)
        notify_of_fork(self)

    def on_fork(self) -> None:
        """Restore the default handling of Ctrl-C, as in any program."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self.end()

    def end(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def resolve(path: str) -> Callable[[ActorContext], Any]:
    """Import the function that a dotted path names."""
    module, _, name = path.partition(":")
    function: Callable[[ActorContext], Any] = getattr(importlib.import_module(module), name)
    return function


def _prepare(order: ChildParameters) -> None:
    # The supervisor decides about stopping, not the terminal. A function, since a handler's children would inherit
    # SIG_IGN.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    lose_unwritable_output()
    restore_tracker()
    raise_file_limit()
    name_process(str(order.context.address))
    logs.set_up(order.log_level, order.log_format, order.context.address, order.context.incarnation)
    # On SIGABRT, which the supervisor sends to a hung process, every thread's stack goes to the log.
    faulthandler.enable(file=sys.stderr, all_threads=True)


def name_process(name: str) -> None:
    """Let `ps -o comm` and `top` show the start of `name`, since all forks have the command line of the supervisor."""
    with contextlib.suppress(OSError):  # only Linux has the file
        Path("/proc/self/comm").write_bytes(name.encode()[:MAX_NAME_BYTES])


def raise_file_limit() -> None:
    """Raise the descriptor limit to the system's maximum: a ROUTER without descriptors spins without an error."""
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
    report = ActorFailed(
        address=context.address,
        incarnation=context.incarnation,
        reason=reason,
        traceback=text,
        needs_operator=isinstance(error, OperatorNeeded),
    )
    with contextlib.suppress(ZMQError):  # no descriptor is left for a connection: the log has the reason
        _send_exit_report(context, report)
    sys.stderr.flush()
    # Not sys.exit: threads and sockets left by the actor must not keep the process alive.
    os._exit(1)


def _send_exit_report(context: ActorContext, word: ActorFailed) -> None:
    zmq_context = sockets.new_context()
    # A fresh name: the actor's own link may still hold the actor's.
    link = sockets.unnamed_link(zmq_context, context.control_endpoint, EXIT_REPORT_LINGER_MS)
    link.send(encode_header(word))
    link.close()
    sockets.end_context(zmq_context)


if __name__ == "__main__":
    main()

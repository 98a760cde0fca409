"""The user's function: loads and calls it, and describes its failures. The only module that unpickles anything.

The pickled function comes from the embedding process, through the supervisor's control endpoint, which only its own
user can open. No data that a client sends over the public endpoint gets here.
"""

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, TypeAlias

import cloudpickle
from msgspec import Struct

from ...transport import tracing
from ...transport.application import App, handler_of
from ...transport.codec import sendable
from ...transport.dead_letters import MAX_TRACEBACK_CHARS
from ...transport.payloads import UnusableAnnotation, decoder_of
from ...transport.periodic import Schedule
from ...transport.protocol.errors import OperatorNeeded
from ...transport.subscription import HandlerSource, handler_fault, is_async
from ...transport.verdicts import Reject, Release
from .effects import Failure, Verdict

Handler: TypeAlias = Callable[..., object]
"""A function of a message, or of a message and a context."""
_ROOT, _LIBRARY = __file__.rsplit("/", 3)[0], inspect.__file__.rpartition("/")[0]
_CALLERS = (f"{_ROOT}/actors/", f"{_ROOT}/transport/", f"{_LIBRARY}/asyncio/", f"{_LIBRARY}/concurrent/")
"""Folders of the code that calls handlers, which a failure's traceback leaves out."""


class HandlerUnusable(OperatorNeeded):
    """The handler cannot be loaded here; no restart will change that."""


class Loaded(Struct, frozen=True):
    """A handler that is called with a message, and with a context if it takes one."""

    call: Handler
    is_async: bool = False
    """A call returns a coroutine."""


def load_handler(
    source: HandlerSource, sys_path: Sequence[str], schedule: Schedule | None = None, group: str = ""
) -> Loaded:
    """Load the function; modules are also searched on the embedding process's path.

    `schedule` publishes delayed messages, for the periodic functions of an application.
    """
    sys.path[:0] = [entry for entry in sys_path if entry not in sys.path]
    try:
        found = cloudpickle.loads(source.pickled) if source.path is None else imported(source.path)
        handler = found if source.member is None else _member(found, source.member, schedule)
    except Exception as error:
        # Importing and unpickling run the user's code, which may raise anything.
        raise HandlerUnusable(f"the handler cannot be loaded: {type(error).__name__}: {error}") from error
    if not callable(handler):
        raise HandlerUnusable(f"the handler is not callable: {handler!r}")
    if (fault := handler_fault(handler)) is not None:
        raise HandlerUnusable(f"the handler is {fault}")
    needed = len(_needed(handler))
    if needed > 2:
        raise HandlerUnusable(
            f"the handler requires {needed} arguments; it is called with a message and, at most, a context"
        )
    try:
        called, awaits = _with_payload(handler), is_async(handler)
        if tracing.active is not None:
            called = tracing.active.handling(called, group, is_async=awaits)
        return Loaded(called, awaits)
    except UnusableAnnotation as error:
        raise HandlerUnusable(f"the handler cannot be called: {error}") from error


def _member(app: object, name: str, schedule: Schedule | None) -> object:
    if not isinstance(app, App):
        raise TypeError(f"{app!r} is not a planaria.App")
    return handler_of(app, name, schedule)


def _with_payload(handler: Handler) -> Handler:
    """Return the handler as a function of a message, decoded to the type that the handler's annotation names."""
    decode = decoder_of(handler)
    if decode is None:
        return handler
    if takes_context(handler):
        return lambda message, context: handler(decode(message), context)
    return lambda message: handler(decode(message))


def takes_context(handler: Handler) -> bool:
    """Return True if the handler requires a second argument: one without a default."""
    return len(_needed(handler)) == 2


def _needed(handler: Handler) -> list[inspect.Parameter]:
    """Return the handler's required arguments."""
    try:
        parameters = inspect.signature(handler).parameters.values()
    except ValueError:  # some callables written in C have no signature
        return []
    by_topic_partition = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [
        each
        for each in parameters
        if each.kind in by_topic_partition and each.default is inspect.Parameter.empty
    ]


def refuse_result(result: object) -> None:
    """Raise TypeError for a result that must be awaited or iterated over: the handler's code has not run."""
    if inspect.iscoroutine(result):
        result.close()
    if inspect.isawaitable(result) or inspect.isasyncgen(result) or inspect.isgenerator(result):
        raise TypeError(
            f"the handler returned a {type(result).__name__}, which was not awaited: its code has not run"
        )


def verdict_of(error: BaseException) -> Verdict:
    """Return the verdict that the exception stands for."""
    if isinstance(error, Release):
        return "released"
    return "rejected" if isinstance(error, Reject) else "failed"


def failure_of(error: BaseException) -> Failure:
    """Describe the failure of a call of the handler, without a reference to the handler's objects."""
    kind = type(error)
    frames = _frames_of_handler(error.__traceback__)
    text = "".join(traceback.format_exception(kind, error, frames))
    return Failure(
        sendable(traceback.format_exception_only(error)[-1].strip()),
        f"{kind.__module__}.{kind.__qualname__}",
        sendable(text[-MAX_TRACEBACK_CHARS:])[-MAX_TRACEBACK_CHARS:],
    )


def _frames_of_handler(frames: TracebackType | None) -> TracebackType | None:
    """Return the traceback without the frames that called the handler."""
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_CALLERS):
        frames = frames.tb_next
    return frames


def imported(path: str) -> Any:
    """Import the object that `module:name` names. Raises whatever the module raises."""
    module, _, name = path.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found

"""The user's function: loads and calls it, and describes its failures. The only module that unpickles anything.

The pickled function comes from the embedding process, through the supervisor's control endpoint, which only its own
user can open. No data that a client sends over the public endpoint gets here.
"""

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import cloudpickle

from ...transport.codec import sendable
from ...transport.dead_letters import MAX_TRACEBACK_CHARS
from ...transport.protocol.errors import OperatorNeeded
from ...transport.subscription import HandlerSource, handler_fault
from ...transport.verdicts import Reject, Release
from .effects import Failure, Verdict

Handler: TypeAlias = Callable[..., object]
"""A function of a message, or of a message and a context."""


class HandlerUnusable(OperatorNeeded):
    """The handler cannot be loaded here; no restart will change that."""


def load_handler(source: HandlerSource, sys_path: Sequence[str]) -> Handler:
    """Load the function; modules are also searched on the embedding process's path."""
    sys.path.extend(entry for entry in sys_path if entry not in sys.path)
    try:
        handler = cloudpickle.loads(source.pickled) if source.path is None else _import(source.path)
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
    return handler  # type: ignore[no-any-return]


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
            f"the handler returned a {type(result).__name__}, which is never awaited: its code has not run"
        )


def verdict_of(error: BaseException) -> Verdict:
    """Return the verdict that the exception stands for."""
    if isinstance(error, Release):
        return "released"
    return "rejected" if isinstance(error, Reject) else "failed"


def failure_of(error: BaseException) -> Failure:
    """Describe the failure of a call of the handler, without a reference to the handler's objects."""
    kind = type(error)
    # Without the frame that called the handler, which is the subscriber's own.
    frames = error.__traceback__ and error.__traceback__.tb_next
    text = "".join(traceback.format_exception(kind, error, frames))
    return Failure(
        sendable(traceback.format_exception_only(error)[-1].strip()),
        f"{kind.__module__}.{kind.__qualname__}",
        sendable(text[-MAX_TRACEBACK_CHARS:])[-MAX_TRACEBACK_CHARS:],
    )


def _import(path: str) -> Any:
    module, _, name = path.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found

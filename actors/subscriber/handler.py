"""The user's function: loaded, called, its failure put into words. The one place where anything is unpickled.

What is unpickled came from the embedding process, through the supervisor's control endpoint, which only its own user can
open. Nothing a client sends over the public endpoint gets here.
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
"""Takes a message, or a message and a context."""


class HandlerUnusable(OperatorNeeded):
    """The handler cannot be loaded here; no restart will change that."""


def load_handler(source: HandlerSource, sys_path: Sequence[str]) -> Handler:
    """The function itself; modules are also looked for where the embedding process finds them."""
    sys.path.extend(entry for entry in sys_path if entry not in sys.path)
    try:
        handler = cloudpickle.loads(source.pickled) if source.path is None else _import(source.path)
    except Exception as error:
        # Importing and unpickling run code of the user's, which may raise anything.
        raise HandlerUnusable(f"the handler cannot be loaded: {type(error).__name__}: {error}") from error
    if not callable(handler):
        raise HandlerUnusable(f"the handler is not callable: {handler!r}")
    if (fault := handler_fault(handler)) is not None:
        raise HandlerUnusable(f"the handler is {fault}")
    needed = len(_needed(handler))
    if needed > 2:
        raise HandlerUnusable(
            f"the handler wants {needed} arguments; it is given a message, and a context at most"
        )
    return handler  # type: ignore[no-any-return]


def takes_context(handler: Handler) -> bool:
    """Whether it wants a second argument: one without a default."""
    return len(_needed(handler)) == 2


def _needed(handler: Handler) -> list[inspect.Parameter]:
    """The arguments that it cannot be called without."""
    try:
        parameters = inspect.signature(handler).parameters.values()
    except ValueError:  # some callables written in C tell nothing
        return []
    by_topic_partition = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [
        each
        for each in parameters
        if each.kind in by_topic_partition and each.default is inspect.Parameter.empty
    ]


def refuse_result(result: object) -> None:
    """Raises TypeError for what has to be awaited or iterated over: nothing of the handler has run."""
    if inspect.iscoroutine(result):
        result.close()
    if inspect.isawaitable(result) or inspect.isasyncgen(result) or inspect.isgenerator(result):
        raise TypeError(
            f"the handler returned a {type(result).__name__}, which nobody awaits: its code has not run"
        )


def verdict_of(error: BaseException) -> Verdict:
    """What the handler has said by what it raised."""
    if isinstance(error, Release):
        return "released"
    return "rejected" if isinstance(error, Reject) else "failed"


def failure_of(error: BaseException) -> Failure:
    """Why a call of the handler failed, without a reference to anything of the handler's."""
    kind = type(error)
    # Without the frame that called the handler: it is ours and tells nothing.
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

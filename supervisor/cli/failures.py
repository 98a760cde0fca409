"""Translation of exceptions into one line for the user and an exit code.

    0  done            1  failed, one line on standard error        2  wrong usage        130  interrupted

The only place where exceptions end. PLANARIA_TRACEBACK=1 prints the traceback instead. Called by app.py.
"""

import errno
import os
import sys
import traceback

import typer

from ...transport.addresses import is_internal
from ...transport.client.errors import UnknownTopic, unknown_topic
from ...transport.protocol.errors import ErrorCode, PlanariaError, ProtocolError
from ..config import ConfigError
from ..launch import StartFailed
from . import EXIT_INTERRUPTED
from .tables import VISIBLE

EXIT_FAILED = 1
EXIT_USAGE = 2
TRACEBACK_VARIABLE = "PLANARIA_TRACEBACK"

UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""Typer bundles its own click or uses the installed one; this is the class of the one in use."""

_ADVICE = {
    ErrorCode.UNKNOWN_TOPIC: '"planaria topic list" shows all topics',
    ErrorCode.UNKNOWN_GROUP: '"planaria group list" shows all groups',
    ErrorCode.UNKNOWN_ACTOR: '"planaria status" shows the addresses',
    ErrorCode.TOPIC_EXISTS: "--if-not-exists accepts that",
    ErrorCode.GROUP_NOT_EMPTY: "stop its members first",
    ErrorCode.PARTITION_OFFLINE: '"planaria status" shows why',
    ErrorCode.UNAUTHENTICATED: "give a key file by --key or PLANARIA_KEY; an administrator makes one with key create",
    ErrorCode.STORAGE_FULL: "make room on the broker's disk and try again",
}


class CommandFailed(Exception):
    """A command cannot do its work; the message is one line that says how to fix it."""


def exit_code_for(error: BaseException) -> int:
    """Print the error to standard error in one line, and return the process's exit code."""
    if os.environ.get(TRACEBACK_VARIABLE):
        traceback.print_exception(error)
    match error:
        case typer.Exit():
            return int(error.exit_code)
        case KeyboardInterrupt() | typer.Abort():
            return EXIT_INTERRUPTED
        case SystemExit(__context__=BrokenPipeError()):
            return 0  # rich raised it and has already replaced our output with the null device
        case BrokenPipeError():
            # The reader closed the pipe. The rest of the buffer must not fail again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        case UsageError():
            return _on_usage_error(error)
    print(f"planaria: {_one_line(describe(error)).translate(VISIBLE)}", file=sys.stderr)
    return EXIT_FAILED


def describe(error: BaseException) -> str:
    """Return the error and its remedy in one line."""
    match error:
        case UnknownTopic(topic=str(topic), message=message) if message == unknown_topic(
            topic
        ).message and not is_internal(topic):
            return f'there is no topic {topic!r}; "planaria topic create {topic}" creates it (UNKNOWN_TOPIC)'
        case ProtocolError():
            advice = _ADVICE.get(error.code)  # type: ignore[call-overload]
            text = (
                error.message
                if advice is None or '"planaria' in error.message
                else f"{error.message}; {advice}"
            )
            return f"{text} ({error.code})"
        case PlanariaError() | ConfigError() | StartFailed() | CommandFailed():
            return str(error)
        case OSError() if error.filename:
            return f"{error.filename}: {error.strerror}"
        case OSError(errno=errno.ENOSPC | errno.EIO | errno.EBADF):
            return f"standard output: {error.strerror}"
    return f"{type(error).__name__}: {error} (an error in Planaria: {TRACEBACK_VARIABLE}=1 shows where)"


def _on_usage_error(error: Exception) -> int:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "planaria"
    message = _one_line(_with_variables_named(error, error.format_message()))  # type: ignore[attr-defined]
    if not message or type(error).__name__ == "NoArgsIsHelpError":
        # The help text, unless it was already printed.
        if help_text := str(error).strip():
            print(help_text, file=sys.stderr)
        return EXIT_USAGE
    print(f"{path}: {message.rstrip('.')} (see {path} --help)", file=sys.stderr)
    return EXIT_USAGE


def _with_variables_named(error: Exception, message: str) -> str:
    """Return the message with the environment variables of its option as the help names them, not as a Python list."""
    names = getattr(getattr(error, "param", None), "envvar", None)
    if not isinstance(names, list | tuple):
        return message
    return message.replace(f"(env var: '{names}')", f"(or in {', '.join(names)})")


def _one_line(text: str) -> str:
    return " ".join(text.split())

"""Confirmation of destructive commands: a prompt in a terminal, the option --yes elsewhere.

Called by the commands that delete.
"""

import sys
from typing import Annotated, TypeAlias

import typer

from .failures import CommandFailed

YesOption: TypeAlias = Annotated[bool, typer.Option("--yes", "-y", help="Delete without confirmation.")]


def confirm(what: str, *, is_confirmed: bool) -> None:
    """Return when `what` may be deleted. Raises Abort if the user declines, CommandFailed without a terminal."""
    if is_confirmed:
        return
    if not sys.stdin.isatty():
        raise CommandFailed(f"{what} would be deleted; confirm with --yes")
    typer.confirm(f"Delete {what} permanently?", abort=True, err=True)

"""Consent to what cannot be undone: asked for in a terminal, required as --yes elsewhere.

Called by the commands that delete.
"""

import sys
from typing import Annotated, TypeAlias

import typer

from .failures import CommandFailed

YesOption: TypeAlias = Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")]


def confirm(what: str, *, is_confirmed: bool) -> None:
    """Return when `what` may be deleted. Raises Abort when the answer is no, CommandFailed when nobody can be asked."""
    if is_confirmed:
        return
    if not sys.stdin.isatty():
        raise CommandFailed(f"{what} would be deleted; say --yes")
    typer.confirm(f"Delete {what} for good?", abort=True, err=True)

"""Starts children from a fork server that has loaded the heavy imports and holds no ZeroMQ context and no thread.

Owns multiprocessing's fork server; nobody else touches it. A dead fork server hurts nobody: its children live on, and the
next launch starts another one. Called by process.py. What runs in the child is child.py; actors are named by dotted
path alone, so that the supervisor never loads their code.
"""

import multiprocessing
import signal
from collections.abc import Sequence
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess

from .child import ChildOrder, run_child


class LaunchFailed(Exception):
    """The system did not give us a process."""


class Launcher:
    def __init__(self, preload: Sequence[str]) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(preload))

    def warm_up(self) -> None:
        """Start the fork server now. Children inherit its signal handling, so an interrupt at the terminal, which goes
        to the whole process group, is ignored from their first instruction on."""
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            forkserver.ensure_running()
        finally:
            signal.signal(signal.SIGINT, previous)

    def launch(self, order: ChildOrder) -> BaseProcess:
        """A started process. Raises LaunchFailed."""
        name = f"{order.context.address}.{order.context.incarnation}"
        process = self._context.Process(target=run_child, args=(order,), name=name)
        try:
            process.start()
        except (OSError, EOFError) as error:
            raise LaunchFailed(f"{type(error).__name__}: {error}") from error
        return process

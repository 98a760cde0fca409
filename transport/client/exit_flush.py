"""What happens to producers and share consumers that a program leaves open at its end.

Producers are flushed, within a bound, with a warning; share consumers send their acknowledgements and give back the rest.

Registered with `atexit`, which runs while the network threads (daemons) still live. Called by the client that makes
them. Programs that are killed, or that end by `os._exit`, get no farewell.
"""

import atexit
import logging
from time import monotonic
from typing import Protocol

from .errors import TimedOut

EXIT_FLUSH_S = 5.0
"""How long the end of the interpreter waits for all producers together."""
_deadline: float | None = None
_log = logging.getLogger(__name__)


class Leaves(Protocol):
    def flush_at_exit(self) -> None: ...


class Flushable(Leaves, Protocol):
    def flush(self, timeout: float | None = None) -> None: ...


def at_exit(item: Leaves) -> None:
    """Have it flushed at the end of the interpreter, before whatever was registered earlier: its broker above all."""
    atexit.register(item.flush_at_exit)


def not_at_exit(item: Leaves) -> None:
    atexit.unregister(item.flush_at_exit)


def flush_with_warning(producer: Flushable, count: int) -> None:
    """`count` messages are not acknowledged, and the program ends."""
    global _deadline
    _deadline = _deadline or monotonic() + EXIT_FLUSH_S
    _log.warning(
        "the program ends with a producer that was not closed; its last %d messages are sent now; close it,"
        " or use it in a with block",
        count,
    )
    try:
        producer.flush(max(0.0, _deadline - monotonic()))
    except TimedOut as error:
        _log.error("messages of a producer that was not closed may be lost: %s", error)

"""Flush the producers and share consumers that a program leaves open at its exit.

Producers are flushed with a warning, within a time limit. Share consumers send their acknowledgements and
release their other records.

Both are registered with `atexit`, which runs while the network threads (daemons) still run, and before calls registered
earlier, such as the end of an embedded broker. A program that is killed, or ends by `os._exit`, flushes nothing.
"""

import logging
from collections.abc import Callable
from time import monotonic

from .errors import TimedOut

EXIT_FLUSH_S = 5.0
"""Time limit at interpreter exit, for all producers together."""
_deadline: float | None = None
_log = logging.getLogger(__name__)


def flush_with_warning(flush: Callable[[float], None], count: int) -> None:
    """Flush `count` unacknowledged messages of a producer at the program's exit."""
    global _deadline
    _deadline = _deadline or monotonic() + EXIT_FLUSH_S
    _log.warning(
        "the program ends with a producer that was not closed; its last %d messages are sent now; close it,"
        " or use it in a with block",
        count,
    )
    try:
        flush(max(0.0, _deadline - monotonic()))
    except TimedOut as error:
        _log.error("messages of a producer that was not closed may be lost: %s", error)

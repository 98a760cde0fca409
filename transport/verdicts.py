"""What a handler may raise to say what becomes of its record. Pure; programs import these from the package itself.

raises       the record                                             counted as
Release      is given out again, at once                            handed out
Reject       goes to the dead letters, now                          handed out, failed
all else     is tried again after a backoff, then a dead letter     handed out, failed
"""

from .protocol.errors import PlanariaError


class Release(PlanariaError):
    """Not now: give the record out again at once, to the record's charge of nothing."""


class Reject(PlanariaError):
    """Never: no further attempt can help."""

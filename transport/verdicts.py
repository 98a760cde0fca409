"""Exceptions that a handler raises to decide its record's outcome. Pure; programs import these from the package.

raises       the record                                             counted as
Release      is delivered again, at once                            a delivery
Reject       is dead-lettered, now                                  a delivery, failed
all else     is retried after a backoff, then dead-lettered         a delivery, failed
"""

from .protocol.errors import PlanariaError


class Release(PlanariaError):
    """Deliver the record again at once, without counting an attempt."""


class Reject(PlanariaError):
    """Dead-letter the record: no further attempt can help."""

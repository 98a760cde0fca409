"""Time limits of waits for events that must happen: they end a test that hangs, and are no promise under test.

A machine may be twenty times slower than usual while others use it. A wait returns as soon as the event is there, so
these limits cost nothing otherwise. A time that is promised is measured, and has a limit of its own.
"""

TIMEOUT_S = 100.0
TIMEOUT_MS = 100_000

"""The disk's free space, and the refusal of producers while it is below the reserve. Pure.

Owns the reserve and the state against it:

    open      --a measurement finds less than the reserve free--> refusing    STORAGE_FULL, and an alarm
    refusing  --a measurement finds RESUME_SHARE of the reserve free--> open

The process measures (`MeasureDisk`). While open it does so when something is produced, at most every MEASURE_AFTER_MS
and at least every MEASURE_AFTER_BYTES of it, or every sixteenth of a small reserve: at most this much may be written
into it. While refusing, a timer measures, so that recovery needs no failing request. Called by the partition's
machine.
"""

from ...transport.machine import SetTimer
from ...transport.protocol.errors import ErrorCode, ProtocolError
from .effects import Alarm, Effect, MeasureDisk
from .timers import MeasureDiskDue

RESUME_SHARE = 1.25
MEASURE_AFTER_MS = 100
MEASURE_AFTER_BYTES = 4 * 1024 * 1024
MEASURE_AGAIN_MS = 500


class DiskReserve:
    def __init__(self, reserve_bytes: int) -> None:
        self._reserve_bytes = reserve_bytes
        self._measure_after_bytes = min(MEASURE_AFTER_BYTES, reserve_bytes // 16)
        self._refusal: ProtocolError | None = None
        self._measured_at = 0
        self._measured_bytes = 0

    def on_produce(self, bytes_placed: int, now: int) -> tuple[ProtocolError | None, list[Effect]]:
        """Return the reason why the request is refused, if it is; and a measurement, when one is due."""
        if not self._reserve_bytes or self._refusal is not None:
            return self._refusal, []
        if (
            now - self._measured_at < MEASURE_AFTER_MS
            and 0 <= bytes_placed - self._measured_bytes < self._measure_after_bytes
        ):
            return None, []
        self._measured_at, self._measured_bytes = now, bytes_placed
        return None, [MeasureDisk()]

    def look(self) -> list[Effect]:
        return [MeasureDisk()] if self._reserve_bytes else []

    def on_measured(self, free_bytes: int, now: int) -> list[Effect]:
        was_refusing = self._refusal is not None
        enough_bytes = self._reserve_bytes * (RESUME_SHARE if was_refusing else 1)
        if free_bytes >= enough_bytes:
            self._refusal = None
            return [Alarm("disk", ())] if was_refusing else []
        again = SetTimer(MeasureDiskDue(), now + MEASURE_AGAIN_MS)
        reason = f"the disk has {free_bytes} bytes free, the reserve is {self._reserve_bytes}"
        self._refusal = ProtocolError(ErrorCode.STORAGE_FULL, reason)
        return [Alarm("disk", (f"producers are refused: {reason}",)), again]

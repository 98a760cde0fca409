"""The workers: they run the handler, each on its own thread, each record noted before and after. Impure.

The subscriber's hot path. Per record it makes no system call of its own but the reading of a clock.
"""

from time import monotonic, thread_time, time

from .effects import Ran, Run
from .flight_recorder import FlightRecorder
from .handler import Handler, failure_of, verdict_of
from .machine import SLICE_MS
from .threads import Inbox, WorkThread


class Workers:
    def __init__(
        self,
        handler: Handler,
        recorder: FlightRecorder,
        inbox: Inbox,
        concurrency: int = 1,
        *,
        is_metered: bool = False,
    ) -> None:
        """`is_metered`: say when the record at hand has begun, in CPU time."""
        self._handler = handler
        self._recorder = recorder
        self._is_stopping = False
        self._is_metered = is_metered
        self._began: list[tuple[int, float] | None] = [None] * concurrency
        self._threads = [WorkThread(f"planaria-handler-{number}", inbox) for number in range(concurrency)]

    def at_hand(self) -> list[tuple[int, tuple[int, float] | None]]:
        """By worker, its thread, and the offset and the CPU time at which its record began, if it has one."""
        return [(thread.ident, began) for thread, began in zip(self._threads, self._began, strict=True)]

    def run(self, order: Run) -> None:
        self._threads[order.worker].order(self._run, order)

    def stop(self) -> None:
        """Start no further record, not even of the runs under way."""
        self._is_stopping = True

    def _run(self, order: Run) -> Ran:
        handler, recorder = self._handler, self._recorder
        attempt, handed = order.attempt, order.handed + 1
        first_ms, last_ms = order.first_failed_ms, order.last_failed_ms
        worker, committed = order.worker, order.committed
        done = 0
        started_ms = int(time() * 1000)
        over_at = monotonic() + SLICE_MS / 1000
        for record in order.records:
            if self._is_stopping:
                break
            recorder.start(
                record.topic,
                record.partition,
                record.offset,
                attempt,
                handed,
                first_ms,
                worker,
                committed,
                started_ms,
            )
            if self._is_metered:
                self._began[worker] = (record.offset, thread_time())
            try:
                handler(record)
            except BaseException as error:  # noqa: BLE001 - sys.exit() in a handler is a failure like any other
                self._began[worker] = None
                verdict = verdict_of(error)
                now_ms = int(time() * 1000)
                if verdict == "released":
                    tally = (attempt - 1, handed, first_ms, last_ms)
                else:
                    tally = (attempt, handed, first_ms or now_ms, now_ms)
                recorder.settle(verdict, record.topic, record.partition, record.offset, *tally, worker)
                return Ran(order.number, done, failure_of(error), verdict)
            recorder.finish(worker)
            done += 1
            attempt = handed = 1
            first_ms = last_ms = 0
            if monotonic() > over_at:
                break
        self._began[worker] = None
        return Ran(order.number, done)

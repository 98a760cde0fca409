"""The workers: they run the handler, each on its own thread, and note each record before and after. Impure.

The subscriber's hot path. The only system call per record is the reading of a clock.

A handler's messages are sent when it has returned, and awaited at the end of the run: a record counts as done when its
outputs are durable. Under `exactly-once` none are sent here: they go to the machine with HandlerReturned, and into the
transaction that moves the offset.
"""

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import clock_gettime, monotonic, pthread_getcpuclockid, thread_time

from ...transport import tracing
from ...transport.client.delivery import Delivery
from ...transport.context import Context, end_of
from ...transport.correlation import carried_by
from ...transport.publication import Publication
from .effects import HandlerReturned, Record, Run, SoFar
from .flight_recorder import FlightRecorder
from .handler import Handler, failure_of, refuse_result, takes_context, verdict_of
from .runs import SLICE_MS
from .threads import Inbox, WorkThread

Check = Callable[[Publication], None]
Send = Callable[[Publication], Delivery]
_Results = tuple[dict[int, Sequence[Publication]], list[tuple[int, Delivery]]]
"""By offset, the messages left to a transaction; by index in the run, the messages sent."""


class Workers:
    def __init__(
        self,
        handler: Handler,
        recorder: FlightRecorder,
        inbox: Inbox,
        concurrency: int = 1,
        *,
        check: Check,
        send: Send | None,
        is_metered: bool = False,
        now_ms: Callable[[], int],
        calling_thread: int | None = None,
        correlation_header: str | None = None,
    ) -> None:
        """`check` raises the error a handler's message would be refused with; `send` publishes it, None leaves that to
        a transaction. `is_metered`: record the CPU time at which the current record began. `calling_thread`: the
        thread that runs the handler, if that is not the worker's. `correlation_header`: the header that a handler's
        messages take over from their record.
        """
        self._handler = handler
        self._takes_context = takes_context(handler)
        self._recorder = recorder
        self._check = check
        self._send = send
        self._now_ms = now_ms
        self._is_stopping = False
        self._is_metered = is_metered
        self._calling_thread = calling_thread
        self._correlation_header = correlation_header
        self._began: list[tuple[int, float] | None] = [None] * concurrency
        self._results: list[_Results] = [({}, [])] * concurrency
        self._left: list[deque[Record]] = [deque()] * concurrency
        """Each worker's records not begun yet; taken one by one from both ends, which is safe between threads."""
        self._threads = [WorkThread(f"planaria-handler-{number}", inbox) for number in range(concurrency)]

    def at_hand(self) -> list[tuple[int, tuple[int, float] | None]]:
        """Return each worker's thread, and the offset and CPU time at which its record began, if it has one."""
        return [
            (self._calling_thread or thread.ident, began)
            for thread, began in zip(self._threads, self._began, strict=True)
        ]

    def so_far(self, worker: int) -> SoFar:
        """Return the results of the worker's stuck run for the records before the one in progress."""
        published, sent = self._results[worker]
        undelivered = (at for at, delivery in list(sent) if not delivery.done() or delivery.exception())
        return SoFar(dict(published), next(undelivered, None))

    def run(self, order: Run) -> None:
        self._left[order.worker] = deque(order.records)
        self._threads[order.worker].order(self._run, order)

    def recall(self, worker: int) -> int:
        """Take back the records that the worker has not begun; return their number."""
        left, count = self._left[worker], 0
        with suppress(IndexError):
            while True:
                left.pop()
                count += 1
        return count

    def stop(self) -> None:
        """Start no further record, not even of the runs in progress."""
        self._is_stopping = True

    def _run(self, order: Run) -> HandlerReturned:
        handler, recorder, worker = self._handler, self._recorder, order.worker
        takes_context, send, header = self._takes_context, self._send, self._correlation_header
        attempt, handed, first_ms = order.attempt, order.handed + 1, order.first_failed_ms
        committed, lineage = order.committed, order.lineage
        finish = recorder.set_aside if send is None else recorder.finish
        done = 0
        published, sent = self._results[worker] = ({}, [])
        made: Sequence[Publication] = ()
        started_ms = self._now_ms()
        over_at = monotonic() + SLICE_MS / 1000
        take = self._left[worker].popleft
        while not self._is_stopping:
            try:
                record = take()
            except IndexError:
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
                record.leader_epoch,
                lineage,
            )
            if tracing.active is not None:
                tracing.attempt.set(attempt)
            if self._is_metered:
                self._began[worker] = (record.offset, self._cpu_s())
            try:
                if takes_context:
                    carried = None if header is None else carried_by(header, record)
                    context = Context(self._check, record, carried)
                    if (result := handler(record, context)) is not None:
                        refuse_result(result)
                    made = end_of(context)
                    if send is not None:
                        sent += [(done, send(each)) for each in made]
                elif (result := handler(record)) is not None:
                    refuse_result(result)
            except BaseException as error:  # noqa: BLE001 - sys.exit() in a handler is a failure like any other
                self._began[worker] = None
                return self._undelivered(order, sent) or self._failed(order, done, error, published)
            if made:
                recorder.set_aside(worker)
                if send is None:
                    published[record.offset] = made
            else:
                finish(worker)
            done += 1
            attempt = handed = 1
            first_ms = 0
            if monotonic() > over_at:
                break
        self._began[worker] = None
        return self._undelivered(order, sent) or HandlerReturned(order.number, done, published=published)

    def _cpu_s(self) -> float:
        """Return the CPU time of the thread that runs the handler."""
        if self._calling_thread is None:
            return thread_time()
        return clock_gettime(pthread_getcpuclockid(self._calling_thread))

    def _undelivered(self, order: Run, sent: list[tuple[int, Delivery]]) -> HandlerReturned | None:
        """Wait until the sent messages are durable. The first record with a message that is not has failed."""
        for at, delivery in sent:
            error = delivery.exception()
            if error is not None:
                return self._failed(order, at, error, {})
        return None

    def _failed(
        self, order: Run, at: int, error: BaseException, published: dict[int, Sequence[Publication]]
    ) -> HandlerReturned:
        """Return the failure of the record at this index of the run."""
        verdict, record = verdict_of(error), order.records[at]
        attempt, handed, first_ms, last_ms = (1, 1, 0, 0)
        if at == 0:
            attempt, handed = order.attempt, order.handed + 1
            first_ms, last_ms = order.first_failed_ms, order.last_failed_ms
        if verdict == "released":
            attempt -= 1
        else:
            last_ms = self._now_ms()
            first_ms = first_ms or last_ms
        tally = (attempt, handed, first_ms, last_ms)
        self._recorder.settle(
            verdict,
            record.topic,
            record.partition,
            record.offset,
            *tally,
            order.worker,
            record.leader_epoch,
            order.lineage,
        )
        return HandlerReturned(order.number, at, failure_of(error), verdict, published)

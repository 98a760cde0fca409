"""The backlog of the slowest live group, and the refusal of producers because of it. Pure.

Owns the groups (`groups.py`), the limits of the topic and the state between them:

    open      --a produce finds the backlog above max_backlog_*--> refusing     BACKPRESSURE, and an alarm
    refusing  --a report, a lapse or a new limit brings it to LOW_SHARE or below--> open

A backlog of messages is counted in offsets, one of bytes in bytes of the log, from max(committed offset, log start):
a deleted record is in no group's backlog. The process measures a group's position (`MeasureBacklog`) when it has
changed, and batches admitted since add to it. A request is checked before it is appended, so a backlog may exceed its
limit by the size of one request. Called by the partition's machine; `refusal` runs with every produce.
"""

from msgspec import Struct, structs

from ...transport.machine import CancelTimer, Received, Reply, SetTimer
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.progress import ReportProgress, ReportProgressReply
from ...transport.protocol.topics import TopicConfig
from .effects import Alarm, Effect, GroupsSaved, MeasureBacklog, SaveGroups
from .groups import ReportedGroups
from .timers import GroupLapses, SaveGroupsDue

BACKLOG = "backlog"
"""Name of the alarm while producers are refused."""
LOW_SHARE = 0.8
RETRY_AFTER_MS = 50
"""The delay that refused producers are asked to wait."""
SAVE_INTERVAL_MS = 1_000


class LogEnd(Struct, frozen=True, gc=False):
    """The log end after this turn's writes, and the bytes that this incarnation will have added by then."""

    offset: int
    bytes: int


class Backlog:
    def __init__(
        self,
        topic_id: str,
        leader_epoch: int,
        groups: ReportedGroups,
        log_start_offset: int,
        log_end_offset: int,
    ) -> None:
        """Take the log's bounds as this start of the partition, `leader_epoch`, found them."""
        self._topic_id = topic_id
        self._leader_epoch = leader_epoch
        self._found_end_offset = log_end_offset
        self._groups = groups
        groups.bound(log_end_offset)
        self._log_start_offset = log_start_offset
        self._max_messages = self._max_bytes = -1
        self._timeout_ms = 0
        self._is_limited = False
        self._is_tracking = False
        self._is_saving = False
        self._slowest: tuple[str, int] | None = None
        self._bytes_mark: int | None = None
        """The value of `LogEnd.bytes`, possibly projected back, at which the slowest group's position was admitted."""
        self._is_refusing = False

    def configure(self, config: TopicConfig, end: LogEnd, now: int) -> list[Effect]:
        self._max_messages = config.max_backlog_messages
        self._max_bytes = config.max_backlog_bytes
        self._timeout_ms = config.backlog_group_timeout_ms
        self._is_limited = self._max_messages >= 0 or self._max_bytes >= 0
        was_tracking, self._is_tracking = self._is_tracking, config.tracks_groups
        if not self._is_tracking:
            self._groups.clear()
        effects = self._look(end, now)
        if was_tracking and not self._is_tracking and not self._groups.is_saved:
            effects += self._save()
        return effects

    @property
    def is_saved(self) -> bool:
        """True if the file contains the whole table of groups."""
        return self._groups.is_saved

    # -- reports of coordinators

    def on_report(self, received: Received, report: ReportProgress, end: LogEnd, now: int) -> list[Effect]:
        if not self._is_tracking or report.topic_id != self._topic_id:
            return [Reply(received.sender, ReportProgressReply(is_urgent=False))]
        if report.leader_epoch is not None and report.leader_epoch < self._leader_epoch:
            report = structs.replace(report, offset=min(report.offset, self._found_end_offset))
        is_due = self._groups.report(report, end.offset, now)
        effects = self._look(end, now)
        if is_due:
            return [*effects, SaveGroups(self._groups.encode(), received)]
        return [*effects, *self._save_later(now), self._report_reply(received, end)]

    def _report_reply(self, received: Received, end: LogEnd) -> Reply:
        return Reply(received.sender, ReportProgressReply(is_urgent=self._is_above(LOW_SHARE, end)))

    def on_lapse(self, end: LogEnd, now: int) -> list[Effect]:
        """Handle the lapse of a group that has had no members and no reports for long enough."""
        return self._look(end, now)

    def on_save_timer(self) -> list[Effect]:
        self._is_saving = False
        return self._save() if not self._groups.is_saved else []

    def _save(self) -> list[Effect]:
        return [SaveGroups(self._groups.encode())]

    def _save_later(self, now: int) -> list[Effect]:
        if self._groups.is_saved or self._is_saving:
            return []
        self._is_saving = True
        return [SetTimer(SaveGroupsDue(), now + SAVE_INTERVAL_MS)]

    def on_saved(self, event: GroupsSaved, end: LogEnd, now: int) -> list[Effect]:
        """Answer the report that waited for the file. Its coordinator repeats one that the disk had no room for."""
        received = event.received
        if event.refusal is not None:
            refused = [] if received is None else [Reply(received.sender, event.refusal)]
            return [*refused, *self._save_later(now)]
        self._groups.on_saved()
        return [] if received is None else [self._report_reply(received, end)]

    def _look(self, end: LogEnd, now: int) -> list[Effect]:
        """Find the slowest group and update the state."""
        before, self._slowest = self._slowest, None
        if self._is_limited:
            self._slowest = self._slowest_live(now)
        lapse = self._groups.next_lapse(now, self._timeout_ms) if self._is_limited else None
        effects: list[Effect] = [
            CancelTimer(GroupLapses()) if lapse is None else SetTimer(GroupLapses(), lapse)
        ]
        if self._max_bytes < 0 or self._slowest is None:
            self._bytes_mark = None
        elif self._bytes_mark is None or before is None or before[1] != self._slowest[1]:
            return [*effects, MeasureBacklog(self._slowest[1])]
        return effects + self._settle(end)

    def _slowest_live(self, now: int) -> tuple[str, int] | None:
        found = self._groups.slowest(now, self._timeout_ms)
        return None if found is None else (found[0], max(found[1], self._log_start_offset))

    def on_log_start(self, log_start_offset: int, end: LogEnd, now: int) -> list[Effect]:
        """Note that records below this offset have been deleted."""
        if log_start_offset == self._log_start_offset:
            return []
        self._log_start_offset = log_start_offset
        return self._look(end, now) if self._is_limited else []

    def on_measured(self, behind_bytes: int, bytes_written: int, end: LogEnd) -> list[Effect]:
        self._bytes_mark = bytes_written - behind_bytes
        return self._settle(end)

    def _settle(self, end: LogEnd) -> list[Effect]:
        if not self._is_refusing:
            return []
        if self._is_above(LOW_SHARE, end):
            return [self._alarm(end)]
        self._is_refusing = False
        return [Alarm(BACKLOG, ())]

    def _is_above(self, share: float, end: LogEnd) -> bool:
        """Return True if a backlog is larger than this share of its limit."""
        if self._slowest is None:
            return False
        messages, behind_bytes = self._behind(end)
        return (0 <= self._max_messages * share < messages) or (0 <= self._max_bytes * share < behind_bytes)

    def _behind(self, end: LogEnd) -> tuple[int, int]:
        assert self._slowest is not None
        behind_bytes = 0 if self._bytes_mark is None else end.bytes - self._bytes_mark
        return end.offset - self._slowest[1], behind_bytes

    @property
    def consumed_offset(self) -> int | None:
        """Return the offset that every group, live or not, has committed past or lost; None without groups."""
        consumed_offset = self._groups.consumed_offset
        return None if consumed_offset is None else max(consumed_offset, self._log_start_offset)

    # -- answers to producers

    def refusal(self, end: LogEnd) -> tuple[ProtocolError | None, list[Effect]]:
        """Return the reason why a request is refused now, if it is."""
        if self._slowest is None or not (self._is_refusing or self._is_above(1, end)):
            return None, []
        error = ProtocolError(ErrorCode.BACKPRESSURE, self._reason(end), retry_after_ms=RETRY_AFTER_MS)
        was_refusing, self._is_refusing = self._is_refusing, True
        return error, [] if was_refusing else [self._alarm(end)]

    def _alarm(self, end: LogEnd) -> Alarm:
        return Alarm(BACKLOG, (f"producers are refused: {self._reason(end)}",))

    def _reason(self, end: LogEnd) -> str:
        assert self._slowest is not None
        messages, behind_bytes = self._behind(end)
        reason = f"group {self._slowest[0]} is {messages} messages behind"
        return reason if self._bytes_mark is None else f"{reason}, {behind_bytes} bytes"

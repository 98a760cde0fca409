"""The log of a partition in its report, for each heartbeat. Pure."""

from msgspec import structs

from ...transport.protocol.operations import LogReport
from .leader import Leader
from .roles import Undecided


def log_report(role: Undecided, size_bytes: int) -> LogReport:
    watermarks = role.watermarks
    found = LogReport(
        role=role.name,
        leader_epoch=role.leader_epoch,
        log_start_offset=watermarks.log_start_offset,
        high_watermark=watermarks.high_watermark,
        log_end_offset=role.log_end_offset,
        size_bytes=size_bytes,
    )
    if not isinstance(role, Leader):
        return found
    in_sync = role.replicas.in_sync
    lags = in_sync.lags
    return structs.replace(
        found,
        replicas=1 + len(lags),
        in_sync=len(in_sync.in_sync),
        is_below_minimum=in_sync.is_below_minimum,
        replica_lags=lags,
    )
